package receipts

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"math"
	"time"

	frame "github.com/quash-project/quash/shared/httpapi"
)

var (
	//go:embed page.html
	pageText string
	//go:embed page.css
	pageStyle string

	pageTemplate = template.Must(template.New("receipt").Parse(pageText))
)

// PagePolicy is the Content-Security-Policy of a page: its one style and nothing
// else, no script above all.
var PagePolicy = func() string {
	sum := sha256.Sum256([]byte(pageStyle))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
		"'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox"
}()

// PageStyle is the style of which PagePolicy speaks.
func PageStyle() template.CSS { return template.CSS(pageStyle) } //nolint:gosec // the style is a file of ours

// Page returns a receipt as a page for a person, to read or to print.
func Page(d Document, installation, jws string) ([]byte, error) {
	var out bytes.Buffer
	err := pageTemplate.Execute(&out, struct {
		Document
		Style        template.CSS
		Installation string
		JWS          string
		Chart        chart
	}{d, PageStyle(), installation, jws, draw(d)})
	return out.Bytes(), err
}

// chart is the timeline: how long after the commit what came, on a logarithmic scale,
// since guards confirm within milliseconds and are fenced after seconds.
type chart struct {
	Ticks     []tick
	Confirmed []mark
	Fenced    []mark
	Redis     []mark
}

type tick struct {
	X    float64
	Text string
}

type mark struct {
	X    float64
	Past bool
	Text string
}

// Where the scale begins and ends, in the units of the drawing.
const (
	chartLeft  = 110.0
	chartRight = 780.0
	// maxMarks is how many marks one line of the drawing has: more are not to be told
	// apart. The table below has everyone.
	maxMarks = 400
)

func draw(d Document) chart {
	begin := time.Time(d.CommittedAt)
	longest := 100 * time.Millisecond
	see := func(t time.Time) { longest = max(longest, t.Sub(begin)) }
	for _, c := range d.Confirmed {
		see(time.Time(c.At))
	}
	for _, u := range d.Unconfirmed {
		if u.FencedBy != nil {
			see(time.Time(*u.FencedBy))
		}
	}
	if d.Redis != nil && d.Redis.AppliedAt != nil {
		see(time.Time(*d.Redis.AppliedAt))
	}
	x := func(after time.Duration) float64 {
		ms := max(float64(after)/float64(time.Millisecond), 0)
		at := chartLeft + (chartRight-chartLeft)*math.Log10(1+ms)/math.Log10(1+float64(longest)/float64(time.Millisecond))
		return math.Round(min(at, chartRight)*10) / 10
	}
	at := func(t frame.Time, past bool, name, instance string) mark {
		after := time.Time(t).Sub(begin)
		return mark{X: x(after), Past: past, Text: fmt.Sprintf("%s %s, %s after the commit", name, instance, after.Round(time.Millisecond))}
	}
	var c chart
	for after := time.Millisecond; after <= longest; after *= 10 {
		c.Ticks = append(c.Ticks, tick{x(after), after.String()})
	}
	for _, g := range d.Confirmed[:min(len(d.Confirmed), maxMarks)] {
		c.Confirmed = append(c.Confirmed, at(g.At, true, g.Name, g.Instance))
	}
	for _, u := range d.Unconfirmed {
		if u.FencedBy != nil && len(c.Fenced) < maxMarks {
			c.Fenced = append(c.Fenced, at(*u.FencedBy, u.Fenced, u.Name, u.Instance))
		}
	}
	if d.Redis != nil && d.Redis.AppliedAt != nil {
		c.Redis = append(c.Redis, at(*d.Redis.AppliedAt, true, "Redis", "view"))
	}
	return c
}
