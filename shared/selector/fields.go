package selector

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// field is what a condition can be about.
type field struct {
	ops []string
	set func(s *Selector, op, value string) error
}

func names(fields map[string]field) []string { return slices.Sorted(maps.Keys(fields)) }

var fieldsOf = map[string]map[string]field{
	Keys: {
		"owner":   is(func(s *Selector) *string { return &s.Owner }),
		"creator": is(func(s *Selector) *string { return &s.Creator }),
		"client":  is(func(s *Selector) *string { return &s.Client }),
		"kind":    is(func(s *Selector) *string { return &s.Kind }, "key", "secret", "all"),
		"state":   is(func(s *Selector) *string { return &s.State }, "active", "expired", "ending", "held", "revoked"),
		"label":   {[]string{"="}, label},
		"unused":  {[]string{">"}, span(func(s *Selector) *time.Duration { return &s.Unused })},
		"ends":    {[]string{"<"}, span(func(s *Selector) *time.Duration { return &s.Ends })},
		"made":    {[]string{">=", ">", "<", "<="}, made},
	},
	Principals: {
		"name":   is(func(s *Selector) *string { return &s.Name }),
		"client": is(func(s *Selector) *string { return &s.Client }),
		"kind":   is(func(s *Selector) *string { return &s.Kind }, "person", "workload"),
		"label":  {[]string{"="}, label},
	},
}

// is takes a text, one of some where there are any.
func is(part func(*Selector) *string, of ...string) field {
	return field{[]string{"="}, func(s *Selector, _, value string) error {
		if len(of) > 0 && !slices.Contains(of, value) {
			return fmt.Errorf("%.40q: want %s", value, strings.Join(of, ", "))
		}
		if i := strings.IndexFunc(value, unicode.IsControl); i >= 0 {
			return fmt.Errorf("%.40q has a control character", value)
		}
		*part(s) = value
		return nil
	}}
}

// label takes NAME, for whatever value, or NAME=VALUE.
func label(s *Selector, _, value string) error {
	name, of, valued := strings.Cut(value, "=")
	other, twice := s.Labels[name]
	plain := func(t string) bool {
		return len(t) <= 63 && strings.IndexFunc(t, func(r rune) bool {
			return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._/-", r))
		}) < 0
	}
	switch {
	case name == "" || !plain(name) || !plain(of):
		return fmt.Errorf("%.80q: want the name of a label, or name=value, of letters, digits and . _ / -", value)
	case !valued && !slices.Contains(s.Having, name):
		s.Having = append(s.Having, name)
	case valued && twice && other != of:
		return fmt.Errorf("the label %s is wanted with two values: nothing has both", name)
	case valued:
		if s.Labels == nil {
			s.Labels = map[string]string{}
		}
		s.Labels[name] = of
	}
	return nil
}

// longest is the longest span, beyond which nothing lives.
const longest = 10 * 366 * 24 * time.Hour

// span takes a time as 90d, 36h or 90m.
func span(part func(*Selector) *time.Duration) func(*Selector, string, string) error {
	units := map[byte]time.Duration{'m': time.Minute, 'h': time.Hour, 'd': 24 * time.Hour}
	return func(s *Selector, _, value string) error {
		unit := units[value[len(value)-1]]
		n, err := strconv.ParseUint(value[:len(value)-1], 10, 32)
		if unit == 0 || err != nil || n == 0 || n > uint64(longest/unit) {
			return fmt.Errorf("%.40q: want how long, as 90d, 36h or 90m", value)
		}
		*part(s) = time.Duration(n) * unit
		return nil
	}
}

// made takes a bound of when a key was made: a moment, or a day in UTC, which is whole.
func made(s *Selector, op, value string) error {
	at, err := time.Parse(time.RFC3339, value)
	next := at.Add(time.Nanosecond)
	if err != nil {
		at, err = time.Parse(time.DateOnly, value)
		next = at.AddDate(0, 0, 1)
	}
	if err != nil || at.Year() < 1970 || at.Year() > 9998 {
		return fmt.Errorf("%.40q: want a day as 2026-01-31, or a time as 2026-01-31T12:00:00Z", value)
	}
	switch op {
	case ">=":
		s.From = at.UTC()
	case ">":
		s.From = next.UTC()
	case "<":
		s.To = at.UTC()
	case "<=":
		s.To = next.UTC()
	}
	return nil
}
