package wire

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/quash-project/quash/shared/guard/revoke"
)

// Bounds of an AttemptsReport: some 60 KB.
const (
	MaxAttempts     = 100 // counts in one report
	MaxAttemptsFrom = 64  // networks of one count
	MaxAttemptsRows = 500 // networks in one report

	maxCount = 1<<53 - 1
)

// AttemptsReport tells who still tries with what was cut or held. Every count is the
// whole one since it began, so that a report which is lost, repeated or late does no
// harm: the greatest counts.
type AttemptsReport struct {
	Instance string     `json:"instance"`
	Attempts []Attempts `json:"attempts"`
}

// Attempts is how often a guard has refused something because of one target of one
// entry. A guard that has forgotten a count begins another, with a later Began: the two
// add up. Times are Unix milliseconds by the guard's clock.
type Attempts struct {
	At     revoke.Stamp `json:"at"`     // of the newest entry that refuses it
	Target revoke.Key   `json:"target"` // of that entry
	Began  int64        `json:"began"`
	First  int64        `json:"first"`
	Last   int64        `json:"last"`
	Count  uint64       `json:"count"`
	// From are networks that it came from, those that have changed. A guard keeps only
	// some of many: what they lack of Count came from others.
	From []AttemptsFrom `json:"from,omitempty"`
}

// AttemptsFrom is how often it came from one network since First; a network that was
// forgotten begins again, with a later First.
type AttemptsFrom struct {
	Network string `json:"network"` // as NetworkOf has it
	First   int64  `json:"first"`
	Last    int64  `json:"last"`
	Count   uint64 `json:"count"`
}

// NetworkOf returns how an address is counted: an IPv4 address by itself, of an IPv6
// address its /64, which is what one subscriber has (RFC 6177, section 2); "" for the zero
// Addr.
func NetworkOf(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	if a = a.Unmap().WithZone(""); a.Is4() {
		return a.String()
	}
	p, _ := a.Prefix(64) // it has so many bits
	return p.String()
}

// checkNetwork wants what NetworkOf returns.
func checkNetwork(text string) error {
	if text == "" || len(text) > 64 {
		if text == "" {
			return nil
		}
		return errors.New("network: too long")
	}
	a, err := netip.ParseAddr(text)
	if err != nil {
		var p netip.Prefix
		if p, err = netip.ParsePrefix(text); err == nil {
			a = p.Addr()
		}
	}
	if err != nil || NetworkOf(a) != text {
		return fmt.Errorf("network %.64q: want an IPv4 address, or the /64 of an IPv6 address", text)
	}
	return nil
}

func checkCount(first, last int64, count uint64) error {
	if first <= 0 || last < first || last > maxMillis {
		return fmt.Errorf("first %d, last %d: out of range", first, last)
	}
	if count == 0 || count > maxCount {
		return fmt.Errorf("count %d: want 1 to %d", count, uint64(maxCount))
	}
	return nil
}

// Check implements Checker.
func (r AttemptsReport) Check() error {
	if err := CheckInstance(r.Instance); err != nil {
		return err
	}
	if len(r.Attempts) == 0 || len(r.Attempts) > MaxAttempts {
		return fmt.Errorf("attempts: %d counts, want 1 to %d", len(r.Attempts), MaxAttempts)
	}
	rows := 0
	for i := range r.Attempts {
		if err := r.Attempts[i].check(); err != nil {
			return fmt.Errorf("attempts %d: %w", i, err)
		}
		rows += len(r.Attempts[i].From)
	}
	if rows > MaxAttemptsRows {
		return fmt.Errorf("attempts: %d networks, %d at most", rows, MaxAttemptsRows)
	}
	return nil
}

func (a *Attempts) check() error {
	switch {
	case a.At.Epoch == 0 || a.At.Epoch > MaxEpoch || a.At.Seq == 0:
		return fmt.Errorf("at %s: out of range", a.At)
	case a.Began <= 0 || a.Began > maxMillis:
		return fmt.Errorf("began %d: out of range", a.Began)
	case len(a.From) > MaxAttemptsFrom:
		return fmt.Errorf("from: %d networks, %d at most", len(a.From), MaxAttemptsFrom)
	}
	if err := checkCount(a.First, a.Last, a.Count); err != nil {
		return err
	}
	left := a.Count
	seen := make(map[string]bool, len(a.From))
	for _, f := range a.From {
		err := checkNetwork(f.Network)
		if err == nil {
			err = checkCount(f.First, f.Last, f.Count)
		}
		switch {
		case err != nil:
			return fmt.Errorf("from: %w", err)
		case seen[f.Network]:
			return fmt.Errorf("from: the network %q twice", f.Network)
		case f.Count > left:
			return errors.New("from: the networks have more than all")
		}
		seen[f.Network] = true
		left -= f.Count
	}
	return nil
}
