package wire

import (
	"errors"
	"fmt"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// maxDepth is how deep JSON of ours may nest; nothing needs more than 6.
const maxDepth = 64

// scanner reads JSON (RFC 8259) strictly: exact names, integers only where a
// number is wanted, valid UTF-8, no lone surrogates, nothing after the value.
// encoding/json would match names without case and let the last of two equal
// members win, and so would let a message say one thing to one reader and
// another to the next. The first fault stays in err; after it every method
// returns at once.
type scanner struct {
	b     []byte
	i     int
	depth int
	fresh bool // the next element is the first one of its object or array
	err   error
}

func (s *scanner) fail(format string, args ...any) {
	if s.err == nil {
		s.err = fmt.Errorf("at byte %d: %w", s.i, fmt.Errorf(format, args...))
	}
}

func (s *scanner) space() {
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case ' ', '\t', '\r', '\n':
			s.i++
		default:
			return
		}
	}
}

// peek returns the first byte of the next token, 0 at the end.
func (s *scanner) peek() byte {
	s.space()
	if s.err != nil || s.i >= len(s.b) {
		return 0
	}
	return s.b[s.i]
}

// open begins an object or array; go on with more until it returns false.
func (s *scanner) open(c byte) {
	if s.peek() != c {
		s.fail("want %q", c)
		return
	}
	if s.depth++; s.depth > maxDepth {
		s.fail("nested deeper than %d", maxDepth)
		return
	}
	s.i++
	s.fresh = true
}

// more reports whether another element follows, and ends the object or array
// that closes with c otherwise.
func (s *scanner) more(c byte) bool {
	got := s.peek()
	switch {
	case s.err != nil:
		return false
	case got == c:
		s.i++
		s.depth--
		s.fresh = false
		return false
	case s.fresh:
		s.fresh = false
		return true
	case got == ',':
		s.i++
		return true
	}
	s.fail("want ',' or %q", c)
	return false
}

// name reads a member's name and its colon.
func (s *scanner) name() []byte {
	n := s.str()
	if s.peek() != ':' {
		s.fail("want ':'")
		return nil
	}
	s.i++
	return n
}

// end checks that nothing follows, and returns the first fault.
func (s *scanner) end() error {
	if s.space(); s.err == nil && s.i != len(s.b) {
		s.fail("something follows the value")
	}
	return s.err
}

// str reads a string. What it returns is a part of the input when nothing is
// escaped in it: copy it to keep it.
func (s *scanner) str() []byte {
	if s.peek() != '"' {
		s.fail("want a string")
		return nil
	}
	s.i++
	from := s.i
	for s.i < len(s.b) {
		switch c := s.b[s.i]; {
		case c == '"':
			s.i++
			return s.b[from : s.i-1]
		case c == '\\':
			return s.escaped(from)
		case c < 0x20:
			s.fail("a control character in a string")
			return nil
		case c < utf8.RuneSelf:
			s.i++
		default:
			if !s.rune() {
				return nil
			}
		}
	}
	s.fail("a string without an end")
	return nil
}

func (s *scanner) rune() bool {
	r, n := utf8.DecodeRune(s.b[s.i:])
	if r == utf8.RuneError && n < 2 {
		s.fail("invalid UTF-8")
		return false
	}
	s.i += n
	return true
}

// escaped goes on with a string at its first backslash.
func (s *scanner) escaped(from int) []byte {
	out := append([]byte(nil), s.b[from:s.i]...)
	for s.i < len(s.b) {
		at := s.i
		switch c := s.b[s.i]; {
		case c == '"':
			s.i++
			return out
		case c == '\\':
			r, ok := s.escape()
			if !ok {
				return nil
			}
			out = utf8.AppendRune(out, r)
		case c < 0x20:
			s.fail("a control character in a string")
			return nil
		default:
			if !s.rune() {
				return nil
			}
			out = append(out, s.b[at:s.i]...)
		}
	}
	s.fail("a string without an end")
	return nil
}

func (s *scanner) escape() (rune, bool) {
	if s.i+1 >= len(s.b) {
		s.fail("a string without an end")
		return 0, false
	}
	c := s.b[s.i+1]
	s.i += 2
	switch c {
	case '"', '\\', '/':
		return rune(c), true
	case 'b':
		return '\b', true
	case 'f':
		return '\f', true
	case 'n':
		return '\n', true
	case 'r':
		return '\r', true
	case 't':
		return '\t', true
	case 'u':
		r := s.hex4()
		if !utf16.IsSurrogate(r) {
			return r, s.err == nil
		}
		if s.i+1 < len(s.b) && s.b[s.i] == '\\' && s.b[s.i+1] == 'u' {
			s.i += 2
			if r = utf16.DecodeRune(r, s.hex4()); r != utf8.RuneError {
				return r, s.err == nil
			}
		}
		s.fail("half a surrogate pair")
		return 0, false
	}
	s.fail("an unknown escape")
	return 0, false
}

func (s *scanner) hex4() rune {
	if s.i+4 > len(s.b) {
		s.fail("a cut off escape")
		return 0
	}
	var r rune
	for _, c := range s.b[s.i : s.i+4] {
		switch {
		case c >= '0' && c <= '9':
			r = r<<4 | rune(c-'0')
		case c >= 'a' && c <= 'f':
			r = r<<4 | rune(c-'a'+10)
		case c >= 'A' && c <= 'F':
			r = r<<4 | rune(c-'A'+10)
		default:
			s.fail("an escape that is not hexadecimal")
			return 0
		}
	}
	s.i += 4
	return r
}

// number reads a number's text by the grammar of RFC 8259.
func (s *scanner) number() []byte {
	s.space()
	from := s.i
	digits := func() bool {
		at := s.i
		for s.i < len(s.b) && s.b[s.i] >= '0' && s.b[s.i] <= '9' {
			s.i++
		}
		return s.i > at
	}
	at := func(set string) bool {
		for j := 0; s.i < len(s.b) && j < len(set); j++ {
			if s.b[s.i] == set[j] {
				s.i++
				return true
			}
		}
		return false
	}
	at("-")
	ok := at("0") || digits()
	if ok && at(".") {
		ok = digits()
	}
	if ok && at("eE") {
		at("+-")
		ok = digits()
	}
	if !ok && s.err == nil {
		s.fail("want a number")
	}
	return s.b[from:s.i]
}

// uint reads an integer from 0 to limit.
func (s *scanner) uint(limit uint64) uint64 {
	text := s.number()
	if s.err != nil {
		return 0
	}
	n, err := strconv.ParseUint(string(text), 10, 64)
	if err != nil || n > limit {
		s.fail("number %.30q: want an integer from 0 to %d", text, limit)
		return 0
	}
	return n
}

func (s *scanner) boolean() bool {
	switch {
	case s.literal("true"):
		return true
	case s.literal("false"):
	default:
		s.fail("want true or false")
	}
	return false
}

func (s *scanner) literal(word string) bool {
	s.space()
	if s.err != nil || len(s.b)-s.i < len(word) || string(s.b[s.i:s.i+len(word)]) != word {
		return false
	}
	s.i += len(word)
	return true
}

// skip passes over any value, whose form it checks.
func (s *scanner) skip() {
	switch s.peek() {
	case '{':
		for s.open('{'); s.more('}'); {
			s.name()
			s.skip()
		}
	case '[':
		for s.open('['); s.more(']'); {
			s.skip()
		}
	case '"':
		s.str()
	case 't', 'f':
		s.boolean()
	case 'n':
		if !s.literal("null") {
			s.fail("want null")
		}
	default:
		s.number()
	}
}

var errCase = errors.New("a member that differs from a known one by case only")
