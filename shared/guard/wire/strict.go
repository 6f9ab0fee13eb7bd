package wire

import (
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
)

// ErrInvalid is what DecodeRequest says of a request that can't be right.
var ErrInvalid = errors.New("invalid request")

// Checker is a request that can tell whether it can be right.
type Checker interface{ Check() error }

// DecodeRequest reads a request strictly: members that T does not have,
// duplicates, other spellings and trailing data are refused, and so is what its
// Check refuses. Errors are ErrInvalid and name the member.
func DecodeRequest[T any](data []byte) (T, error) {
	v, err := decodeJSON[T](data, true)
	if err == nil {
		if c, ok := any(v).(Checker); ok {
			err = c.Check()
		}
	}
	if err != nil {
		var zero T
		return zero, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return v, nil
}

// DecodeAnswer reads an answer: it ignores members that T does not have, since
// the other side may be newer, but no duplicates and no other spellings. A
// message of an unknown kind within gives ErrUnknownKind.
func DecodeAnswer[T any](data []byte) (T, error) {
	v, err := decodeJSON[T](data, false)
	if err != nil {
		var zero T
		return zero, fmt.Errorf("answer: %w", err)
	}
	return v, nil
}

func decodeJSON[T any](data []byte, strict bool) (v T, err error) {
	s := scanner{b: data}
	shape{strict: strict}.value(&s, reflect.TypeFor[T]())
	if err = s.end(); err != nil {
		return v, err
	}
	return v, json.Unmarshal(data, &v)
}

// shape walks JSON beside the Go type that encoding/json will put it into, and
// refuses what that would take in silence.
type shape struct{ strict bool }

func (sh shape) value(s *scanner, t reflect.Type) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	c := s.peek()
	switch {
	case decodesItself(t):
		s.skip()
	case t.Kind() == reflect.Struct && c == '{':
		sh.object(s, t)
	case t.Kind() == reflect.Slice && c == '[':
		for s.open('['); s.more(']'); {
			sh.value(s, t.Elem())
		}
	case t.Kind() == reflect.Map && c == '{':
		seen := map[string]bool{}
		for s.open('{'); s.more('}'); {
			name := string(s.name())
			if seen[name] {
				s.fail("member %.40q twice", name)
			}
			seen[name] = true
			sh.value(s, t.Elem())
		}
	case c == 'n' && sh.strict:
		s.fail("null: leave the member out")
	default:
		s.skip() // encoding/json says what is wrong with it, if anything is
	}
}

func (sh shape) object(s *scanner, t reflect.Type) {
	var seen uint64
	for s.open('{'); s.more('}'); {
		name := string(s.name())
		i, exact := field(t, name)
		switch {
		case s.err != nil:
		case i < 0 && sh.strict:
			s.fail("unknown member %.40q", name)
		case i < 0:
			s.skip()
		case !exact:
			s.fail("%w: %.40q", errCase, name)
		case seen&(1<<i) != 0:
			s.fail("member %q twice", name)
		default:
			seen |= 1 << i
			sh.value(s, t.Field(i).Type)
		}
	}
}

// field returns the index of the struct's field with this JSON name, or with
// one that encoding/json would take for it, and -1 for none.
func field(t reflect.Type, name string) (i int, exact bool) {
	folded := -1
	for i := range t.NumField() {
		tag, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		switch {
		case tag == name:
			return i, true
		case strings.EqualFold(tag, name):
			folded = i
		}
	}
	return folded, false
}

func decodesItself(t reflect.Type) bool {
	p := reflect.PointerTo(t)
	return p.Implements(reflect.TypeFor[json.Unmarshaler]()) || p.Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}
