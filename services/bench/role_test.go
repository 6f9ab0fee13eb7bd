package bench

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/quash-project/quash/services/issuer"
	"github.com/quash-project/quash/services/issuer/kvstore"
	"github.com/quash-project/quash/shared/endings"
	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/identity"
	"github.com/quash-project/quash/shared/problem"
)

const (
	// bareRemovals is how many records are removed by a bare client.
	bareRemovals = 1_000
	// goneIn is how long the issuer may take until it has removed another record.
	goneIn = 2 * time.Minute
)

// BenchmarkRole: a role with 100,000 bindings is deleted: how many entries that
// commits, how long it takes until it is answered, and until all its records are gone.
// The peer reads and deletes bindings of another role, one after the other; it does so
// with 1,000, and the time is that for all of them.
func BenchmarkRole(b *testing.B) {
	n := storedOr(100_000)
	dir := b.TempDir()
	large, other := storedRole("large"), storedRole("other")
	fill(b, dir, 2, func(ctx context.Context, s *kvstore.Store, i int) error {
		r := []issuer.Role{large, other}[i]
		return s.Roles.Create(ctx, issuer.RoleKey(r.Tenant, r.Name), r)
	})
	fill(b, dir, n+bareRemovals, func(ctx context.Context, s *kvstore.Store, i int) error {
		r := large
		if i >= n {
			r = other
		}
		x := storedBinding(i, r)
		return s.Bindings.Create(ctx, issuer.BindingKey(x.Tenant, x.Subject, x.Role.ID), x)
	})
	w := newIssuing(b, enginetest.NATSIn(b, dir))
	w.start(b)
	s := w.watchStore(b)
	if have := s.Bindings.Size(issuer.RoleGroup("default", large.ID)); have != n {
		b.Fatalf("the role has %d bindings of %d", have, n)
	}
	for b.Loop() {
		bare := w.removeBare(b, n, other)
		before := w.entries(b)
		began := time.Now()
		w.api(b, http.MethodDelete, "/v1/roles/large?reason=bench", nil, http.StatusOK, nil)
		answered := time.Since(began)
		waitGone(b, s, large)
		gone := time.Since(began)
		b.ReportMetric(float64(n), "bindings")
		b.ReportMetric(float64(w.entries(b)-before), "entries")
		b.ReportMetric(millis(answered), "answered-ms")
		b.ReportMetric(gone.Seconds(), "gone-s")
		b.ReportMetric(bare.Seconds(), "bare-s")
	}
}

func storedRole(name string) issuer.Role {
	at := time.Now().UTC().Truncate(time.Millisecond)
	return issuer.Role{
		ID: name + "-id-of-22-letters", Tenant: "default", Name: name, Scopes: []string{"orders:read"}, Created: at,
		Meta: endings.Meta{Actor: "operator", Reason: "ticket 4711", At: at},
	}
}

func storedBinding(i int, r issuer.Role) issuer.Binding {
	return issuer.Binding{Tenant: r.Tenant, Subject: fmt.Sprintf("user-%d@example.com", i), Role: r.Ref(), Created: r.Created, Meta: r.Meta}
}

// watchStore opens a store beside the issuer's, as another replica has it.
func (w *issuing) watchStore(b *testing.B) *kvstore.Store {
	b.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s, stopped := openStore(b, ctx, w.nats.Dial(b, identity.Issuer))
	b.Cleanup(func() { cancel(); stopped() })
	return s
}

// entries is how many entries the log has.
func (w *issuing) entries(b *testing.B) int {
	b.Helper()
	js, err := jetstream.New(w.nats.Admin(b, identity.Log))
	if err != nil {
		b.Fatal(err)
	}
	s, err := js.Stream(b.Context(), wire.Stream)
	if err != nil {
		b.Fatal(err)
	}
	info, err := s.Info(b.Context(), jetstream.WithSubjectFilter(wire.LogEntry+"*"))
	if err != nil {
		b.Fatal(err)
	}
	return len(info.State.Subjects)
}

// removeBare removes the bindings of a role, and returns how long n of them take.
func (w *issuing) removeBare(b *testing.B, n int, r issuer.Role) time.Duration {
	b.Helper()
	js, err := jetstream.New(w.nats.Dial(b, identity.Issuer))
	if err != nil {
		b.Fatal(err)
	}
	bucket, err := js.KeyValue(b.Context(), "bindings")
	if err != nil {
		b.Fatal(err)
	}
	began := time.Now()
	for i := n; i < n+bareRemovals; i++ {
		x := storedBinding(i, r)
		e, err := bucket.Get(b.Context(), issuer.BindingKey(x.Tenant, x.Subject, x.Role.ID))
		if err == nil {
			err = bucket.Delete(b.Context(), e.Key(), jetstream.LastRevision(e.Revision()))
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	return time.Since(began) * time.Duration(n) / bareRemovals
}

// waitGone waits until neither the role nor a binding of it is left.
func waitGone(b *testing.B, s *kvstore.Store, r issuer.Role) {
	b.Helper()
	group := issuer.RoleGroup(r.Tenant, r.ID)
	left, since := s.Bindings.Size(group), time.Now()
	for {
		now := s.Bindings.Size(group)
		if now == 0 {
			_, err := s.Roles.Load(b.Context(), issuer.RoleKey(r.Tenant, r.Name))
			if err != nil && problem.KindOf(err) == problem.NotFound {
				return
			}
		}
		if now != left {
			left, since = now, time.Now()
		}
		if time.Since(since) > goneIn {
			b.Fatalf("%d bindings are left, and none was removed for %s", left, goneIn)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
