// Package selector reads what a responder writes to name many targets at once:
//
//	keys where owner=alice and label=ci and unused>90d and made>=2026-01-01
//	principals where client=client_4fzd
//
// Each condition is a word, a comparison and a value, all of which have to hold. A value
// with spaces or quotes is written as "a value", with \" and \\ within. What stands here
// selects nothing by itself: the issuer has the records.
package selector

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// MaxLen is the longest selector, in bytes.
const MaxLen = 2000

// What are selected.
const (
	Keys       = "keys"       // API keys and client secrets, as key:ID
	Principals = "principals" // as principal:NAME, or grant:NAME/CLIENT where a client is named
)

// Selector is what was asked for. What is empty narrows nothing.
type Selector struct {
	What    string
	Owner   string // of keys
	Creator string // of keys
	Name    string // of a principal
	Client  string
	Kind    string            // of keys key, secret or all; of principals person or workload
	State   string            // of keys; empty: those that are good or held
	Labels  map[string]string // with these values
	Having  []string          // labels with any value
	// Unused is for how long a key was not used, nor made.
	Unused time.Duration
	// From and To bound when a key was made: not before From, and before To.
	From, To time.Time
	// Ends is within what time a key ends.
	Ends time.Duration
}

// Error says what is wrong with a selector, and where.
type Error struct {
	At  int // the first character that is wrong, counted from 1
	Why string
}

func (e *Error) Error() string { return fmt.Sprintf("at character %d: %s", e.At, e.Why) }

// word is one of the text: a name, a comparison or a value.
type word struct {
	text   string
	at     int // byte
	quoted bool
}

// Parse reads a selector.
func Parse(text string) (Selector, error) {
	p := parser{text: text}
	s, err := p.selector()
	if err != nil {
		return Selector{}, err
	}
	return s, nil
}

type parser struct {
	text string
	at   int
}

// wrong is an error about what begins at a byte.
func (p *parser) wrong(at int, format string, args ...any) error {
	return &Error{At: utf8.RuneCountInString(p.text[:min(at, len(p.text))]) + 1, Why: fmt.Sprintf(format, args...)}
}

func (p *parser) selector() (Selector, error) {
	if len(p.text) > MaxLen {
		return Selector{}, p.wrong(MaxLen, "a selector has %d bytes at most", MaxLen)
	}
	if !utf8.ValidString(p.text) {
		return Selector{}, p.wrong(0, "it is not valid UTF-8")
	}
	what := p.name()
	fields := fieldsOf[what.text]
	if fields == nil {
		return Selector{}, p.wrong(what.at, "%s: want keys or principals", what)
	}
	s := Selector{What: what.text}
	if where := p.name(); where.text != "where" {
		return Selector{}, p.wrong(where.at, "%s: want \"where\" and a condition, as in keys where owner=alice; everything of a tenant is the target tenant:NAME", where)
	}
	for seen := map[string]bool{}; ; {
		if err := p.condition(&s, fields, seen); err != nil {
			return Selector{}, err
		}
		and := p.name()
		if and.text == "" && p.at == len(p.text) {
			break
		}
		if and.text != "and" {
			return Selector{}, p.wrong(and.at, "%s: want \"and\" and another condition, or the end", and)
		}
	}
	if !s.From.IsZero() && !s.To.IsZero() && !s.From.Before(s.To) {
		return Selector{}, p.wrong(0, "nothing is made from %s on and before %s", s.From.Format(time.RFC3339), s.To.Format(time.RFC3339))
	}
	return s, nil
}

func (p *parser) space() {
	for p.at < len(p.text) && (p.text[p.at] == ' ' || p.text[p.at] == '\t' || p.text[p.at] == '\n' || p.text[p.at] == '\r') {
		p.at++
	}
}

// while takes what fits.
func (p *parser) while(fits func(c byte) bool) word {
	p.space()
	from := p.at
	for p.at < len(p.text) && fits(p.text[p.at]) {
		p.at++
	}
	return word{text: p.text[from:p.at], at: from}
}

func (p *parser) name() word { return p.while(func(c byte) bool { return c >= 'a' && c <= 'z' }) }

// String quotes it for an error, in which it is short.
func (w word) String() string {
	if w.text == "" {
		return "here"
	}
	return fmt.Sprintf("%.40q", w.text)
}

// condition takes one.
func (p *parser) condition(s *Selector, fields map[string]field, seen map[string]bool) error {
	name := p.name()
	f, is := fields[name.text]
	if !is {
		return p.wrong(name.at, "%s: %s have %s", name, s.What, strings.Join(names(fields), ", "))
	}
	op := p.while(func(c byte) bool { return c == '=' || c == '<' || c == '>' })
	if !slices.Contains(f.ops, op.text) {
		return p.wrong(op.at, "%s: after %s want %s", op, name.text, strings.Join(f.ops, " or "))
	}
	once := name.text
	if once == "made" {
		once += op.text[:1] // a beginning and an end
	}
	if seen[once] && name.text != "label" {
		return p.wrong(name.at, "%s is said twice", name.text)
	}
	seen[once] = true
	v, err := p.value()
	if err != nil {
		return err
	}
	if err := f.set(s, op.text, v.text); err != nil {
		return p.wrong(v.at, "%s", err)
	}
	return nil
}

// value takes a bare value up to the next space, or a quoted one.
func (p *parser) value() (word, error) {
	p.space()
	if p.at == len(p.text) || p.text[p.at] != '"' {
		v := p.while(func(c byte) bool { return c != ' ' && c != '\t' && c != '\n' && c != '\r' && c != '"' })
		switch {
		case p.at < len(p.text) && p.text[p.at] == '"':
			return v, p.wrong(p.at, "a quote in the middle of a value: put the whole value into quotes")
		case v.text == "":
			return v, p.wrong(v.at, "want a value")
		}
		return v, nil
	}
	v := word{at: p.at, quoted: true}
	var out strings.Builder
	for p.at++; p.at < len(p.text); p.at++ {
		switch c := p.text[p.at]; c {
		case '"':
			p.at++
			if v.text = out.String(); v.text == "" {
				return v, p.wrong(v.at, "want a value")
			}
			if p.at < len(p.text) && strings.IndexByte(" \t\r\n", p.text[p.at]) < 0 {
				return v, p.wrong(p.at, "after a quoted value want a space, or the end")
			}
			return v, nil
		case '\\':
			if p.at+1 == len(p.text) || p.text[p.at+1] != '"' && p.text[p.at+1] != '\\' {
				return v, p.wrong(p.at, `after \ want " or \`)
			}
			p.at++
			out.WriteByte(p.text[p.at])
		default:
			out.WriteByte(c)
		}
	}
	return v, p.wrong(v.at, "the quote has no end")
}
