package guard

import (
	"slices"
	"strings"
)

// never is what stands in the place of a nil Condition.
var never Condition = &words{any: true}

// all is met if each part is.
type all []Condition

// All is met if each of these is; of none, by every token.
func All(parts ...Condition) Condition {
	var list all
	for _, p := range parts {
		switch p := p.(type) {
		case nil:
			list = append(list, never)
		case all:
			list = append(list, p...)
		default:
			list = append(list, p)
		}
	}
	// What lacks is told in the order of the checks, whatever the order here.
	slices.SortStableFunc(list, func(a, b Condition) int { return a.rank() - b.rank() })
	return list
}

func (l all) check(c *Claims, r Values) *fault {
	for _, p := range l {
		if f := p.check(c, r); f != nil {
			return f
		}
	}
	return nil
}

func (l all) rank() int {
	if len(l) == 0 {
		return len(rights) - 1
	}
	return l[0].rank()
}

func (l all) String() string {
	if len(l) == 0 {
		return "any token"
	}
	return join(l, " and ")
}

func (l all) alternatives() []Alternative {
	list := []Alternative{{}}
	for _, p := range l {
		var next []Alternative
		for _, a := range list {
			for _, b := range p.alternatives() {
				next = append(next, a.and(b))
			}
		}
		list = next
	}
	return list
}

func (a Alternative) and(b Alternative) Alternative {
	union := func(a, b []string) []string {
		out := slices.Clone(a)
		for _, s := range b {
			if !slices.Contains(out, s) {
				out = append(out, s)
			}
		}
		return out
	}
	return Alternative{union(a.Scopes, b.Scopes), union(a.Roles, b.Roles), union(a.Conditions, b.Conditions)}
}

// one is met if one part is.
type one []Condition

// Any is met if one of these is; of none, by no token.
func Any(parts ...Condition) Condition {
	list := make(one, 0, len(parts))
	for _, p := range parts {
		if p == nil {
			p = never
		}
		list = append(list, p)
	}
	return list
}

// check names the earliest check of those that failed: where a scope would have
// helped, the answer says so.
func (l one) check(c *Claims, r Values) *fault {
	var reasons []string
	first := len(rights) - 1
	for _, p := range l {
		f := p.check(c, r)
		if f == nil {
			return nil
		}
		first = min(first, slices.Index(rights[:], f.check))
		reasons = append(reasons, f.reason)
	}
	if len(reasons) == 0 {
		return lacking(CheckCondition, "no token can do this")
	}
	return lacking(rights[first], strings.Join(reasons, "; and "))
}

func (l one) rank() int {
	first := len(rights) - 1
	for _, p := range l {
		first = min(first, p.rank())
	}
	return first
}

func (l one) String() string {
	if len(l) == 0 {
		return "never"
	}
	return join(l, " or ")
}

func (l one) alternatives() []Alternative {
	var list []Alternative
	for _, p := range l {
		list = append(list, p.alternatives()...)
	}
	return list
}

// join puts compound parts into brackets.
func join(parts []Condition, sep string) string {
	texts := make([]string, len(parts))
	for i, p := range parts {
		texts[i] = p.String()
		switch p := p.(type) {
		case all:
			if len(parts) > 1 && len(p) > 1 {
				texts[i] = "(" + texts[i] + ")"
			}
		case one:
			if len(parts) > 1 && len(p) > 1 {
				texts[i] = "(" + texts[i] + ")"
			}
		}
	}
	return strings.Join(texts, sep)
}
