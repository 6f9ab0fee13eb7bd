// Package faults tests the tests: it plants a fault in the code, one at a time,
// and wants the test that guards against it to fail.
//
// A fault is a file in testdata/faults:
//
//	# why this would be wrong
//	file: path of the source file from the repository's root
//	test: import path below the module root, and the name of the test
//	args: further arguments of it, if any
//	--- replace
//	the lines as they stand
//	--- with
//	the lines with the fault
//
// One that another test has to catch too says "as: NAME" of the other fault in place of
// what is wrong, file and lines.
//
// The changed file is laid over the real one by go test -overlay; the tree is
// not touched. A fault whose lines are no longer there fails, so that it moves
// along with the code.
package faults
