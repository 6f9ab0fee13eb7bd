package issuer

import (
	"strconv"
	"testing"
	"time"
)

func TestBudgetsFillAgainAndAreBounded(t *testing.T) {
	r, now := newBudgets(), time.Unix(1_800_000_000, 0)
	for range 2 {
		if _, wait := r.take("a", 2, now); wait != 0 {
			t.Fatalf("wait %v, want none", wait)
		}
	}
	if _, wait := r.take("a", 2, now); wait != 30*time.Second {
		t.Errorf("wait %v, want half a minute", wait)
	}
	if _, wait := r.take("a", 2, now.Add(30*time.Second)); wait != 0 {
		t.Errorf("after half a minute: wait %v", wait)
	}
	for i := range maxBudgets + 10 {
		r.take(strconv.Itoa(i), 1, now.Add(time.Minute))
	}
	if n := len(r.of); n > maxBudgets {
		t.Errorf("%d buckets, want %d at most", n, maxBudgets)
	}
	// Of those that are full none is missed.
	r.take("again", 1, now.Add(time.Hour))
	if n := len(r.of); n != 1 {
		t.Errorf("%d buckets an hour later, want one", n)
	}
}
