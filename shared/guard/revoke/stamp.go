package revoke

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
)

// Stamp is a place in the history of the log. Order is always (Epoch, Seq):
// the log can go back and then uses sequences twice, but every history has a
// greater epoch than the one before. The zero Stamp is before everything.
type Stamp struct {
	Epoch uint64 // milliseconds since 1970 at which this history began; only grows
	Seq   uint64 // JetStream sequence within it
}

// Compare returns -1, 0 or +1.
func (s Stamp) Compare(o Stamp) int {
	if c := cmp.Compare(s.Epoch, o.Epoch); c != 0 {
		return c
	}
	return cmp.Compare(s.Seq, o.Seq)
}

// Less reports whether s is before o.
func (s Stamp) Less(o Stamp) bool {
	return s.Epoch < o.Epoch || s.Epoch == o.Epoch && s.Seq < o.Seq
}

// IsZero reports whether s is before everything.
func (s Stamp) IsZero() bool { return s == Stamp{} }

// Max returns the later of s and o.
func (s Stamp) Max(o Stamp) Stamp {
	if s.Less(o) {
		return o
	}
	return s
}

// String returns "EPOCH.SEQUENCE", the form of the claim rseq.
func (s Stamp) String() string {
	return strconv.FormatUint(s.Epoch, 10) + "." + strconv.FormatUint(s.Seq, 10)
}

// MarshalText implements encoding.TextMarshaler.
func (s Stamp) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler by ParseStamp.
func (s *Stamp) UnmarshalText(b []byte) error {
	p, err := ParseStamp(string(b))
	if err == nil {
		*s = p
	}
	return err
}

// ParseStamp is the inverse of String. It takes the canonical form only: two
// decimal numbers without sign or leading zeros, so that one stamp has one text.
func ParseStamp(text string) (Stamp, error) {
	e, q, ok := strings.Cut(text, ".")
	if ok {
		epoch, err1 := parseCanonical(e)
		seq, err2 := parseCanonical(q)
		if err1 == nil && err2 == nil {
			return Stamp{Epoch: epoch, Seq: seq}, nil
		}
	}
	return Stamp{}, fmt.Errorf("stamp %.60q: want EPOCH.SEQUENCE, two decimal numbers", text)
}

func parseCanonical(s string) (uint64, error) {
	if len(s) > 1 && s[0] == '0' || s != "" && (s[0] == '+' || s[0] == '-') {
		return 0, strconv.ErrSyntax
	}
	return strconv.ParseUint(s, 10, 64)
}

// Epoch is one history of the log, as its first message tells it.
type Epoch struct {
	Number uint64 // see Stamp.Epoch
	// D is the last position that this history shares with those before it:
	// every stamp of an older epoch above D counts as D.
	D       Stamp
	Restore bool // begun by the restore of a backup
}

// Epochs are all known histories, by ascending Number. It is immutable once
// shared: With returns a copy.
type Epochs []Epoch

// With returns the epochs with e among them. Of two with one number the lower
// D wins, since it counts more as lost; the order of calls does not matter.
func (es Epochs) With(e Epoch) Epochs {
	out := make(Epochs, 0, len(es)+1)
	placed := false
	for _, have := range es {
		switch {
		case have.Number == e.Number:
			if e.D.Less(have.D) {
				have.D = e.D
			}
			have.Restore = have.Restore || e.Restore
			placed = true
		case have.Number > e.Number && !placed:
			out = append(out, e)
			placed = true
		}
		out = append(out, have)
	}
	if !placed {
		out = append(out, e)
	}
	return out
}

// Current returns the newest epoch, zero if none is known.
func (es Epochs) Current() Epoch {
	if len(es) == 0 {
		return Epoch{}
	}
	return es[len(es)-1]
}

// Has reports whether the epoch with this number is known.
func (es Epochs) Has(number uint64) bool {
	for i := len(es) - 1; i >= 0; i-- {
		if es[i].Number == number {
			return true
		}
	}
	return false
}

// AsIn returns the epochs of a log that was read whole, for who knew those of es. What the
// log has lost counts no more, or two who know the same log would judge differently; but
// what a restore made void stays void, and a newer epoch is one that the log has yet to show.
func (es Epochs) AsIn(log Epochs) Epochs {
	newest := log.Current().Number
	for _, e := range es {
		if e.Number > newest || e.Restore {
			log = log.With(e)
		}
	}
	return log
}

// Void reports whether a sign-in with this stamp, and whatever came from it, is
// void: it was made before a backup was restored, and what had ended it may be
// lost with the log's tail. That holds for codes, sessions and refresh tokens.
func (es Epochs) Void(s Stamp) bool {
	for i := len(es) - 1; i >= 0 && es[i].Number > s.Epoch; i-- {
		if es[i].Restore {
			return true
		}
	}
	return false
}

// Clamp returns what a stamp counts as: a stamp of an older epoch that lies
// above a later epoch's D was given in a history that was lost, and counts as D.
// Every epoch's D applies, so the lowest wins.
func (es Epochs) Clamp(s Stamp) Stamp {
	for i := len(es) - 1; i >= 0 && es[i].Number > s.Epoch; i-- {
		if es[i].D.Less(s) {
			s = es[i].D
		}
	}
	return s
}
