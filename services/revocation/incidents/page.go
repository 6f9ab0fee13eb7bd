package incidents

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"strings"
	"unicode"

	"github.com/quash-project/quash/services/revocation/receipts"
)

var (
	//go:embed page.html
	pageText     string
	pageTemplate = template.Must(template.New("incident").Funcs(template.FuncMap{"several": several, "past": func(op string) string { return past[op] }, "shown": shown}).Parse(pageText))
)

// Page returns a report as a page for a person, to read or to print. Its
// Content-Security-Policy is receipts.PagePolicy.
func (r *Report) Page() ([]byte, error) {
	var out bytes.Buffer
	err := pageTemplate.Execute(&out, struct {
		*Report
		Style template.CSS
	}{r, receipts.PageStyle()})
	return out.Bytes(), err
}

// Markdown returns a report as CommonMark, also for a terminal. Nothing that a person has
// written can be taken for a part of it.
func (r *Report) Markdown() []byte {
	w := &writer{}
	w.line("# Incident %s: %s", r.ID, escape(r.Title))
	w.line("")
	w.line("- State: **%s**, severity %s", r.State, r.Severity)
	w.line("- Opened: %s by %s", r.OpenedAt, escape(r.OpenedBy))
	if r.ClosedAt != nil {
		w.line("- Closed: %s by %s: %s", r.ClosedAt, escape(r.ClosedBy), escape(r.CloseReason))
	}
	w.line("- Installation: %s, tenant %s", escape(r.Installation), escape(r.Tenant))
	w.line("- This report: made %s; all times are in UTC", r.MadeAt)
	if !r.Whole {
		w.line("- **Not whole**: the log could not be asked in time, and what was cut last may be missing")
	}
	if r.MoreCuts > 0 {
		w.line("- **%d older cuts are left out**: `quash audit search --incident %s` has them", r.MoreCuts, r.ID)
	}
	w.section("Timeline", len(r.Timeline))
	for _, e := range r.Timeline {
		w.line("- %s %s%s%s", e.At, escape(e.Actor), space(e.Actor), escape(e.Text))
	}
	w.section("Holds that are running", len(r.Holds))
	for _, h := range r.Holds {
		w.line("- %s, by %s: %s", code(h.Target), code(h.ID), h.end())
	}
	w.section("Plans that were seen", len(r.Plans))
	for _, p := range r.Plans {
		w.line("- %s %s: %s of %s would hit %s (plan %s)", p.At, escape(p.Actor), p.Op, code(several(p.Target, p.Targets)), escape(p.Hits), code(p.ID))
	}
	w.section("Notes", len(r.Notes))
	for i, n := range r.Notes {
		w.line("Note %d, %s %s:", i+1, n.At, escape(n.Actor))
		w.line("")
		w.literal(n.Text)
	}
	w.section("Cuts and their receipts", len(r.Cuts))
	for i := range r.Cuts {
		w.cut(&r.Cuts[i])
	}
	return w.Bytes()
}

type writer struct{ bytes.Buffer }

func (w *writer) line(format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }

func (w *writer) section(name string, n int) {
	w.line("\n## %s\n", name)
	if n == 0 {
		w.line("None.")
	}
}

// literal writes an indented code block: nothing in it is markup.
func (w *writer) literal(text string) {
	for line := range strings.Lines(strings.TrimSpace(text)) {
		w.line("    %s", shown(strings.TrimSuffix(line, "\n")))
	}
	w.line("")
}

func (w *writer) cut(c *Cut) {
	w.line("### %s: %s %s\n", c.CommittedAt, past[c.Op], code(several(c.Target, c.Targets)))
	w.line("- Receipt: %s, by %s: %s%s", code(c.ID), escape(c.Actor), escape(c.Reason), bracketed(c.Code))
	if c.Complete {
		w.line("- Complete: it has taken effect everywhere since %s", c.EffectAt)
	} else {
		w.line("- **Not complete**: %d servers have confirmed, %d have not", c.Confirmed, c.Unconfirmed)
	}
	if d := c.Receipt; d != nil {
		for _, g := range d.Confirmed {
			w.line("- Confirmed: %s %s at %s", escape(g.Name), code(g.Instance), g.At)
		}
		for _, u := range d.Unconfirmed {
			w.line("- Not confirmed: %s %s, %s", escape(u.Name), code(u.Instance), fence(u))
		}
		for _, o := range d.Out {
			w.line("- Left the fleet: %s %s, found gone at %s", escape(o.Name), code(o.Instance), o.At)
		}
		if d.Redis != nil && d.Redis.AppliedAt != nil {
			w.line("- Redis view: applied at %s", d.Redis.AppliedAt)
		}
	}
	w.line("")
	if c.JWS == "" {
		w.line("The signed receipt is too long to stand here: `quash receipt show %s`.\n", c.ID)
		return
	}
	w.line("Signed, for `quash receipt verify`:\n\n    %s\n", c.JWS)
}

func fence(u receipts.ToldUnconfirmed) string {
	switch {
	case u.Open:
		return "and nothing bounds it: it allows past its limit"
	case u.FencedBy == nil:
		return "and it is not known by when it refuses by itself"
	case u.Fenced:
		return fmt.Sprintf("and refuses by itself since %s", u.FencedBy)
	}
	return fmt.Sprintf("and refuses by itself from %s", u.FencedBy)
}

func (h RunningHold) end() string {
	if h.EndsAt == nil {
		return "until somebody releases it"
	}
	return "until " + h.EndsAt.String() + ", then " + h.Then
}

// End says how long the hold runs.
func (h RunningHold) End() string { return h.end() }

func bracketed(code string) string {
	if code == "" {
		return ""
	}
	return " (" + escape(code) + ")"
}

func space(s string) string {
	if s == "" {
		return ""
	}
	return " "
}

// escape writes a text of somebody's as one line of CommonMark that means itself.
func escape(text string) string {
	var out strings.Builder
	for _, r := range strings.Join(strings.Fields(shown(text)), " ") {
		if strings.ContainsRune("\\`*_[]<>&|~#", r) {
			out.WriteByte('\\')
		}
		out.WriteRune(r)
	}
	return out.String()
}

// code writes an id as code, where it can be.
func code(text string) string {
	text = strings.Join(strings.Fields(shown(text)), " ")
	if text == "" || strings.Contains(text, "`") {
		return escape(text)
	}
	return "`" + text + "`"
}

// shown keeps what somebody has written from moving a cursor, or changing the order in which
// what is around it is read (Unicode's explicit directional formatting, UAX #9).
func shown(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return r
		case unicode.IsControl(r), r >= 0x202A && r <= 0x202E, r >= 0x2066 && r <= 0x2069, r == 0x200E, r == 0x200F, r == 0x2028, r == 0x2029:
			return unicode.ReplacementChar
		}
		return r
	}, text)
}
