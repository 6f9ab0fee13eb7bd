package incidents

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quash-project/quash/services/revocation"
	"github.com/quash-project/quash/shared/apikey"
	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/identity"
	"github.com/quash-project/quash/shared/problem"
)

// books returns the notebooks as a replica has them.
func books(t *testing.T, n *enginetest.NATSServer) *Books {
	t.Helper()
	b, err := New(Config{NATS: n.Dial(t, identity.Revocation), Now: time.Now, Rand: rand.Reader, From: always})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	return b
}

var alice = Writer{Tenant: "default", Actor: "alice", Request: "r1"}

func opened(t *testing.T, b *Books) Incident {
	t.Helper()
	x, err := b.Open(t.Context(), alice, "a stolen laptop", "high")
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// TestTwoWhoWriteAtOnceLoseNone: each note is written over the record as it is.
func TestTwoWhoWriteAtOnceLoseNone(t *testing.T) {
	n := enginetest.NATS(t)
	replicas := []*Books{books(t, n), books(t, n)}
	x := opened(t, replicas[0])
	const each = 15
	var wg sync.WaitGroup
	for i, b := range replicas {
		wg.Go(func() {
			for j := range each {
				if _, err := b.Note(t.Context(), Writer{Tenant: "default", Actor: fmt.Sprintf("writer %d", i)}, x.ID, fmt.Sprintf("note %d", j)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	got, err := replicas[1].Find(t.Context(), "default", x.ID)
	if err != nil || len(got.Notes) != 2*each {
		t.Fatalf("%d notes, %v; want %d", len(got.Notes), err, 2*each)
	}
	for i := range replicas {
		var texts []string
		for _, note := range got.Notes {
			if note.Actor == fmt.Sprintf("writer %d", i) {
				texts = append(texts, note.Text)
			}
		}
		if len(texts) != each || texts[0] != "note 0" || texts[each-1] != fmt.Sprintf("note %d", each-1) {
			t.Errorf("writer %d: %q", i, texts)
		}
	}
}

// TestNotebooksAreOfTheirTenantAndEndWithTheirClosing goes through what one may and may not
// do with a notebook.
func TestNotebooksAreOfTheirTenantAndEndWithTheirClosing(t *testing.T) {
	b := books(t, enginetest.NATS(t))
	ctx := t.Context()
	x := opened(t, b)
	if commit.CheckIncident(x.ID) != nil || x.Severity != "high" || x.Opened.Actor != "alice" || x.Opened.Request != "r1" {
		t.Errorf("%+v", x)
	}
	second, err := b.Open(ctx, alice, "another", "")
	if err != nil || second.Severity != defaultSeverity {
		t.Fatalf("%+v, %v", second, err)
	}
	want := []string{x.ID, second.ID}
	slices.Sort(want) // of one second their order is any
	slices.Reverse(want)
	page, last, err := b.List(ctx, "default", "", 1)
	if err != nil || len(page) != 1 || page[0].ID != want[0] || last != want[0] {
		t.Errorf("the first page: %+v, %q, %v", page, last, err)
	}
	if page, last, err = b.List(ctx, "default", last, 1); err != nil || len(page) != 1 || page[0].ID != want[1] || last != "" {
		t.Errorf("the second page: %+v, %q, %v", page, last, err)
	}
	mallory := Writer{Tenant: "acme", Actor: "mallory"}
	_, find := b.Find(ctx, "acme", x.ID)
	_, note := b.Note(ctx, mallory, x.ID, "t")
	_, end := b.Close(ctx, mallory, x.ID, "t")
	check := b.Check(ctx, "acme", x.ID)
	for _, err := range []error{find, note, end, check, b.Check(ctx, "default", "inc_20260131120000_aaaaaaaa"), b.Check(ctx, "default", "*")} {
		if err == nil || problem.KindOf(err) != problem.NotFound {
			t.Errorf("what is another tenant's, or nothing: %v", err)
		}
	}
	if page, _, err := b.List(ctx, "acme", "", 10); err != nil || len(page) != 0 {
		t.Errorf("another tenant's list: %+v, %v", page, err)
	}
	who := revocation.Caller{Tenant: "default", Actor: "alice"}
	if err := b.Planned(ctx, who, x.ID, revocation.Planned{ID: "p", Op: commit.Hold, Target: "principal:bob", Targets: 2, Hits: "much"}); err != nil {
		t.Error(err)
	}
	if err := b.Check(ctx, "default", x.ID); err != nil {
		t.Error(err)
	}
	closed, err := b.Close(ctx, alice, x.ID, "over")
	if err != nil || closed.State() != "closed" || len(closed.Plans) != 1 || closed.Plans[0].Target != "principal:bob" {
		t.Fatalf("%+v, %v", closed, err)
	}
	_, note = b.Note(ctx, alice, x.ID, "t")
	_, end = b.Close(ctx, alice, x.ID, "t")
	for _, err := range []error{note, end, b.Check(ctx, "default", x.ID), b.Planned(ctx, who, x.ID, revocation.Planned{ID: "q"})} {
		if err == nil || problem.KindOf(err) != problem.Conflict || !strings.Contains(err.Error(), "was closed at") {
			t.Errorf("closed: %v", err)
		}
	}
}

// TestTextsThatCanNotBeKeptAreRefused: secrets above all.
func TestTextsThatCanNotBeKeptAreRefused(t *testing.T) {
	b := books(t, enginetest.NATS(t))
	x := opened(t, b)
	secret, err := apikey.Generate(rand.Reader, apikey.Key)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"a secret": "it was " + secret.Reveal() + " in a log", "nothing": " \n", "no UTF-8": "a\xff", "too long": strings.Repeat("a", maxText+1),
	} {
		_, open := b.Open(t.Context(), alice, text, "")
		_, note := b.Note(t.Context(), alice, x.ID, text)
		_, end := b.Close(t.Context(), alice, x.ID, text)
		for what, err := range map[string]error{"title": open, "text": note, "reason": end} {
			if err == nil || problem.KindOf(err) != problem.Invalid || problem.From(err).Field != what {
				t.Errorf("%s as %s: %v", name, what, err)
			}
			if err != nil && strings.Contains(err.Error(), secret.Reveal()) {
				t.Error("the refusal shows the secret")
			}
		}
	}
	if _, err := b.Open(t.Context(), alice, "two\nlines", ""); problem.KindOf(err) != problem.Invalid {
		t.Errorf("a title of two lines: %v", err)
	}
	if _, err := b.Open(t.Context(), alice, "t", "dreadful"); problem.KindOf(err) != problem.Invalid {
		t.Errorf("a severity that there is not: %v", err)
	}
	got, err := b.Find(t.Context(), "default", x.ID)
	if err != nil || len(got.Notes) != 0 || got.Closed != nil {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestANotebookIsBounded: in its number of notes, and in all.
func TestANotebookIsBounded(t *testing.T) {
	x := Incident{ID: "i"}
	var err error
	for i := range maxNotes {
		if x, err = x.withNote(Note{Text: "t"}); err != nil {
			t.Fatalf("note %d: %v", i, err)
		}
	}
	if _, err = x.withNote(Note{Text: "t"}); problem.KindOf(err) != problem.Conflict {
		t.Errorf("one more: %v", err)
	}
	b := books(t, enginetest.NATS(t))
	is := opened(t, b)
	text, n := strings.Repeat("<", maxText), 0 // six bytes each in JSON
	for ; err == nil || n == 0; n++ {
		_, err = b.Note(t.Context(), alice, is.ID, text)
	}
	if problem.KindOf(err) != problem.Conflict || !strings.Contains(err.Error(), "as many as it may") || n < 10 || n > maxRecord/maxText {
		t.Errorf("after %d notes: %v", n, err)
	}
}

// try is a request that is made again after its answer was lost.
type try struct{ earlier string }

func (*try) Seed() string      { return "seed" }
func (t *try) Earlier() string { return t.earlier }
func (t *try) Makes(_ context.Context, what string) error {
	t.earlier = what
	return nil
}

// TestWhatIsTriedAgainIsDoneOnce: also where the first try could not note its answer.
func TestWhatIsTriedAgainIsDoneOnce(t *testing.T) {
	b := books(t, enginetest.NATS(t))
	ctx, again := t.Context(), &try{}
	w := Writer{Tenant: "default", Actor: "alice", Try: again}
	first, err := b.Open(ctx, w, "t", "")
	if err != nil {
		t.Fatal(err)
	}
	second, err := b.Open(ctx, w, "t", "")
	if err != nil || second.ID != first.ID {
		t.Errorf("opened %s, and again %s, %v", first.ID, second.ID, err)
	}
	lost := &try{earlier: "incident:inc_20260131120000_aaaaaaaa"}
	if x, err := b.Open(ctx, Writer{Tenant: "default", Actor: "alice", Try: lost}, "t", ""); err != nil || "incident:"+x.ID != lost.earlier {
		t.Errorf("where the first try made nothing: %+v, %v", x, err)
	}
	for range 2 {
		if x, err := b.Note(ctx, w, first.ID, "t"); err != nil || len(x.Notes) != 1 {
			t.Errorf("%+v, %v", x, err)
		}
	}
	for range 2 {
		if x, err := b.Close(ctx, w, first.ID, "over"); err != nil || x.Closed == nil {
			t.Errorf("%+v, %v", x, err)
		}
	}
}

// always is since when tenants are there of whom nobody had the name before.
func always(context.Context, string) (revoke.Stamp, error) { return revoke.Stamp{}, nil }
