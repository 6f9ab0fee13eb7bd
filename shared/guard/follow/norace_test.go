//go:build !race

package follow_test

const raced = false
