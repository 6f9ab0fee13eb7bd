package incidents

import (
	"encoding/base32"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/problem"
)

// Bounds of a notebook.
const (
	maxTitle  = 200  // bytes
	maxReason = 1024 // bytes
	maxText   = 4096 // bytes of a note
	maxNotes  = 500
	maxPlans  = 500
	// maxRecord is how long all of it may be as a record: the broker takes 1 MiB.
	maxRecord = 512 << 10
)

// Severities are how bad an incident can be, the worst last.
var severities = []string{"low", "medium", "high", "critical"}

// defaultSeverity is that of an incident of which nobody has said it.
const defaultSeverity = "medium"

// Incident is the record of a notebook.
type Incident struct {
	ID       string  `json:"id"`
	Tenant   string  `json:"tenant"`
	Title    string  `json:"title"`
	Severity string  `json:"severity"`
	Opened   Account `json:"opened"`
	// Stamp is where the log was then.
	Stamp revoke.Stamp `json:"stamp,omitzero"`
	// Closed is nil while it is open.
	Closed *Account `json:"closed,omitempty"`
	Notes  []Note   `json:"notes"`
	Plans  []Plan   `json:"plans"`
	// Meta says who changed it last, why and when.
	Meta Account `json:"meta"`
}

// Account is who did something, why and when.
type Account struct {
	Actor  string    `json:"actor"`
	Reason string    `json:"reason,omitempty"`
	At     time.Time `json:"at"`
	// Request is the id of the request that did it.
	Request string `json:"request,omitempty"`
	// Try tells a repetition of the same request from another one; empty: it is not repeated.
	Try string `json:"try,omitempty"`
}

// Note is a remark.
type Note struct {
	Account
	Text string `json:"text"`
}

// Plan is what somebody was shown before a cut.
type Plan struct {
	Account
	ID      string `json:"id"`
	Op      string `json:"op"`
	Target  string `json:"target"` // the first of them
	Targets int    `json:"targets"`
	Hits    string `json:"hits"` // in words
}

// newID returns an id in the order of time.
func newID(rand io.Reader, now time.Time) (string, error) {
	var b [5]byte
	if _, err := io.ReadFull(rand, b[:]); err != nil {
		return "", fmt.Errorf("random bytes for an id: %w", err)
	}
	return "inc_" + now.UTC().Format("20060102150405") + "_" + strings.ToLower(base32.StdEncoding.EncodeToString(b[:])), nil
}

func errClosed(x *Incident) error {
	e := problem.New(problem.Conflict, "the incident %s was closed at %s by %.100s; open another, or leave the incident out", x.ID, x.Closed.At.UTC().Format(time.RFC3339), x.Closed.Actor)
	e.Field = "incident"
	return e
}

func errFull(format string, args ...any) error {
	return problem.New(problem.Conflict, format+": close it and open another", args...)
}

// withNote returns it with another note. A note of a request that was written before is there
// already.
func (x Incident) withNote(n Note) (Incident, error) {
	if n.Try != "" && slices.ContainsFunc(x.Notes, func(m Note) bool { return m.Try == n.Try && m.Actor == n.Actor }) {
		return x, errThere
	}
	switch {
	case x.Closed != nil:
		return x, errClosed(&x)
	case len(x.Notes) >= maxNotes:
		return x, errFull("the notebook has %d notes, as many as it may", len(x.Notes))
	}
	x.Notes = append(slices.Clone(x.Notes), n)
	x.Meta = n.Account
	x.Meta.Reason = "a note"
	return x, nil
}

// withPlan returns it with another plan.
func (x Incident) withPlan(p Plan) (Incident, error) {
	switch {
	case x.Closed != nil:
		return x, errClosed(&x)
	case len(x.Plans) >= maxPlans:
		return x, errFull("the notebook has %d plans, as many as it may", len(x.Plans))
	}
	x.Plans = append(slices.Clone(x.Plans), p)
	x.Meta = p.Account
	x.Meta.Reason = "a preview was made"
	return x, nil
}

// closed returns it closed.
func (x Incident) closed(a Account) (Incident, error) {
	if x.Closed != nil {
		if a.Try != "" && x.Closed.Try == a.Try && x.Closed.Actor == a.Actor {
			return x, errThere
		}
		return x, errClosed(&x)
	}
	x.Closed, x.Meta = &a, a
	return x, nil
}

// checkText refuses what can't be kept as the text of a person. Lines may be several where
// that is said.
func checkText(field, text string, most int, lines bool) error {
	switch {
	case strings.TrimSpace(text) == "":
		return problem.FieldError(field, "is missing")
	case len(text) > most:
		return problem.FieldError(field, "has %d bytes: %d at most", len(text), most)
	case !utf8.ValidString(text):
		return problem.FieldError(field, "is not valid UTF-8")
	case !lines && strings.ContainsFunc(text, unicode.IsControl):
		return problem.FieldError(field, "has a control character in it: want one line")
	}
	return problem.NoSecret(field, text)
}

func severityOf(text string) (string, error) {
	if text == "" {
		return defaultSeverity, nil
	}
	if !slices.Contains(severities, text) {
		return "", problem.FieldError("severity", "%.40q: want one of %s", text, strings.Join(severities, ", "))
	}
	return text, nil
}
