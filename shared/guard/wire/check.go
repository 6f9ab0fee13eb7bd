package wire

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/quash-project/quash/shared/guard/revoke"
)

// Bounds of what a message may say. They keep the header below what the broker
// takes, and every number below 2^53, which is as far as JSON goes everywhere.
const (
	// MaxHeader is the longest wire part in bytes. The broker takes 64 KiB of
	// headers altogether; the rest is for those that it and the publisher add.
	MaxHeader = 64<<10 - 1<<10
	// MaxEpoch is the highest number of an epoch (the year 4199): 14 digits, so
	// that 1,000 positions fit into the header.
	MaxEpoch = 1<<46 - 1

	maxMillis = 1<<46 - 1
	maxOps    = 16
	maxKeyID  = 128
	maxJWS    = 8 << 10
	// maxInstance is also as long as a name may be; both stand in subjects.
	maxInstance = 64
)

// The ops of an entry, as they stand in "ops".
const (
	OpCut     = "cut"
	OpEnd     = "end"
	OpHold    = "hold"
	OpRelease = "release"
)

// What comes at the end of a hold.
const (
	ThenRelease = "release"
	ThenRevoke  = "revoke"
)

// Who said that a guard is out.
const (
	BySelf     = "self"
	ByOperator = "operator"
	ByProof    = "proof"
)

// kinds and ops are all that this version knows.
var (
	kinds = [...]string{KindEpoch, KindEntry, KindKey, KindJoin, KindOut, KindTick}
	ops   = [...]string{OpCut, OpEnd, OpHold, OpRelease}
)

// Kinds returns the kinds of messages that this version knows.
func Kinds() []string { return slices.Clone(kinds[:]) }

// Ops returns the ops of an entry that this version knows.
func Ops() []string { return slices.Clone(ops[:]) }

func knownKind(kind string) bool { return slices.Contains(kinds[:], kind) }

func unknownOp(op string) bool { return !slices.Contains(ops[:], op) }

// ops returns the ops that have targets, in their fixed order.
func (m *Message) ops() []string { return m.appendOps(make([]string, 0, 4)) }

func (m *Message) appendOps(ops []string) []string {
	if len(m.Cut) > 0 {
		ops = append(ops, OpCut)
	}
	if len(m.End) > 0 {
		ops = append(ops, OpEnd)
	}
	if len(m.Hold) > 0 {
		ops = append(ops, OpHold)
	}
	if len(m.Release) > 0 {
		ops = append(ops, OpRelease)
	}
	return ops
}

func (m *Message) checkHead() error {
	if err := CheckMessageID(m.ID); err != nil {
		return err
	}
	if m.Epoch == 0 || m.Epoch > MaxEpoch {
		return fmt.Errorf("epoch %d: want 1 to %d", m.Epoch, uint64(MaxEpoch))
	}
	if m.Kind == "" || len(m.Kind) > 32 {
		return fmt.Errorf("kind %.40q: want 1 to 32 characters", m.Kind)
	}
	return nil
}

// check tells whether the message is one that can be in the log. A message that
// was received must name its ops; in one that is about to be sent Encode does.
func (m *Message) check(received bool) error {
	if err := m.checkHead(); err != nil {
		return err
	}
	if m.At < 0 || m.At > maxMillis || m.Until < 0 || m.Until > maxMillis/1000 {
		return fmt.Errorf("at %d, until %d: out of range", m.At, m.Until)
	}
	if err := m.checkOwnership(); err != nil {
		return err
	}
	switch m.Kind {
	case KindEntry:
		return m.checkEntry(received)
	case KindEpoch:
		if m.D == nil || m.D.Epoch >= m.Epoch {
			return errors.New("d: want the last position that is shared with an older epoch")
		}
	case KindKey:
		return m.checkKey()
	case KindJoin, KindOut:
		return m.checkGuard()
	}
	return nil
}

// checkOwnership refuses members of another kind.
func (m *Message) checkOwnership() error {
	entry := len(m.Cut) + len(m.End) + len(m.Hold) + len(m.Release) + len(m.First) + len(m.Ops)
	guard := m.Kind == KindJoin || m.Kind == KindOut
	for _, c := range [...]struct {
		foreign bool
		name    string
	}{
		{m.Kind != KindEntry && (entry > 0 || m.Recommitted != nil || m.HoldEnd != 0 || m.Then != ""), "an entry"},
		{m.Kind != KindEpoch && (m.D != nil || m.Restore), "an epoch"},
		{m.Kind != KindKey && (m.KeyID != "" || m.JWS != ""), "a key"},
		{!guard && (m.Name != "" || m.Instance != ""), "a join or out"},
		{m.Kind != KindJoin && (m.LimitMS != 0 || m.Past != ""), "a join"},
		{m.Kind != KindOut && m.By != "", "an out"},
	} {
		if c.foreign {
			return fmt.Errorf("a message of kind %q with members of %s", m.Kind, c.name)
		}
	}
	return nil
}

func (m *Message) checkEntry(received bool) error {
	var few [4]string
	ops := m.appendOps(few[:0])
	n := len(m.Cut) + len(m.End) + len(m.Hold) + len(m.Release)
	switch {
	case n == 0:
		return errors.New("an entry without targets")
	case n > MaxTargets:
		return fmt.Errorf("%d targets: %d at most", n, MaxTargets)
	case m.At == 0 || m.Until == 0:
		return errors.New("an entry needs at and until")
	case received && !sameSet(m.Ops, ops):
		return fmt.Errorf("ops %.100q, but there are targets of %q", m.Ops, ops)
	case m.twice(n):
		return errors.New("a target stands there twice")
	case len(m.Hold) == 0 && (m.HoldEnd != 0 || m.Then != "" || len(m.First) > 0):
		return errors.New("hold_end, then or first without a hold")
	case m.HoldEnd < 0 || m.HoldEnd > maxMillis:
		return fmt.Errorf("hold_end %d: out of range", m.HoldEnd)
	case m.Then != "" && m.Then != ThenRelease && m.Then != ThenRevoke:
		return fmt.Errorf("then %.40q: want release or revoke", m.Then)
	case m.Then != "" && m.HoldEnd == 0:
		return errors.New("then without hold_end")
	case m.Recommitted != nil && (m.Recommitted.IsZero() || m.Recommitted.Epoch >= m.Epoch):
		return fmt.Errorf("recommitted %s: want a position of an older epoch", m.Recommitted)
	}
	for k, at := range m.First {
		if at.IsZero() || at.Epoch > m.Epoch {
			return fmt.Errorf("first of %s: %s is no position before this one", k, at)
		}
		if !slices.Contains(m.Hold, k) {
			return fmt.Errorf("first of %s, which is not held here", k)
		}
	}
	for k, at := range m.Release {
		if at.Epoch > m.Epoch {
			return fmt.Errorf("release of %s: %s is no position before this one", k, at)
		}
	}
	return nil
}

// twice reports whether any of the n targets is there more than once.
func (m *Message) twice(n int) bool {
	lists := [...][]revoke.Key{m.Cut, m.End, m.Hold}
	if len(m.Release) == 0 && n <= 16 {
		var few [16]revoke.Key // the usual entry; no map for it
		have := few[:0]
		for _, ks := range lists {
			for _, k := range ks {
				if slices.Contains(have, k) {
					return true
				}
				have = append(have, k)
			}
		}
		return false
	}
	seen := make(map[revoke.Key]struct{}, n)
	for _, ks := range lists {
		for _, k := range ks {
			seen[k] = struct{}{}
		}
	}
	for k := range m.Release {
		seen[k] = struct{}{}
	}
	return len(seen) != n
}

func (m *Message) checkKey() error {
	switch {
	case m.Until == 0:
		return errors.New("a key needs until")
	case len(m.KeyID) > maxKeyID:
		return fmt.Errorf("kid: %d bytes, %d at most", len(m.KeyID), maxKeyID)
	}
	if err := revoke.CheckID("kid", m.KeyID); err != nil {
		return err
	}
	return checkJWS(m.JWS)
}

// checkJWS checks the outer form only; what it says is believed by nobody who
// has not verified it.
func checkJWS(jws string) error {
	ok := len(jws) <= maxJWS && strings.Count(jws, ".") == 2
	for part := range strings.SplitSeq(jws, ".") {
		ok = ok && part != "" && isName(part, math.MaxInt)
	}
	if !ok {
		return fmt.Errorf("jws: want three parts of base64url, %d bytes at most", maxJWS)
	}
	return nil
}

func (m *Message) checkGuard() error {
	if err := CheckInstance(m.Instance); err != nil {
		return err
	}
	if !isName(m.Name, maxInstance) {
		return fmt.Errorf("name %.70q: want 1 to %d of A-Z, a-z, 0-9, - and _", m.Name, maxInstance)
	}
	if m.Kind == KindOut {
		if m.By != BySelf && m.By != ByOperator && m.By != ByProof {
			return fmt.Errorf("by %.40q: want self, operator or proof", m.By)
		}
		return nil
	}
	return checkLimit(m.LimitMS, m.Past)
}

func checkLimit(limit int64, past string) error {
	if limit < 1 || limit > math.MaxInt32 {
		return fmt.Errorf("limit_ms %d: want 1 to %d", limit, math.MaxInt32)
	}
	if past != PastDeny && past != PastRedis && past != PastAllow {
		return fmt.Errorf("past %.40q: want deny, redis or allow", past)
	}
	return nil
}

// CheckInstance tells whether text can name an instance of a reader: it stands
// in subjects.
func CheckInstance(text string) error {
	if !isName(text, maxInstance) {
		return fmt.Errorf("instance %.70q: want 1 to %d of A-Z, a-z, 0-9, - and _", text, maxInstance)
	}
	return nil
}

// CheckMessageID tells whether text is an id as NewID makes them.
func CheckMessageID(text string) error {
	if _, err := revoke.ParseKey(text); err != nil {
		return fmt.Errorf("id %.40q: want 22 characters of base64url", text)
	}
	return nil
}

func isName(s string, limit int) bool {
	ok := s != "" && len(s) <= limit
	for i := 0; ok && i < len(s); i++ {
		c := s[i]
		ok = c < utf8.RuneSelf && strings.IndexByte(base64URL, c) >= 0
	}
	return ok
}

const base64URL = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

func sameSet(a, b []string) bool {
	if len(a) != len(b) {
		return false
	}
	for _, x := range a {
		if !slices.Contains(b, x) {
			return false
		}
	}
	return true
}
