package holds

import (
	"crypto/rand"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/problem"
)

// ask has a service ask for something about one target.
func (w *world) ask(service, key string, op commit.Op, target string, change ...func(*commit.Request)) (commit.Answer, error) {
	w.t.Helper()
	about := parse(w.t, target)
	r := commit.Request{
		Key: key, Tenant: "default", Op: op, Reason: "a test", Actor: "alice", Own: op == commit.Release && service == "issuer",
		Targets: []commit.Target{{Kind: about.Kind, ID: about.ID}},
	}
	for _, fn := range change {
		fn(&r)
	}
	return w.log.Commit(w.t.Context(), r, service)
}

// TestOwnReleaseEndsNoHoldOfAnother, in whichever order they came; and the release of who
// may end all of them still does.
func TestOwnReleaseEndsNoHoldOfAnother(t *testing.T) {
	w := newWorld(t)
	w.replica()
	for i, c := range []struct {
		name  string
		steps string // I: the issuer holds, R: a responder holds, r: a responder releases, i: the issuer releases, x: the same, refused
		held  bool
	}{
		{"nothing", "x", false},
		{"its own", "Iix", false},
		{"its own twice", "IIi", false},
		{"another's", "Rx", true},
		{"another's since", "IRx", true},
		{"another's before", "RIx", true},
		{"another's between", "IRIx", true},
		{"another's that was released", "RrIi", false},
		{"both released", "IRrx", false},
		{"anew", "IRrIix", false},
		{"released, and another's again", "IiRx", true},
	} {
		target := "key:k" + strings.Repeat("x", i)
		for n, step := range c.steps {
			op, service := commit.Hold, "issuer"
			if strings.ContainsRune("rix", step) {
				op = commit.Release
			}
			if strings.ContainsRune("Rr", step) {
				service = "caller:responder"
			}
			_, err := w.ask(service, rand.Text(), op, target)
			if (step == 'x') != (err != nil) || err != nil && problem.KindOf(err) != problem.Conflict {
				t.Errorf("%s: step %d of %s: %v", c.name, n+1, c.steps, err)
			}
			if err != nil && c.held && !strings.Contains(err.Error(), "quash release "+target) {
				t.Errorf("%s: %q does not say who can lift it", c.name, err)
			}
		}
		if got := w.log.View().Blocked(parse(t, target).Key()); got != c.held {
			t.Errorf("%s: held %t, want %t", c.name, got, c.held)
		}
	}
}

// TestOwnReleaseIsAnsweredAgain: as the first time, whoever holds the target since.
func TestOwnReleaseIsAnsweredAgain(t *testing.T) {
	w := newWorld(t)
	w.replica()
	must := func(a commit.Answer, err error) commit.Answer {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	must(w.ask("issuer", "h1", commit.Hold, "key:k"))
	first := must(w.ask("issuer", "r1", commit.Release, "key:k"))
	must(w.ask("caller:responder", "h2", commit.Hold, "key:k"))
	w.replica() // which remembers nothing
	if again := must(w.ask("issuer", "r1", commit.Release, "key:k")); again.Sequence != first.Sequence || !again.Repeated {
		t.Errorf("the same again: %+v, want %+v", again, first)
	}
	if !w.log.View().Blocked(parse(t, "key:k").Key()) {
		t.Error("the repetition has released what came since")
	}
	plain := func(r *commit.Request) { r.Own = false }
	if _, err := w.ask("issuer", "r1", commit.Release, "key:k", plain); problem.KindOf(err) != problem.Conflict {
		t.Errorf("something else under the same key: %v", err)
	}
}

// TestHoldThatIsOverIsNobodys: one for a time, beside one that goes on.
func TestHoldThatIsOverIsNobodys(t *testing.T) {
	w := newWorld(t)
	w.replica()
	for _, step := range []struct {
		service string
		ms      int64
	}{{"issuer", 0}, {"caller:responder", 20}} {
		if _, err := w.ask(step.service, rand.Text(), commit.Hold, "key:k", func(r *commit.Request) { r.ForMS = step.ms }); err != nil {
			t.Fatal(err)
		}
	}
	deadline := time.Now().Add(10 * time.Second)
	for {
		_, err := w.ask("issuer", rand.Text(), commit.Release, "key:k")
		if err == nil {
			break
		}
		if problem.KindOf(err) != problem.Conflict || time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	if w.log.View().Blocked(parse(t, "key:k").Key()) {
		t.Error("it is still held")
	}
}

// TestHoldThatIsToBecomeARevocationIsReleasedByNoOther: not even in the moment between its end
// and the revocation.
func TestHoldThatIsToBecomeARevocationIsReleasedByNoOther(t *testing.T) {
	w := newWorld(t)
	w.replica()
	for i := range 20 {
		target := fmt.Sprint("key:k", i)
		if _, err := w.ask("caller:responder", rand.Text(), commit.Hold, target, func(r *commit.Request) { r.ForMS, r.Then = 20, wire.ThenRevoke }); err != nil {
			t.Fatal(err)
		}
		for !w.log.View().State(parse(t, target).Key()).Ended {
			if _, err := w.ask("issuer", rand.Text(), commit.Release, target); err == nil {
				t.Fatalf("%s was released", target)
			}
		}
	}
}

func TestOwnReleaseIsOfOneTarget(t *testing.T) {
	w := newWorld(t)
	w.replica()
	for name, change := range map[string]func(*commit.Request){
		"two targets": func(r *commit.Request) {
			r.Targets = append(r.Targets, commit.Target{Kind: r.Targets[0].Kind, ID: "other"})
		},
		"of a hold":  func(r *commit.Request) { r.Of = strings.Repeat("A", 43) },
		"a hold":     func(r *commit.Request) { r.Op = commit.Hold },
		"revocation": func(r *commit.Request) { r.Op = commit.Revoke },
	} {
		if _, err := w.ask("issuer", rand.Text(), commit.Release, "key:k", change); problem.KindOf(err) != problem.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}
