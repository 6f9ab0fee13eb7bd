package token

import (
	"errors"
	"strings"
	"unicode/utf8"
)

// maxDepth bounds how deep values may nest, maxMembers how many members one
// object may have: far above what any token needs.
const (
	maxDepth   = 32
	maxMembers = 512
)

var (
	errSyntax    = errors.New("not valid JSON")
	errDuplicate = errors.New("a member of an object stands twice")
	errDepth     = errors.New("nested too deep")
	errMembers   = errors.New("an object has too many members")
	errSurrogate = errors.New("a string has half of a surrogate pair")
	errUTF8      = errors.New("not valid UTF-8")
	errTrailing  = errors.New("something follows the JSON value")
)

// scanner walks JSON text. Strings without escapes are parts of the text: they
// cost nothing.
type scanner struct {
	text  string
	pos   int
	depth int
}

// CheckJSON reports whether text is one JSON object in which no member stands
// twice at any level, nested at most 32 deep, in valid UTF-8. Every JSON parser
// reads such a text alike.
func CheckJSON(text string) error {
	return walk(text, func(s *scanner, _ string) error { return s.skip() })
}

// walk calls member for each member of the object that text is; member must
// consume the value.
func walk(text string, member func(s *scanner, name string) error) error {
	if !utf8.ValidString(text) {
		return errUTF8
	}
	s := &scanner{text: text}
	s.space()
	if err := s.object(member); err != nil {
		return err
	}
	s.space()
	if s.pos != len(s.text) {
		return errTrailing
	}
	return nil
}

func (s *scanner) space() {
	for s.pos < len(s.text) {
		switch s.text[s.pos] {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return
		}
	}
}

// peek returns the next byte, 0 at the end (which no valid JSON has outside of a
// string).
func (s *scanner) peek() byte {
	if s.pos < len(s.text) {
		return s.text[s.pos]
	}
	return 0
}

func (s *scanner) eat(c byte) bool {
	if s.peek() != c || s.pos >= len(s.text) {
		return false
	}
	s.pos++
	return true
}

func (s *scanner) enter() error {
	if s.depth++; s.depth > maxDepth {
		return errDepth
	}
	return nil
}

func (s *scanner) object(member func(s *scanner, name string) error) error {
	if !s.eat('{') {
		return errSyntax
	}
	if err := s.enter(); err != nil {
		return err
	}
	defer func() { s.depth-- }()
	s.space()
	if s.eat('}') {
		return nil
	}
	var few [24]string // a token's claims fit: no allocation
	seen := names{list: few[:0]}
	for {
		s.space()
		name, err := s.string()
		if err != nil {
			return err
		}
		if err := seen.add(name); err != nil {
			return err
		}
		s.space()
		if !s.eat(':') {
			return errSyntax
		}
		s.space()
		if err := member(s, name); err != nil {
			return err
		}
		s.space()
		if s.eat('}') {
			return nil
		}
		if !s.eat(',') {
			return errSyntax
		}
	}
}

// array calls element for each element; element must consume it.
func (s *scanner) array(element func(s *scanner) error) error {
	if !s.eat('[') {
		return errSyntax
	}
	if err := s.enter(); err != nil {
		return err
	}
	defer func() { s.depth-- }()
	s.space()
	if s.eat(']') {
		return nil
	}
	for {
		s.space()
		if err := element(s); err != nil {
			return err
		}
		s.space()
		if s.eat(']') {
			return nil
		}
		if !s.eat(',') {
			return errSyntax
		}
	}
}

// skip consumes any value and checks it all the same.
func (s *scanner) skip() error {
	switch c := s.peek(); {
	case c == '{':
		return s.object(skipMember)
	case c == '[':
		return s.array((*scanner).skip)
	case c == '"':
		_, err := s.string()
		return err
	case c == '-' || c >= '0' && c <= '9':
		_, err := s.number()
		return err
	}
	for _, word := range [...]string{"true", "false", "null"} {
		if strings.HasPrefix(s.text[s.pos:], word) {
			s.pos += len(word)
			return nil
		}
	}
	return errSyntax
}

func skipMember(s *scanner, _ string) error { return s.skip() }

// number consumes a number by JSON's grammar and returns its text.
func (s *scanner) number() (string, error) {
	start := s.pos
	s.eat('-')
	switch {
	case s.eat('0'):
	case s.digits() > 0:
	default:
		return "", errSyntax
	}
	if s.eat('.') && s.digits() == 0 {
		return "", errSyntax
	}
	if s.eat('e') || s.eat('E') {
		if !s.eat('+') {
			s.eat('-')
		}
		if s.digits() == 0 {
			return "", errSyntax
		}
	}
	return s.text[start:s.pos], nil
}

func (s *scanner) digits() int {
	start := s.pos
	for s.pos < len(s.text) && s.text[s.pos] >= '0' && s.text[s.pos] <= '9' {
		s.pos++
	}
	return s.pos - start
}

// string consumes a string and returns what it says.
func (s *scanner) string() (string, error) {
	if !s.eat('"') {
		return "", errSyntax
	}
	start := s.pos
	for ; s.pos < len(s.text); s.pos++ {
		switch c := s.text[s.pos]; {
		case c == '"':
			s.pos++
			return s.text[start : s.pos-1], nil
		case c == '\\':
			return s.escaped(start)
		case c < ' ':
			return "", errSyntax
		}
	}
	return "", errSyntax
}

// escaped is string for one with an escape at pos, that began at start.
func (s *scanner) escaped(start int) (string, error) {
	b := append(make([]byte, 0, s.pos-start+32), s.text[start:s.pos]...)
	for s.pos < len(s.text) {
		c := s.text[s.pos]
		s.pos++
		switch {
		case c == '"':
			return string(b), nil
		case c < ' ':
			return "", errSyntax
		case c != '\\':
			b = append(b, c)
			continue
		}
		r, err := s.escape()
		if err != nil {
			return "", err
		}
		b = utf8.AppendRune(b, r)
	}
	return "", errSyntax
}

const plainEscapes = `""\\//b` + "\b" + `f` + "\f" + `n` + "\n" + `r` + "\r" + `t` + "\t"

// escape consumes what follows a backslash.
func (s *scanner) escape() (rune, error) {
	c := s.peek()
	if c == 'u' {
		return s.unicode()
	}
	for i := 0; i < len(plainEscapes); i += 2 {
		if plainEscapes[i] == c && c != 0 {
			s.pos++
			return rune(plainEscapes[i+1]), nil
		}
	}
	return 0, errSyntax
}

// unicode consumes uXXXX, and the second half where the first needs one. A half
// alone is refused: parsers differ in what they make of it.
func (s *scanner) unicode() (rune, error) {
	r, err := s.hex4()
	if err != nil || r < 0xD800 || r > 0xDFFF {
		return r, err
	}
	if r >= 0xDC00 || !s.eat('\\') || s.peek() != 'u' {
		return 0, errSurrogate
	}
	low, err := s.hex4()
	if err != nil {
		return 0, err
	}
	if low < 0xDC00 || low > 0xDFFF {
		return 0, errSurrogate
	}
	return (r-0xD800)<<10 | (low - 0xDC00) + 0x10000, nil
}

func (s *scanner) hex4() (rune, error) {
	if len(s.text)-s.pos < 5 {
		return 0, errSyntax
	}
	var r rune
	for _, c := range []byte(s.text[s.pos+1 : s.pos+5]) {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, errSyntax
		}
		r = r<<4 | rune(c)
	}
	s.pos += 5
	return r, nil
}

// names are the members of one object that were seen.
type names struct {
	list []string
	many map[string]struct{} // instead of list, once that is full
}

func (n *names) add(name string) error {
	if n.many == nil {
		for _, have := range n.list {
			if have == name {
				return errDuplicate
			}
		}
		if len(n.list) < cap(n.list) {
			n.list = append(n.list, name)
			return nil
		}
		n.many = make(map[string]struct{}, 2*len(n.list))
		for _, have := range n.list {
			n.many[have] = struct{}{}
		}
	}
	if _, ok := n.many[name]; ok {
		return errDuplicate
	}
	if len(n.many) >= maxMembers {
		return errMembers
	}
	n.many[name] = struct{}{}
	return nil
}
