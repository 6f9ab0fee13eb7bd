package guard_test

import (
	"context"
	"net/http"
	"testing"

	"github.com/quash-project/quash/shared/guard"
	"github.com/quash-project/quash/shared/guard/guardtest"
)

type observed struct{}

// TestObserverSeesEachDecision: in the context of its request, and with the outcome
// that the caller gets.
func TestObserverSeesEachDecision(t *testing.T) {
	q := guardtest.New(t)
	var began int
	var seen []guard.Decision
	g := q.Guard(guard.WithObserver(func(ctx context.Context) (context.Context, func(guard.Decision)) {
		if ctx.Value(observed{}) != "the request" {
			t.Error("not the context of the request")
		}
		began++
		return ctx, func(d guard.Decision) { seen = append(seen, d) }
	}))
	ctx := context.WithValue(t.Context(), observed{}, "the request")
	good, none := q.Token(guardtest.Token{Subject: "bob", Scopes: []string{"orders:read"}}), "no token"
	for i, c := range []struct {
		token  string
		status int
	}{{good, http.StatusOK}, {none, http.StatusUnauthorized}} {
		got := g.Decide(ctx, c.token, guard.Requirement{Scopes: []string{"orders:read"}})
		if began != i+1 || len(seen) != i+1 || seen[i].Status != c.status || seen[i].Check != got.Check || seen[i].Outcome != got.Outcome {
			t.Errorf("decision %+v, observed %+v", got, seen)
		}
	}
}
