package idempotency_test

import (
	"context"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/idempotency"
	"github.com/quash-project/quash/shared/identity"
	"github.com/quash-project/quash/shared/problem"
)

func open(t *testing.T, n *enginetest.NATSServer, user string) *idempotency.Bucket {
	t.Helper()
	b, err := idempotency.NewBucket(n.Dial(t, user), 1, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	return b
}

// Issuer and revocation have their own, with just the rights of their users; what is
// in one is forgotten after a day.
func TestEachServiceThatNeedsOneCanOpenItsBucket(t *testing.T) {
	n := enginetest.NATS(t)
	name := idempotency.NameOf("default", "alice", "k")
	for user, account := range map[string]string{identity.Issuer: identity.Control, identity.Revocation: identity.Log} {
		b := open(t, n, user)
		if _, _, err := b.Begin(t.Context(), name, idempotency.Note{Digest: user, Seed: "s"}); err != nil {
			t.Fatalf("%s: %v", user, err)
		}
		js, err := jetstream.New(n.Admin(t, account))
		if err != nil {
			t.Fatal(err)
		}
		s, err := js.Stream(t.Context(), "KV_"+identity.Requests)
		if err != nil {
			t.Fatalf("%s: %v", user, err)
		}
		c := s.CachedInfo().Config
		if c.MaxAge != idempotency.Life || c.AllowDirect || c.Storage != jetstream.FileStorage {
			t.Errorf("%s: kept for %v, AllowDirect %v, %v", user, c.MaxAge, c.AllowDirect, c.Storage)
		}
	}
	b, err := idempotency.NewBucket(n.Dial(t, identity.Rotator), 1, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	_ = b.Run(ctx) // tries until ctx ends: it has no right
	if _, _, err := b.Begin(t.Context(), name, idempotency.Note{}); problem.KindOf(err) != problem.Unavailable {
		t.Errorf("the rotator: %v", err)
	}
}

func TestOneOfManyBegins(t *testing.T) {
	n := enginetest.NATS(t)
	replicas := []*idempotency.Bucket{open(t, n, identity.Issuer), open(t, n, identity.Issuer)}
	const askers = 100
	name := idempotency.NameOf("default", "alice", "k")
	seeds := make([]string, askers)
	var wg sync.WaitGroup
	for i := range askers {
		wg.Go(func() {
			stands, rev, err := replicas[i%2].Begin(t.Context(), name, idempotency.Note{Seed: strconv.Itoa(i)})
			if err != nil || rev == 0 {
				t.Errorf("%d: revision %d, %v", i, rev, err)
			}
			seeds[i] = stands.Seed
		})
	}
	wg.Wait()
	for i, s := range seeds {
		if s != seeds[0] || s == "" {
			t.Fatalf("%d found the seed %q, the first %q", i, s, seeds[0])
		}
	}
}

func TestNotesAreWrittenAndDroppedByWhoHasTheirRevision(t *testing.T) {
	b := open(t, enginetest.NATS(t), identity.Issuer)
	ctx, name := t.Context(), idempotency.NameOf("default", "alice", "k")
	note := idempotency.Note{Digest: "d", Seed: "one"}
	_, rev, err := b.Begin(ctx, name, note)
	if err != nil {
		t.Fatal(err)
	}
	note.Makes = "key:x"
	next, err := b.Write(ctx, name, note, rev)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := b.Write(ctx, name, note, rev); err != nil || again != next {
		t.Errorf("the same written again, as after a lost answer: revision %d, %v; want %d", again, err, next)
	}
	if _, err := b.Write(ctx, name, idempotency.Note{Seed: "late"}, rev); problem.KindOf(err) != problem.Conflict {
		t.Errorf("over another's: %v", err)
	}
	if err := b.Drop(ctx, name, rev); err != nil {
		t.Error(err)
	}
	if stands, _, err := b.Begin(ctx, name, idempotency.Note{Seed: "two"}); err != nil || stands.Seed != "one" || stands.Makes != "key:x" {
		t.Errorf("dropped by who has it no more: %+v, %v", stands, err)
	}
	if err := b.Drop(ctx, name, next); err != nil {
		t.Error(err)
	}
	if stands, _, err := b.Begin(ctx, name, idempotency.Note{Seed: "two"}); err != nil || stands.Seed != "two" {
		t.Errorf("after it was dropped: %+v, %v", stands, err)
	}
}
