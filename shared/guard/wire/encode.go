package wire

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/quash-project/quash/shared/guard/revoke"
)

// NewID returns the identity of a new message, snapshot or instance: 128 random
// bits as 22 characters of base64url.
func NewID(rand io.Reader) (string, error) {
	var b [16]byte
	if _, err := io.ReadFull(rand, b[:]); err != nil {
		return "", fmt.Errorf("random id: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(b[:]), nil
}

// Encode returns the wire part of a message, for the header Header. It names
// the ops itself, and refuses what could not be decoded again. It fits into a
// header with MaxTargets targets of any op: so a hold with a first position
// stands under "first" alone, and not under "hold" a second time.
func Encode(m Message) ([]byte, error) {
	if !knownKind(m.Kind) {
		return nil, fmt.Errorf("encode: %w: %.40q", ErrUnknownKind, m.Kind)
	}
	if err := m.check(false); err != nil {
		return nil, fmt.Errorf("encode %s: %w", m.Kind, err)
	}
	e := encoder{b: make([]byte, 0, 256)}
	e.text("kind", m.Kind)
	e.text("id", m.ID)
	e.number("epoch", int64(m.Epoch))
	e.flag("optional", m.Optional)
	if m.Kind == KindEntry {
		e.entry(&m)
	}
	e.number("at", m.At)
	e.number("until", m.Until)
	e.stamp("d", m.D)
	e.flag("restore", m.Restore)
	e.free("kid", m.KeyID)
	e.text("jws", m.JWS)
	e.text("name", m.Name)
	e.text("instance", m.Instance)
	e.number("limit_ms", m.LimitMS)
	e.text("past", m.Past)
	e.text("by", m.By)
	e.b = append(e.b, '}')
	if e.err == nil && len(e.b) > MaxHeader {
		e.err = fmt.Errorf("encode %s: %d bytes, %d at most", m.Kind, len(e.b), MaxHeader)
	}
	return e.b, e.err
}

// MarshalJSON is Encode, for messages within answers.
func (m Message) MarshalJSON() ([]byte, error) { return Encode(m) }

type encoder struct {
	b   []byte
	err error
}

func (e *encoder) name(n string) {
	if len(e.b) == 0 {
		e.b = append(e.b, '{')
	} else {
		e.b = append(e.b, ',')
	}
	e.b = append(append(append(e.b, '"'), n...), '"', ':')
}

func (e *encoder) entry(m *Message) {
	e.name("ops")
	for i, op := range m.ops() {
		e.b = append(e.b, "[,"[min(i, 1)], '"')
		e.b = append(append(e.b, op...), '"')
	}
	e.b = append(e.b, ']')
	e.keys("cut", m.Cut)
	e.keys("end", m.End)
	hold := m.Hold
	if len(m.First) > 0 {
		hold = slices.DeleteFunc(slices.Clone(hold), func(k revoke.Key) bool {
			_, ok := m.First[k]
			return ok
		})
	}
	e.keys("hold", hold)
	e.positions("first", m.First)
	e.number("hold_end", m.HoldEnd)
	e.text("then", m.Then)
	e.positions("release", m.Release)
	e.stamp("recommitted", m.Recommitted)
}

// text writes a string that check has found to have nothing to escape.
func (e *encoder) text(name, v string) {
	if v != "" {
		e.name(name)
		e.b = append(append(append(e.b, '"'), v...), '"')
	}
}

// free writes any string.
func (e *encoder) free(name, v string) {
	if v == "" {
		return
	}
	b, err := json.Marshal(v)
	if err != nil {
		e.err = fmt.Errorf("encode %s: %w", name, err)
	}
	e.name(name)
	e.b = append(e.b, b...)
}

func (e *encoder) number(name string, v int64) {
	if v != 0 {
		e.name(name)
		e.b = strconv.AppendInt(e.b, v, 10)
	}
}

func (e *encoder) flag(name string, v bool) {
	if v {
		e.name(name)
		e.b = append(e.b, "true"...)
	}
}

func (e *encoder) stamp(name string, v *revoke.Stamp) {
	if v != nil {
		e.text(name, v.String())
	}
}

func (e *encoder) keys(name string, ks []revoke.Key) {
	if len(ks) == 0 {
		return
	}
	e.name(name)
	for i, k := range ks {
		e.b = append(e.b, "[,"[min(i, 1)])
		e.key(k)
	}
	e.b = append(e.b, ']')
}

func (e *encoder) key(k revoke.Key) {
	e.b = append(e.b, '"')
	e.b = base64.RawURLEncoding.AppendEncode(e.b, k[:])
	e.b = append(e.b, '"')
}

func (e *encoder) positions(name string, ps map[revoke.Key]revoke.Stamp) {
	if len(ps) == 0 {
		return
	}
	e.name(name)
	for i, k := range sortedKeys(ps) {
		e.b = append(e.b, "{,"[min(i, 1)])
		e.key(k)
		e.b = append(e.b, ':', '"')
		e.b = append(append(e.b, ps[k].String()...), '"')
	}
	e.b = append(e.b, '}')
}

// sortedKeys gives a map one order, so that one message has one text.
func sortedKeys(ps map[revoke.Key]revoke.Stamp) []revoke.Key {
	ks := make([]revoke.Key, 0, len(ps))
	for k := range ps {
		ks = append(ks, k)
	}
	slices.SortFunc(ks, func(a, b revoke.Key) int { return strings.Compare(string(a[:]), string(b[:])) })
	return ks
}
