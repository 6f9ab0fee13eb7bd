package kvstore

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap/zaptest"

	"github.com/quash-project/quash/services/issuer"
	"github.com/quash-project/quash/shared/apikey"
	"github.com/quash-project/quash/shared/endings"
	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/identity"
	"github.com/quash-project/quash/shared/kv"
	"github.com/quash-project/quash/shared/problem"
)

func start(t *testing.T, n *enginetest.NATSServer, now func() time.Time) *Store {
	t.Helper()
	s, err := New(Config{NATS: n.Dial(t, "issuer"), Log: zaptest.NewLogger(t), Now: now, Rand: rand.Reader})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	enginetest.Eventually(t, "the store is ready", s.Ready)
	return s
}

func role(name string) issuer.Role {
	return issuer.Role{ID: name + "-id", Tenant: "default", Name: name, Scopes: []string{"a"}, Created: time.Now().UTC().Truncate(time.Millisecond)}
}

func TestCreateNeverReplaces(t *testing.T) {
	s := start(t, enginetest.NATS(t), time.Now)
	r := role("x")
	for range 2 { // the same once more is the lost answer of the first
		if err := s.Roles.Create(t.Context(), "default.x", r); err != nil {
			t.Fatal(err)
		}
	}
	r.Scopes = []string{"b"}
	if err := s.Roles.Create(t.Context(), "default.x", r); problem.KindOf(err) != problem.Conflict {
		t.Errorf("another record: %v", err)
	}
	got, err := s.Roles.Load(t.Context(), "default.x")
	if err != nil || !slices.Equal(got.Scopes, []string{"a"}) {
		t.Errorf("%+v, %v", got, err)
	}
	if err := s.Roles.Remove(t.Context(), "default.x", func(issuer.Role) bool { return true }); err != nil {
		t.Fatal(err)
	}
	if err := s.Roles.Create(t.Context(), "default.x", r); err != nil {
		t.Errorf("after it was removed: %v", err)
	}
}

// A turn is one's alone, of all replicas; who waits for it gets it, and it leaves no record.
func TestATurnIsOnesAlone(t *testing.T) {
	n := enginetest.NATS(t)
	a, b := start(t, n, time.Now), start(t, n, time.Now)
	enginetest.Eventually(t, "turns can be had", func() error {
		for _, s := range []*Store{a, b} {
			done, err := s.Turn(t.Context(), "first")
			if err != nil {
				return err
			}
			done()
		}
		return nil
	})
	var inside, most atomic.Int32
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			done, err := []*Store{a, b}[i%2].Turn(context.Background(), "acme")
			if err != nil {
				t.Error(err)
				return
			}
			most.Store(max(most.Load(), inside.Add(1)))
			if other, err := a.Turn(context.Background(), fmt.Sprint("other-", i)); err != nil { // of another name
				t.Error(err)
			} else {
				other()
			}
			inside.Add(-1)
			done()
		})
	}
	wg.Wait()
	if most.Load() != 1 {
		t.Errorf("%d had the turn at once", most.Load())
	}
	held, err := a.Turn(t.Context(), "acme")
	if err != nil {
		t.Fatal(err)
	}
	defer held()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := b.Turn(ctx, "acme"); err == nil {
		t.Error("a second one has the turn")
	}
	if keys, err := a.Uses.Stored(t.Context(), "acme"); err != nil || len(keys) > 0 {
		t.Errorf("%q stands in the store, %v", keys, err)
	}
}

func TestChangeLosesNoChange(t *testing.T) {
	n := enginetest.NATS(t)
	a, b := start(t, n, time.Now), start(t, n, time.Now)
	if err := a.Roles.Create(t.Context(), "default.x", role("x")); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Go(func() {
			table := []issuer.Table[issuer.Role]{a.Roles, b.Roles}[i%2]
			_, err := table.Change(context.Background(), "default.x", func(r issuer.Role) (issuer.Role, error) {
				r.Scopes = append(slices.Clone(r.Scopes), fmt.Sprint(i))
				return r, nil
			})
			if err != nil {
				t.Errorf("change %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	got, err := a.Roles.Load(t.Context(), "default.x")
	if err != nil || len(got.Scopes) != 11 {
		t.Errorf("%+v, %v", got.Scopes, err)
	}
}

func TestCopyFollowsAndWritersSeeTheirOwn(t *testing.T) {
	n := enginetest.NATS(t)
	a, b := start(t, n, time.Now), start(t, n, time.Now)
	for i := range 5 {
		name := fmt.Sprint("r", i)
		x := issuer.Binding{Tenant: "default", Subject: "alice", Role: issuer.RoleRef{ID: name}}
		if err := a.Bindings.Create(t.Context(), "default."+name, x); err != nil {
			t.Fatal(err)
		}
		if got := len(a.Bindings.Group(issuer.SubjectGroup("default", "alice"))); got != i+1 {
			t.Fatalf("the writer's copy has %d of %d", got, i+1)
		}
	}
	enginetest.Eventually(t, "the other replica has them", func() error {
		if got := len(b.Bindings.Group(issuer.SubjectGroup("default", "alice"))); got != 5 {
			return fmt.Errorf("%d", got)
		}
		return nil
	})
	_, err := a.Bindings.Change(t.Context(), "default.r0", func(x issuer.Binding) (issuer.Binding, error) {
		x.Mark = &endings.Mark{ID: "m"}
		return x, nil
	})
	if err != nil || len(a.Bindings.Group(issuer.MarkedGroup)) != 1 {
		t.Errorf("marked: %v, %v", a.Bindings.Group(issuer.MarkedGroup), err)
	}
	if err := a.Bindings.Remove(t.Context(), "default.r0", func(x issuer.Binding) bool { return x.Mark != nil }); err != nil {
		t.Fatal(err)
	}
	if len(a.Bindings.Group(issuer.MarkedGroup)) != 0 || len(a.Bindings.Group(issuer.SubjectGroup("default", "alice"))) != 4 {
		t.Error("the writer's copy still has what it removed")
	}
	// What a copy does not have yet is in the store.
	if _, err := b.Bindings.Get(t.Context(), "default.r1"); err != nil {
		t.Error(err)
	}
	if _, err := b.Bindings.Get(t.Context(), "default.none"); problem.KindOf(err) != problem.NotFound {
		t.Errorf("nothing: %v", err)
	}
}

// A fresh copy has what others had written; one that hears nothing does not say that it is.
func TestFreshCopyHasAllThatWasWritten(t *testing.T) {
	n := enginetest.NATS(t)
	a := start(t, n, time.Now)
	b, err := New(Config{NATS: n.Dial(t, "issuer"), Log: zaptest.NewLogger(t), Now: time.Now, Rand: rand.Reader})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Bindings.Fresh(t.Context()); problem.KindOf(err) != problem.Unavailable {
		t.Errorf("before it runs: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	enginetest.Eventually(t, "the other replica is ready", b.Ready)
	for i := range 50 {
		x := issuer.Binding{Tenant: "default", Subject: "alice", Role: issuer.RoleRef{ID: fmt.Sprint("r", i)}}
		if err := a.Bindings.Create(t.Context(), "default."+x.Role.ID, x); err != nil {
			t.Fatal(err)
		}
		if err := b.Bindings.Fresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := b.Bindings.Size(issuer.SubjectGroup("default", "alice")); got != i+1 {
			t.Fatalf("a fresh copy has %d of %d", got, i+1)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := b.Bindings.Fresh(t.Context()); problem.KindOf(err) != problem.Unavailable {
		t.Errorf("a copy that hears nothing any more: %v", err)
	}
}

// A broker that was killed has lost the consumers of watches: the copy is followed again once
// somebody misses what was written, and not when the client has missed heartbeats.
func TestDeadWatchIsBegunAgain(t *testing.T) {
	n := enginetest.NATS(t)
	s := start(t, n, time.Now)
	js, err := jetstream.New(n.Admin(t, identity.Control))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		names, err := js.Stream(t.Context(), kv.StreamPrefix+"roles")
		if err != nil {
			t.Fatal(err)
		}
		for name := range names.ConsumerNames(t.Context()).Name() {
			if err := names.DeleteConsumer(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		}
		began := time.Now()
		enginetest.Eventually(t, "the copy is fresh again", func() error { return s.Roles.Fresh(t.Context()) })
		if took := time.Since(began); took > beatBack {
			t.Errorf("only after %v", took)
		}
	}
}

func TestCopyThatShowsNoWriteIsNotUsed(t *testing.T) {
	n := enginetest.NATS(t)
	var ahead atomic.Int64
	s := start(t, n, func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) })
	ahead.Store(int64(copyLife) - int64(time.Minute))
	if err := s.Ready(); err != nil {
		t.Errorf("within its life: %v", err)
	}
	ahead.Store(int64(copyLife) + int64(time.Second))
	if s.Ready() == nil {
		t.Error("a copy of which nothing is known for 10 minutes is used")
	}
}

func TestRecordsVanishAfterTheirEndOnly(t *testing.T) {
	n := enginetest.NATS(t)
	s := start(t, n, time.Now)
	secret, err := apikey.Generate(rand.Reader, apikey.Key)
	if err != nil {
		t.Fatal(err)
	}
	id := apikey.ID(secret.Reveal())
	k := issuer.Key{ID: id, Kind: issuer.APIKey, Tenant: "default", Hash: apikey.HashOf(secret.Reveal()), Owner: "alice", Expires: time.Now().Add(time.Hour)}
	if err := s.Keys.Create(t.Context(), "default."+id, k); err != nil {
		t.Fatal(err)
	}
	k, err = s.Keys.Change(t.Context(), "default."+id, func(k issuer.Key) (issuer.Key, error) { k.Name = "x"; return k, nil })
	if err != nil {
		t.Fatal(err)
	}
	js, err := jetstream.New(n.Conn(t, "issuer"))
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), "KV_keys")
	if err != nil {
		t.Fatal(err)
	}
	info := stream.CachedInfo()
	if info.Config.AllowDirect {
		t.Error("reads may be answered by any replica")
	}
	found := 0
	for seq := uint64(1); seq <= info.State.LastSeq; seq++ {
		m, err := stream.GetMsg(t.Context(), seq)
		if err != nil || m.Subject != "$KV.keys.default."+id {
			continue
		}
		found++
		ttl, err := time.ParseDuration(m.Header.Get("Nats-TTL"))
		if err != nil || ttl < afterEnd || ttl > afterEnd+time.Hour {
			t.Errorf("revision %d has the time to live %q", seq, m.Header.Get("Nats-TTL"))
		}
	}
	if found != 2 {
		t.Errorf("%d revisions", found)
	}
	got, err := s.Keys.Load(t.Context(), "default."+id)
	if err != nil || got.Name != "x" || !got.Hash.Equal(k.Hash) {
		t.Errorf("%+v, %v", got, err)
	}
}
