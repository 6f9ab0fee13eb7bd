package strictjson

import (
	"encoding/json"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf16"

	"github.com/quash-project/quash/shared/problem"
)

// scanner walks the text once. It recurses at most MaxDepth deep.
type scanner struct {
	data []byte
	pos  int
	path []string // of the value that is being read: "a", "[3]", "b"
}

func (s *scanner) fail(format string, args ...any) error {
	return problem.FieldError(s.field(), format, args...)
}

func (s *scanner) field() string {
	var b strings.Builder
	for _, p := range s.path {
		if b.Len() > 0 && p[0] != '[' {
			b.WriteByte('.')
		}
		b.WriteString(p)
	}
	return b.String()
}

func (s *scanner) malformed() error {
	return s.fail("not valid JSON (at byte %d)", s.pos)
}

func (s *scanner) space() {
	for s.pos < len(s.data) {
		switch s.data[s.pos] {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return
		}
	}
}

// peek returns the next byte, 0 at the end (0 is valid nowhere in JSON).
func (s *scanner) peek() byte {
	if s.pos < len(s.data) {
		return s.data[s.pos]
	}
	return 0
}

func (s *scanner) value(t reflect.Type, depth int) error {
	if depth > MaxDepth {
		return problem.New(problem.Invalid, "the JSON is nested more than %d deep", MaxDepth)
	}
	t, nullable := target(t)
	switch c := s.peek(); {
	case c == '{':
		return s.object(t, depth)
	case c == '[':
		return s.array(t, depth)
	case c == '"':
		_, err := s.text()
		return err
	case c == '-' || c >= '0' && c <= '9':
		return s.number()
	case c == 't':
		return s.word("true")
	case c == 'f':
		return s.word("false")
	case c == 'n':
		if !nullable {
			return s.fail("must not be null")
		}
		return s.word("null")
	}
	return s.malformed()
}

// target follows pointers, and forgets types that decode themselves: what
// members those have is their business. Null may stand for a pointer, a slice, a
// map, and anything without a type.
func target(t reflect.Type) (reflect.Type, bool) {
	nullable := t == nil
	for t != nil {
		if t.Implements(unmarshaler) || reflect.PointerTo(t).Implements(unmarshaler) || reflect.PointerTo(t).Implements(textUnmarshaler) {
			return nil, nullable || t.Kind() == reflect.Pointer
		}
		switch t.Kind() {
		case reflect.Pointer:
			nullable = true
			t = t.Elem()
			continue
		case reflect.Interface:
			return nil, true
		case reflect.Slice, reflect.Map:
			nullable = true
		}
		break
	}
	return t, nullable
}

func (s *scanner) object(t reflect.Type, depth int) error {
	fields, open := members(t)
	seen := map[string]bool{}
	s.pos++ // {
	s.space()
	if s.peek() == '}' {
		s.pos++
		return nil
	}
	for {
		s.space()
		if s.peek() != '"' {
			return s.malformed()
		}
		name, err := s.text()
		if err != nil {
			return err
		}
		ft, known := fields[name]
		if !known && !open {
			return s.unknown(name, fields)
		}
		s.path = append(s.path, printable(name))
		if seen[name] {
			return s.fail("stands there twice")
		}
		seen[name] = true
		if s.space(); s.peek() != ':' {
			return s.malformed()
		}
		s.pos++
		s.space()
		if open && t != nil && t.Kind() == reflect.Map {
			ft = t.Elem()
		}
		if err := s.value(ft, depth+1); err != nil {
			return err
		}
		s.path = s.path[:len(s.path)-1]
		s.space()
		switch s.peek() {
		case ',':
			s.pos++
		case '}':
			s.pos++
			return nil
		default:
			return s.malformed()
		}
	}
}

// unknown says so, and what may have been meant.
func (s *scanner) unknown(name string, fields map[string]reflect.Type) error {
	s.path = append(s.path, printable(name))
	for known := range fields {
		if strings.EqualFold(known, name) {
			return s.fail("is unknown; names are in lower case: %q", known)
		}
	}
	return s.fail("is unknown here")
}

// printable keeps a stranger's member name short enough for an error: longer than
// any of ours, and too short for a secret that was pasted in the wrong place.
func printable(name string) string {
	if name == "" {
		return `""`
	}
	if len(name) > 24 {
		name = strings.ToValidUTF8(name[:24], "") + "…"
	}
	q := strconv.Quote(name)
	if q[1:len(q)-1] == name && !strings.ContainsAny(name, ". []") {
		return name
	}
	return q
}

func (s *scanner) array(t reflect.Type, depth int) error {
	var elem reflect.Type
	if t != nil && (t.Kind() == reflect.Slice || t.Kind() == reflect.Array) {
		elem = t.Elem()
	}
	s.pos++ // [
	s.space()
	if s.peek() == ']' {
		s.pos++
		return nil
	}
	for i := 0; ; i++ {
		s.path = append(s.path, "["+strconv.Itoa(i)+"]")
		s.space()
		if err := s.value(elem, depth+1); err != nil {
			return err
		}
		s.path = s.path[:len(s.path)-1]
		s.space()
		switch s.peek() {
		case ',':
			s.pos++
		case ']':
			s.pos++
			return nil
		default:
			return s.malformed()
		}
	}
}

func (s *scanner) word(w string) error {
	if !strings.HasPrefix(string(s.data[s.pos:min(len(s.data), s.pos+len(w))]), w) {
		return s.malformed()
	}
	s.pos += len(w)
	return nil
}

// number follows RFC 8259, section 6.
func (s *scanner) number() error {
	digits := func() bool {
		start := s.pos
		for c := s.peek(); c >= '0' && c <= '9'; c = s.peek() {
			s.pos++
		}
		return s.pos > start
	}
	if s.peek() == '-' {
		s.pos++
	}
	if s.peek() == '0' {
		s.pos++
	} else if !digits() {
		return s.malformed()
	}
	if s.peek() == '.' {
		s.pos++
		if !digits() {
			return s.malformed()
		}
	}
	if c := s.peek(); c == 'e' || c == 'E' {
		s.pos++
		if c := s.peek(); c == '+' || c == '-' {
			s.pos++
		}
		if !digits() {
			return s.malformed()
		}
	}
	return nil
}

// text reads a string and returns what it means.
func (s *scanner) text() (string, error) {
	start := s.pos
	s.pos++ // "
	escaped := false
	for {
		switch c := s.peek(); {
		case s.pos >= len(s.data):
			return "", s.malformed()
		case c == '"':
			s.pos++
			if !escaped {
				return string(s.data[start+1 : s.pos-1]), nil
			}
			var v string
			if err := json.Unmarshal(s.data[start:s.pos], &v); err != nil {
				return "", s.malformed()
			}
			return v, nil
		case c < 0x20:
			return "", s.malformed()
		case c == 0x7f:
			return "", s.fail("has a control character")
		case c == '\\':
			escaped = true
			if err := s.escape(); err != nil {
				return "", err
			}
		default:
			s.pos++
		}
	}
}

// escape reads one escape, or the two of a surrogate pair.
func (s *scanner) escape() error {
	s.pos++ // \
	switch s.peek() {
	case '"', '\\', '/', 'n', 'r', 't':
		s.pos++
		return nil
	case 'b', 'f':
		return s.fail("has a control character")
	case 'u':
		r, ok := s.hex()
		switch {
		case !ok:
			return s.malformed()
		case utf16.IsSurrogate(r):
			if s.peek() == '\\' {
				s.pos++
				if low, ok := s.hex(); ok && utf16.DecodeRune(r, low) != '\uFFFD' {
					return nil
				}
			}
			// encoding/json would put U+FFFD there: two texts, one meaning.
			return s.fail("has half a surrogate pair")
		case r < 0x20 && r != '\t' && r != '\n' && r != '\r', r == 0x7f:
			return s.fail("has a control character")
		}
		return nil
	}
	return s.malformed()
}

// hex reads "uXXXX".
func (s *scanner) hex() (rune, bool) {
	if s.peek() != 'u' || s.pos+5 > len(s.data) {
		return 0, false
	}
	n, err := strconv.ParseUint(string(s.data[s.pos+1:s.pos+5]), 16, 16)
	if err != nil {
		return 0, false
	}
	s.pos += 5
	return rune(n), true
}
