package chaos

import (
	"errors"
	"net"
	"strings"
	"testing"
	"time"
)

// TestPacketsAreLost: nobody answers, and nobody says so either.
func TestPacketsAreLost(t *testing.T) {
	p, err := newPackets(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if p == nil {
		t.Skip("it takes a network of its own: root, ip and nft")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	dial := func() error {
		c, err := net.DialTimeout("tcp", l.Addr().String(), 300*time.Millisecond)
		if err == nil {
			_ = c.Close()
		}
		return err
	}
	want := func(lost bool, when string) {
		t.Helper()
		err := dial()
		var no net.Error
		if timedOut := errors.As(err, &no) && no.Timeout(); timedOut != lost || !lost && err != nil {
			t.Errorf("%s: %v, want it lost: %t", when, err, lost)
		}
	}
	by := func(n int) {
		t.Helper()
		if err := p.change(t.Context(), silentSet, []string{port}, n); err != nil {
			t.Fatal(err)
		}
	}
	want(false, "before")
	by(1)
	want(true, "with one fault")
	by(1)
	by(-1)
	want(true, "with one of two faults left")
	by(-1)
	want(false, "after")
	if err := nft(t.Context(), "nonsense"); err == nil || !strings.Contains(err.Error(), "nft") {
		t.Errorf("%v, want nft's own words", err)
	}
}
