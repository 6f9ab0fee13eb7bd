package token

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

var (
	errCase    = errors.New("a member's name differs from a registered one in case only")
	errNotText = errors.New("not a string")
	errNotInt  = errors.New("not an integer number")
	errNotList = errors.New("not a string or an array of strings")
	errEmpty   = errors.New("empty")
)

// What decides must not be there in another case beside or instead of the real
// one: parsers that match without case would take it.
var (
	headerNames = [...]string{"alg", "kid", "typ", "crit", "b64"}
	claimNames  = [...]string{
		"iss", "sub", "aud", "exp", "nbf", "iat", "jti", "sid", "client_id", "azp",
		"tenant", "rseq", "via", "cnf", "act", "may_act", "scope", "scp",
	}
)

// oddCase reports whether name is one of known in another case. It folds as
// encoding/json does, so that ſub counts as SUB does.
func oddCase(name string, known []string) bool {
	for _, k := range known {
		// A fold never makes a name shorter than a third of its bytes.
		if len(name) >= len(k) && len(name) <= 3*len(k) && name != k && strings.EqualFold(name, k) {
			return true
		}
	}
	return false
}

func (c *Claims) decode(text string) error {
	return walk(text, c.member)
}

func (c *Claims) member(s *scanner, name string) (err error) {
	switch name {
	case "iss":
		c.Issuer, err = s.text1(name)
	case "sub":
		c.Subject, err = s.text1(name)
	case "client_id":
		c.ClientID, err = s.text1(name)
	case "azp":
		c.AuthorizedParty, err = s.text1(name)
	case "jti":
		c.ID, err = s.text1(name)
	case "sid":
		c.SessionID, err = s.text1(name)
	case "tenant":
		c.Tenant, err = s.text1(name)
	case "exp":
		c.HasExpires = true
		c.Expires, err = s.integer(name)
	case "iat":
		c.HasIssuedAt = true
		c.IssuedAt, err = s.integer(name)
	case "nbf":
		c.HasNotBefore = true
		c.NotBefore, err = s.integer(name)
	case "aud":
		c.Audience, err = s.list(name, c.Audience)
	case "rseq":
		c.HasStamp = true
		c.Stamp, err = s.stamp()
	case "via":
		c.HasVia = true
		c.Via, err = s.via()
	case "cnf":
		c.Confirmation = true
		err = s.skip()
	default:
		return c.rights(s, name)
	}
	return err
}

// rights reads what a token allows. An element that is not a string gives
// nothing and is passed over: RFC 9068 lets roles be objects.
func (c *Claims) rights(s *scanner, name string) (err error) {
	switch name {
	case "scope":
		c.hasScope = true
		c.Scopes, err = s.words()
	case "scp": // what some providers write instead; scope goes before it
		var words []string
		if words, err = s.words(); !c.hasScope {
			c.Scopes = words
		}
	case "roles":
		c.Roles, err = s.words()
	default:
		if oddCase(name, claimNames[:]) {
			return errCase
		}
		return s.skip()
	}
	return err
}

// text1 reads a member that must be a string of at least one byte.
func (s *scanner) text1(name string) (string, error) {
	if s.peek() != '"' {
		return "", fmt.Errorf("%s: %w", name, errNotText)
	}
	text, err := s.string()
	if err == nil && text == "" {
		err = errEmpty
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	return text, nil
}

// maxTime is where float64, which many parsers read numbers into, still holds
// every integer.
const maxTime = 1 << 53

func (s *scanner) integer(name string) (int64, error) {
	if c := s.peek(); c != '-' && (c < '0' || c > '9') {
		return 0, fmt.Errorf("%s: %w", name, errNotInt)
	}
	text, err := s.number()
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n > maxTime || text[0] == '-' {
		return 0, fmt.Errorf("%s: %w", name, errNotInt)
	}
	return n, nil
}

// list reads a string or an array of strings, none of them empty.
func (s *scanner) list(name string, into []string) ([]string, error) {
	if s.peek() == '"' {
		text, err := s.text1(name)
		return append(into, text), err
	}
	if s.peek() != '[' {
		return nil, fmt.Errorf("%s: %w", name, errNotList)
	}
	err := s.array(func(s *scanner) error {
		text, err := s.text1(name)
		into = append(into, text)
		return err
	})
	return into, err
}

// words reads a string of words with spaces between, or an array of words.
func (s *scanner) words() (into []string, err error) {
	switch s.peek() {
	case '"':
		text, err := s.string()
		if err != nil {
			return nil, err
		}
		into = make([]string, 0, 1+strings.Count(text, " "))
		for word := range strings.SplitSeq(text, " ") {
			if word != "" {
				into = append(into, word)
			}
		}
		return into, nil
	case '[':
		err = s.array(func(s *scanner) error {
			if s.peek() != '"' {
				return s.skip()
			}
			word, err := s.string()
			if err == nil && word != "" {
				into = append(into, word)
			}
			return err
		})
		return into, err
	}
	return nil, s.skip()
}

func (s *scanner) stamp() (revoke.Stamp, error) {
	text, err := s.text1("rseq")
	if err != nil {
		return revoke.Stamp{}, err
	}
	stamp, err := revoke.ParseStamp(text)
	if err != nil {
		return revoke.Stamp{}, errors.New("rseq: not EPOCH.SEQUENCE")
	}
	return stamp, nil
}

func (s *scanner) via() ([]revoke.Key, error) {
	if s.peek() != '[' {
		return nil, errors.New("via: not an array")
	}
	keys := make([]revoke.Key, 0, 8)
	err := s.array(func(s *scanner) error {
		text, err := s.text1("via")
		if err != nil {
			return err
		}
		if len(keys) == wire.MaxVia {
			return fmt.Errorf("via: more than %d targets", wire.MaxVia)
		}
		key, err := revoke.ParseKey(text)
		if err != nil {
			return errors.New("via: an element is not a target key")
		}
		keys = append(keys, key)
		return nil
	})
	return keys, err
}
