// Package strictjson decodes JSON that somebody else wrote, and takes nothing
// that could be read in two ways: no duplicate members, no member whose case is
// not exactly that of the field (encoding/json takes "ſub" for "sub"), none that
// is unknown, nothing after the value, no invalid UTF-8, no lone surrogates, no
// control characters in strings except tab and newlines, no null where a value
// must be, no nesting deeper than MaxDepth.
//
// What it accepts encoding/json accepts too, with the same result: the scanner
// here only refuses, and encoding/json decodes. Errors are problem.Errors of
// kind Invalid whose field is the path of the member; they repeat no value.
package strictjson
