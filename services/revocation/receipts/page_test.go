package receipts_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/quash-project/quash/services/revocation/receipts"
)

// TestThePageRunsNothing: whatever a reason, an actor, a target or a guard is called, it
// stands there as text; there is no script; and the policy allows its own style alone.
func TestThePageRunsNothing(t *testing.T) {
	const hostile = `</style><script>alert(1)</script><img src=x onerror=alert(1)>"'&{{.}}</title></svg>`
	now := time.Now()
	r := receipts.Receipt{
		ID: "id", Tenant: hostile, Op: "hold", Issuer: hostile, Targets: []string{"principal:" + hostile, "key:a"}, Reason: hostile, Actor: hostile,
		EndsAt: now.UnixMilli(), Then: "release", CommittedAt: now.UnixMilli(), Epoch: 1, Sequence: 2,
		Confirmed:   []receipts.Confirmed{{Name: hostile, Instance: hostile, At: now.Add(3 * time.Millisecond).UnixMilli()}},
		Unconfirmed: []receipts.Unconfirmed{{Name: hostile, Instance: "b", FencedBy: now.Add(15 * time.Second).UnixMilli()}, {Name: "c", Instance: hostile, Open: true}},
		Out:         []receipts.Out{{Name: hostile, Instance: hostile, At: now.UnixMilli()}},
		Redis:       &receipts.Redis{AppliedAt: now.Add(time.Hour).UnixMilli(), FencedBy: now.UnixMilli()}, JudgedAt: now.UnixMilli(),
	}
	told := func(names bool) receipts.Document {
		d := r.Tell(names)
		d.Runs([]receipts.Running{{Name: hostile, Instance: hostile, Count: 3, At: now.UnixMilli()}}, names)
		return d
	}
	if hidden, err := told(false).Payload("https://quash.test", now); err != nil || strings.Count(string(hidden), `"name":""`) != 5 {
		t.Errorf("without names, %v: %s", err, hidden)
	}
	page, err := receipts.Page(told(true), "https://quash.test", "a.b.c")
	if err != nil {
		t.Fatal(err)
	}
	text := string(page)
	for _, bad := range []string{"<script", "<img", "onerror=\"", "javascript:", "<link", "http-equiv", " style="} {
		if strings.Contains(text, bad) {
			t.Errorf("the page has %s", bad)
		}
	}
	if strings.Count(text, "&lt;script&gt;") < 8 {
		t.Error("what was hostile is not shown as text")
	}
	_, rest, _ := strings.Cut(text, "<style>")
	style, _, ok := strings.Cut(rest, "</style>")
	sum := sha256.Sum256([]byte(style))
	if want := "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"; !ok || !strings.Contains(receipts.PagePolicy, want) {
		t.Errorf("the policy %q does not allow the style, %s", receipts.PagePolicy, want)
	}
	if !strings.HasPrefix(receipts.PagePolicy, "default-src 'none'; ") || strings.Contains(receipts.PagePolicy, "unsafe") || strings.Contains(receipts.PagePolicy, "script-src") {
		t.Errorf("the policy %q allows more than a style", receipts.PagePolicy)
	}
	for _, said := range []string{"Not complete", "<svg", "never: it is open", "committed", "then release", "Requests that go on"} {
		if !strings.Contains(text, said) {
			t.Errorf("the page does not say %q", said)
		}
	}
	// Every element is closed where it should be: nothing broke out of its place.
	d := xml.NewDecoder(strings.NewReader(strings.ReplaceAll(text, "<!doctype html>", "")))
	d.Entity = xml.HTMLEntity
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
}
