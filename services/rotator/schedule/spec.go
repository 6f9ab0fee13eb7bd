package schedule

import (
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/problem"
)

// The kinds of what can be rotated.
const (
	SigningKey = "signing-key"
	Key        = "key"
	Client     = "client"
)

// Target is what a schedule rotates.
type Target struct{ Kind, ID string }

// ParseTarget reads signing-key, key:ID or client:ID.
func ParseTarget(text string) (Target, error) {
	kind, id, named := strings.Cut(text, ":")
	t := Target{kind, id}
	switch {
	case kind == SigningKey && !named:
		return t, nil
	case (kind == Key || kind == Client) && named:
		if err := revoke.CheckID(kind, id); err != nil {
			return Target{}, problem.FieldError("rotate", "%v", err)
		}
		return t, problem.NoSecret("rotate", id)
	}
	return Target{}, problem.FieldError("rotate", "%.40q: want signing-key, key:ID or client:ID", text)
}

func (t Target) String() string {
	if t.ID == "" {
		return t.Kind
	}
	return t.Kind + ":" + t.ID
}

// Limits of a Spec.
const (
	minEvery  = Duration(time.Minute)
	maxEvery  = Duration(400 * day)
	minAge    = Duration(time.Hour)
	maxJitter = Duration(week)
	maxReason = 1024
)

// reserved are names that are places of their own in the API.
var reserved = []string{"calendar", "preview"}

func checkName(name string) error {
	if err := revoke.CheckName("schedule", name); err != nil {
		return problem.FieldError("name", "%v", err)
	}
	if slices.Contains(reserved, name) {
		return problem.FieldError("name", "%q is the name of something else: want another one", name)
	}
	return nil
}

// check tells what can't be meant, but for what newPlan finds.
func (s *Spec) check() error {
	kinds := 0
	for _, has := range []bool{s.Cron != "", s.Every != 0, s.MaxAge != 0, s.BeforeExpiry != 0} {
		if has {
			kinds++
		}
	}
	if kinds != 1 {
		return problem.FieldError("cron", "want one of cron, every, max_age and before_expiry: %d are given", kinds)
	}
	within := func(field string, d, least, most Duration) error {
		if d != 0 && (d < least || d > most) {
			return problem.FieldError(field, "%s: want %s to %s", d, least, most)
		}
		return nil
	}
	for _, err := range []error{
		within("every", s.Every, minEvery, maxEvery), within("max_age", s.MaxAge, minAge, maxEvery),
		within("before_expiry", s.BeforeExpiry, minAge, maxEvery), within("jitter", s.Jitter, 1, maxJitter),
		within("overlap", s.Overlap, Duration(time.Minute), Duration(30*day)), s.checkReason(),
	} {
		if err != nil {
			return err
		}
	}
	switch most := max(s.Every, s.MaxAge/2); {
	case s.Missed != RunOnce && s.Missed != Skip:
		return problem.FieldError("missed", "%.20q: want %s or %s", s.Missed, RunOnce, Skip)
	case s.Missed == Skip && s.aged():
		return problem.FieldError("missed", "skip is for times; what is too old does not get younger: want %s", RunOnce)
	case most != 0 && s.Jitter >= most:
		return problem.FieldError("jitter", "%s: want less than the interval, or than half the age", s.Jitter)
	case s.Overlap != 0 && s.Rotate == SigningKey:
		return problem.FieldError("overlap", "a signing key has none to choose: what it has signed is good until it expires")
	}
	return nil
}

func (s *Spec) checkReason() error {
	if s.Reason == "" || len(s.Reason) > maxReason || !utf8.ValidString(s.Reason) {
		return problem.FieldError("reason", "want 1 to %d bytes of text: it stands in the audit trail", maxReason)
	}
	return problem.NoSecret("reason", s.Reason)
}

// aged reports whether the age of what is rotated says when.
func (s *Spec) aged() bool { return s.MaxAge != 0 || s.BeforeExpiry != 0 }

// same reports whether two ask for the same.
func (s *Spec) same(o *Spec) bool {
	plain := func(x *Spec) [10]string {
		return [...]string{
			x.Rotate, x.Cron, x.Every.String(), x.MaxAge.String(), x.BeforeExpiry.String(), x.TimeZone, x.Jitter.String(), x.Missed,
			x.Overlap.String(), x.Reason,
		}
	}
	return plain(s) == plain(o) && slices.Equal(s.Windows, o.Windows) && slices.Equal(s.Freezes, o.Freezes)
}
