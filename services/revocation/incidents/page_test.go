package incidents

import (
	"strings"
	"testing"
	"time"

	"github.com/quash-project/quash/services/revocation/receipts"
	frame "github.com/quash-project/quash/shared/httpapi"
)

// hostile has one text wherever somebody chooses one.
func hostile(text string) *Report {
	at := frame.Time(time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC))
	d := receipts.Document{
		ID: "r", Op: "hold", Targets: []string{text}, Reason: text, Actor: text, CommittedAt: at,
		Confirmed: []receipts.ToldConfirmed{{Name: text, Instance: text, At: at}}, Unconfirmed: []receipts.ToldUnconfirmed{{Name: text, Instance: text, Open: true}},
	}
	r := &Report{
		Installation: "https://quash.test", MadeAt: at, ID: "inc_20260131120000_aaaaaaaa", Tenant: "default", Title: text, Severity: "high", State: "closed",
		OpenedAt: at, OpenedBy: text, ClosedAt: &at, ClosedBy: text, CloseReason: text, Whole: true,
		Plans: []ToldPlan{{At: at, Actor: text, ID: "p", Op: "hold", Target: text, Targets: 2, Hits: "1 API keys"}},
		Notes: []ToldNote{{At: at, Actor: text, Text: text}},
		Holds: []RunningHold{{ID: "r", Target: text}},
		Cuts:  []Cut{{ID: "r", CommittedAt: at, Op: "hold", Target: text, Targets: 1, Actor: text, Reason: text, Receipt: &d, JWS: "a.b.c"}},
	}
	r.Timeline = r.timeline()
	return r
}

// TestNothingThatIsWrittenBecomesAPartOfAReport: neither of the page nor of the Markdown.
func TestNothingThatIsWrittenBecomesAPartOfAReport(t *testing.T) {
	const text = "<script>alert(1)</script>\n\n# Closed\n```\n[here](http://x) **no** `x`\x1b[2J\u202egnol"
	r := hostile(text)
	page, err := r.Page()
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"<script", "\x1b", "\u202e"} {
		if strings.Contains(string(page), bad) {
			t.Errorf("the page has %q", bad)
		}
	}
	if n := strings.Count(string(page), "&lt;script&gt;"); n < 10 {
		t.Errorf("the page tells the text %d times: it is not where it should be", n)
	}
	if strings.Contains(string(page), "ZgotmplZ") {
		t.Error("the style is not the one that the policy allows")
	}
	checkMarkdown(t, text)
}

// checkMarkdown holds the lines that have a meaning against those of a report in which
// somebody wrote a word.
func checkMarkdown(t *testing.T, text string) {
	t.Helper()
	structure := func(r *Report) (marks []string) {
		for line := range strings.Lines(string(r.Markdown())) {
			if strings.HasPrefix(line, "    ") || strings.TrimSpace(line) == "" {
				continue // literal
			}
			mark := line[:min(4, len(line))]
			if strings.HasPrefix(line, "#") || strings.HasPrefix(line, "- ") {
				mark = line[:strings.Index(line, " ")]
			}
			marks = append(marks, mark)
			for i, c := range line {
				if (c == '<' || c == '[' || c == '*' && !strings.Contains(line, "**")) && !strings.HasSuffix(strings.TrimRight(line[:i], ""), `\`) && strings.Count(line[:i], "`")%2 == 0 {
					t.Errorf("%q is markup in %q", c, line)
				}
			}
		}
		return marks
	}
	want, got := structure(hostile("word")), structure(hostile(text))
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("%q changes what the report is made of:\n%q\nwant\n%q", text, got, want)
	}
	for line := range strings.Lines(string(hostile(text).Markdown())) {
		if strings.ContainsAny(line, "\x1b\r\u202e\u2028") {
			t.Errorf("%q can move a cursor", line)
		}
	}
}

func FuzzMarkdown(f *testing.F) {
	for _, s := range []string{"word", "# a", "- a\n- b", "```", "<b>", "\\<b>", "[a](b)", "`<a>`", "a\r\n> b", "|a|b|", "\u2028# x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.TrimSpace(shown(text)) == "" {
			t.Skip()
		}
		checkMarkdown(t, text)
	})
}
