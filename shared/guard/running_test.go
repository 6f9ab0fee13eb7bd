package guard_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/quash-project/quash/shared/guard"
	"github.com/quash-project/quash/shared/guard/guardtest"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// running is what was told last of an entry; false: nothing.
func running(q *guardtest.Quash, at revoke.Stamp) (n uint64, told bool) {
	var last wire.Running
	for _, r := range q.Running() {
		for _, x := range r.Running {
			if x.At == at && x.Told > last.Told {
				last, told = x, true
			}
		}
	}
	return last.Count, told
}

func wantRunning(q *guardtest.Quash, at revoke.Stamp, want uint64) {
	q.Wait(fmt.Sprintf("%d to be told of %s", want, at), func() error {
		if n, told := running(q, at); !told || n != want {
			return fmt.Errorf("told %t: %d", told, n)
		}
		return nil
	})
}

// TestWhatRunsOnAfterACutIsTold: the requests that were admitted with what was cut and
// whose context has ended, until they end; under the newest entry; and never others.
func TestWhatRunsOnAfterACutIsTold(t *testing.T) {
	q := guardtest.New(t)
	g := q.Guard()
	watch := func(subject string) (context.Context, context.CancelFunc) {
		d := decide(g, q.Token(guardtest.Token{Subject: subject, Scopes: []string{"orders:read"}}), read)
		wantAllow(t, d)
		return g.Watch(t.Context(), d.Token)
	}
	var ends []context.CancelFunc
	var last context.Context
	for range 3 {
		ctx, end := watch("bob")
		last, ends = ctx, append(ends, end)
	}
	_, early := watch("bob")
	early() // before the cut
	alice, endAlice := watch("alice")
	defer endAlice()
	hold := q.Hold("principal:bob")
	wantRunning(q, hold, 3)
	<-last.Done()
	if !errors.Is(context.Cause(last), guard.ErrHit) || alice.Err() != nil {
		t.Errorf("%v, %v", context.Cause(last), alice.Err())
	}
	cut := q.Revoke("principal:bob")
	wantRunning(q, cut, 3)
	wantRunning(q, hold, 0)
	ends[0]()
	ends[0]() // twice: once
	wantRunning(q, cut, 2)
	ends[1]()
	ends[2]()
	wantRunning(q, cut, 0)
	other := q.Revoke("principal:alice")
	wantRunning(q, other, 1)
	if n, told := running(q, cut); !told || n != 0 {
		t.Errorf("of the first cut %d", n)
	}
}
