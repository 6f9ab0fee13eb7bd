package wire

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/quash-project/quash/shared/guard/revoke"
)

// Errors of Decode. Each makes a reader incomplete: what it could not read may
// have been a revocation.
var (
	ErrMalformed   = errors.New("malformed message")
	ErrUnknownKind = errors.New("message of an unknown kind")
	ErrUnknownOp   = errors.New("entry with an unknown op")
)

// Decode reads a message. It ignores members that it does not know, but refuses
// duplicates, other spellings of what it knows, and whatever Encode would
// refuse. With ErrUnknownKind and ErrUnknownOp the returned message has its
// Kind, ID, Epoch and Optional all the same; a message that is marked optional
// gives neither error, and what is unknown in it is left out.
func Decode(data []byte) (Message, error) {
	if len(data) > MaxHeader {
		return Message{}, fmt.Errorf("%w: %d bytes, %d at most", ErrMalformed, len(data), MaxHeader)
	}
	m, err := parse(data)
	if err == nil && knownKind(m.Kind) && !slices.ContainsFunc(m.Ops, unknownOp) {
		if err = m.check(true); err == nil {
			return m, nil
		}
	}
	// Something is unknown or wrong: which of the two is told by the head alone,
	// since members of an unknown kind may have any form.
	head, headErr := parseHead(data)
	switch {
	case headErr != nil:
		return Message{}, fmt.Errorf("%w: %w", ErrMalformed, headErr)
	case !knownKind(head.Kind):
		if head.Optional {
			return head, nil
		}
		return head, fmt.Errorf("%w: %.40q", ErrUnknownKind, head.Kind)
	case err != nil:
		return head, fmt.Errorf("%w: %w", ErrMalformed, err)
	case !head.Optional:
		op := m.Ops[slices.IndexFunc(m.Ops, unknownOp)]
		return head, fmt.Errorf("%w: %.40q", ErrUnknownOp, op)
	}
	m.Ops = slices.DeleteFunc(m.Ops, unknownOp)
	if err := m.check(true); err != nil {
		return head, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return m, nil
}

// UnmarshalJSON is Decode, for messages within answers.
func (m *Message) UnmarshalJSON(data []byte) error {
	d, err := Decode(data)
	if err == nil {
		*m = d
	}
	return err
}

// The members of a message in the order of Message; a bit each in seen.
const (
	mKind = iota
	mID
	mEpoch
	mOptional
	mCut
	mEnd
	mHold
	mRelease
	mOps
	mAt
	mUntil
	mHoldEnd
	mThen
	mFirst
	mRecommitted
	mD
	mRestore
	mKid
	mJWS
	mName
	mInstance
	mLimit
	mPast
	mBy
	mUnknown
)

// memberOf is a switch, and no map, because it is most of what a guard does with
// a message; a test holds it against memberNames.
func memberOf(name []byte) int {
	switch string(name) {
	case "kind":
		return mKind
	case "id":
		return mID
	case "epoch":
		return mEpoch
	case "optional":
		return mOptional
	case "cut":
		return mCut
	case "end":
		return mEnd
	case "hold":
		return mHold
	case "release":
		return mRelease
	case "ops":
		return mOps
	case "at":
		return mAt
	case "until":
		return mUntil
	case "hold_end":
		return mHoldEnd
	case "then":
		return mThen
	case "first":
		return mFirst
	case "recommitted":
		return mRecommitted
	case "d":
		return mD
	case "restore":
		return mRestore
	case "kid":
		return mKid
	case "jws":
		return mJWS
	case "name":
		return mName
	case "instance":
		return mInstance
	case "limit_ms":
		return mLimit
	case "past":
		return mPast
	case "by":
		return mBy
	}
	return mUnknown
}

var memberNames = [mUnknown]string{
	"kind", "id", "epoch", "optional", "cut", "end", "hold", "release", "ops", "at", "until",
	"hold_end", "then", "first", "recommitted", "d", "restore", "kid", "jws",
	"name", "instance", "limit_ms", "past", "by",
}

// next reads the name of a member and refuses one that was there before, or
// that another reader might take for one of ours.
func (s *scanner) next(seen *uint32) int {
	name := s.name()
	which := memberOf(name)
	if which == mUnknown {
		for _, known := range memberNames {
			if bytes.EqualFold(name, []byte(known)) {
				s.fail("%w: %.40q", errCase, name)
			}
		}
		return which
	}
	if *seen&(1<<which) != 0 {
		s.fail("member %q twice", name)
	}
	*seen |= 1 << which
	return which
}

func parseHead(data []byte) (m Message, err error) {
	s, seen := scanner{b: data}, uint32(0)
	for s.open('{'); s.more('}'); {
		switch s.next(&seen) {
		case mKind:
			m.Kind = kindText(s.str())
		case mID:
			m.ID = string(s.str())
		case mEpoch:
			m.Epoch = s.uint(MaxEpoch)
		case mOptional:
			m.Optional = s.boolean()
		default:
			s.skip()
		}
	}
	if err = s.end(); err == nil {
		err = m.checkHead()
	}
	return m, err
}

func parse(data []byte) (m Message, err error) {
	s, seen := scanner{b: data}, uint32(0)
	for s.open('{'); s.more('}'); {
		switch which := s.next(&seen); which {
		case mKind:
			m.Kind = kindText(s.str())
		case mID:
			m.ID = string(s.str())
		case mEpoch:
			m.Epoch = s.uint(MaxEpoch)
		case mOptional:
			m.Optional = s.boolean()
		case mCut:
			m.Cut = s.keys()
		case mEnd:
			m.End = s.keys()
		case mHold:
			m.Hold = append(s.keys(), m.Hold...) // "first" may have come before
		case mRelease:
			m.Release = s.positions()
		case mOps:
			m.Ops = s.ops()
		case mAt:
			m.At = int64(s.uint(maxMillis))
		case mUntil:
			m.Until = int64(s.uint(maxMillis / 1000))
		case mFirst:
			m.First = s.positions()
			m.Hold = append(m.Hold, sortedKeys(m.First)...) // see Encode
		default:
			s.rare(&m, which)
		}
	}
	return m, s.end()
}

// rare reads the members that few messages have.
func (s *scanner) rare(m *Message, which int) {
	switch which {
	case mHoldEnd:
		m.HoldEnd = int64(s.uint(maxMillis))
	case mThen:
		m.Then = s.text()
	case mRecommitted:
		m.Recommitted = s.stamp()
	case mD:
		m.D = s.stamp()
	case mRestore:
		m.Restore = s.boolean()
	case mKid:
		m.KeyID = s.text()
	case mJWS:
		m.JWS = s.text()
	case mName:
		m.Name = s.text()
	case mInstance:
		m.Instance = s.text()
	case mLimit:
		m.LimitMS = int64(s.uint(math.MaxInt32))
	case mPast:
		m.Past = s.text()
	case mBy:
		m.By = s.text()
	default:
		s.skip()
	}
}

// text reads a string that is not empty: a member without a value is left out.
func (s *scanner) text() string {
	b := s.str()
	if s.err == nil && len(b) == 0 {
		s.fail("an empty string")
	}
	return string(b)
}

func (s *scanner) keys() []revoke.Key {
	var ks []revoke.Key
	for s.open('['); s.more(']'); {
		var k revoke.Key
		err := k.UnmarshalText(s.str())
		switch {
		case s.err != nil:
		case err != nil:
			s.fail("%w", err)
		case len(ks) == MaxTargets:
			s.fail("more than %d targets", MaxTargets)
		}
		ks = append(ks, k)
	}
	if s.err == nil && len(ks) == 0 {
		s.fail("an op without targets")
	}
	return ks
}

func (s *scanner) positions() map[revoke.Key]revoke.Stamp {
	ps := map[revoke.Key]revoke.Stamp{}
	for s.open('{'); s.more('}'); {
		name := s.name()
		var k revoke.Key
		err := k.UnmarshalText(name)
		_, twice := ps[k]
		switch {
		case s.err != nil:
		case err != nil:
			s.fail("%w", err)
		case twice:
			s.fail("target %q twice", name)
		case len(ps) == MaxTargets:
			s.fail("more than %d targets", MaxTargets)
		}
		if at := s.stamp(); at != nil {
			ps[k] = *at
		}
	}
	if s.err == nil && len(ps) == 0 {
		s.fail("an op without targets")
	}
	return ps
}

func (s *scanner) stamp() *revoke.Stamp {
	text := s.str()
	if s.err != nil {
		return nil
	}
	p, err := revoke.ParseStamp(string(text))
	if err == nil && p.Epoch > MaxEpoch {
		err = fmt.Errorf("epoch %s: %d at most", strconv.FormatUint(p.Epoch, 10), uint64(MaxEpoch))
	}
	if err != nil {
		s.fail("%w", err)
		return nil
	}
	return &p
}

func (s *scanner) ops() []string {
	var ops []string
	for s.open('['); s.more(']'); {
		op := opText(s.str())
		if s.err == nil && (slices.Contains(ops, op) || len(ops) == maxOps) {
			s.fail("op %.40q twice, or more than %d ops", op, maxOps)
		}
		ops = append(ops, op)
	}
	return ops
}

// kindText and opText spare the copy of a known word.
func kindText(b []byte) string {
	switch string(b) {
	case KindEntry:
		return KindEntry
	case KindTick:
		return KindTick
	}
	return string(b)
}

func opText(b []byte) string {
	switch string(b) {
	case OpCut:
		return OpCut
	case OpEnd:
		return OpEnd
	}
	return string(b)
}
