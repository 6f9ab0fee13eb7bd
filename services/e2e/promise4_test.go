package e2e

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/guard"
	"github.com/quash-project/quash/shared/guard/guardhttp"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// Promise 4: a guard knows an upper bound of its staleness at every decision,
// and past its limit does what its owner chose.

// farGuard starts a guard whose way to NATS leads through a proxy.
func (s *services) farGuard(name string, opts ...guard.Option) (*resource, *enginetest.Proxy) {
	s.t.Helper()
	p := enginetest.NewProxy(s.t, strings.TrimPrefix(s.nats.URL, "nats://"))
	return s.guard(append([]guard.Option{guard.WithNATS("nats://"+p.Addr, s.nats.Creds(s.t, name))}, opts...)...), p
}

// truth notes what was committed when, and holds what a guard claims against it.
type truth struct {
	t     *testing.T
	limit time.Duration
	mu    sync.Mutex
	acked []truthEntry // in the order of their positions
}

type truthEntry struct {
	at       revoke.Stamp
	answered time.Time
}

// commitAll revokes one thing after another until ctx ends.
func (x *truth) commitAll(ctx context.Context, s *services, admin string) {
	for i := 0; ctx.Err() == nil; i++ {
		r := s.commit(admin, "revoke", fmt.Sprintf("token:t%d", i))
		x.mu.Lock()
		x.acked = append(x.acked, truthEntry{revoke.Stamp{Epoch: r.Epoch, Seq: r.Sequence}, time.Now()})
		x.mu.Unlock()
		time.Sleep(20 * time.Millisecond) // so many that each decision has a recent one to be held against
	}
}

// judge asks for a decision and holds it against what was committed: everything
// that was answered longer ago than the guard says that it is stale must be in.
func (x *truth) judge(g *resource, token string, req guard.Requirement) guard.Decision {
	x.t.Helper()
	began := time.Now()
	d := g.Decide(context.Background(), token, req)
	if d.Status != http.StatusOK {
		return d
	}
	if d.Staleness > x.limit {
		x.t.Errorf("accepted by a view that may be %s old, past its limit of %s", d.Staleness, x.limit)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, e := range x.acked {
		if d.Watermark.Less(e.at) {
			if age := began.Sub(e.answered); age > d.Staleness {
				x.t.Errorf("claims to be %s old, and lacks %s, which was answered %s ago", d.Staleness, e.at, age)
			}
			break
		}
	}
	return d
}

func TestPromise4AGuardNeverClaimsLessThanItsStaleness(t *testing.T) {
	t.Parallel()
	s := inProcess(t)
	admin := s.token(s.operator)
	const limit = 2 * time.Second
	g, p := s.farGuard("orders", guard.WithLimit(limit))
	g.ready()
	_, token := s.issue(admin, "alice")
	g.until(token, http.StatusOK)

	x := &truth{t: t, limit: limit}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); x.commitAll(ctx, s, admin) }()
	defer func() { cancel(); <-done }()
	look := func(until func(guard.Decision) bool) {
		t.Helper()
		eventually(t, "the guard does what it must", func() error {
			if d := x.judge(g, token, guard.Requirement{}); !until(d) {
				return fmt.Errorf("%d, %s old: %s", d.Status, d.Staleness, d.Reason)
			}
			return nil
		})
	}
	fresh := func(d guard.Decision) bool { return d.Status == http.StatusOK && d.Staleness < limit/2 }
	stopped := func(d guard.Decision) bool { return d.Status == http.StatusServiceUnavailable }
	look(fresh)
	for _, fault := range []struct {
		name     string
		do, undo func()
	}{
		{"frozen", func() { p.Freeze() }, p.Thaw},
		// The feed goes on, with its ticks and heartbeats, and no probe gets through.
		{"frozen up", func() { p.Freeze(enginetest.Up) }, p.Thaw},
		{"frozen down", func() { p.Freeze(enginetest.Down) }, p.Thaw},
		{"cut off", func() { p.Cut(true) }, func() { p.Cut(false) }},
	} {
		fault.do()
		since := time.Now()
		look(stopped)
		// Nothing proves anything from the fault on, so the limit is the end.
		for range 50 {
			began := time.Now()
			if d := x.judge(g, token, guard.Requirement{}); d.Status == http.StatusOK && began.Sub(since) > limit {
				t.Errorf("%s: accepted %s after, with a limit of %s", fault.name, began.Sub(since), limit)
			}
			time.Sleep(2 * time.Millisecond) // a hundred milliseconds of looking
		}
		fault.undo()
		look(fresh)
	}
	for _, late := range []time.Duration{30 * time.Millisecond, 150 * time.Millisecond} {
		p.Delay(late)
		for range 200 {
			x.judge(g, token, guard.Requirement{})
			time.Sleep(5 * time.Millisecond) // a second of looking
		}
	}
	p.Delay(0)
	look(fresh)
}

// A route may ask for a probe before each answer: then a revocation that was
// answered before the request is seen, however late the feed is.
func TestPromise4AProbeBeforeTheAnswer(t *testing.T) {
	t.Parallel()
	s := inProcess(t)
	admin := s.token(s.operator)
	g, p := s.farGuard("orders")
	g.ready()
	probe := guard.Requirement{MaxStale: guard.Probe}
	p.Delay(60 * time.Millisecond)
	for i := range 5 {
		owner := fmt.Sprintf("alice%d", i)
		_, token := s.issue(admin, owner)
		if d := g.Decide(t.Context(), token, probe); d.Status != http.StatusOK {
			t.Fatalf("a living token: %d: %s", d.Status, d.Reason)
		}
		s.commit(admin, "revoke", "principal:"+owner)
		if d := g.Decide(t.Context(), token, probe); d.Status != http.StatusUnauthorized {
			t.Errorf("asked after the answer, with a probe: %d, %s old", d.Status, d.Staleness)
		}
	}
	p.Delay(0)
	_, token := s.issue(admin, "bob")
	g.until(token, http.StatusOK)
	p.Freeze()
	if d := g.Decide(t.Context(), token, probe); d.Status != http.StatusServiceUnavailable {
		t.Errorf("no probe is answered: %d", d.Status)
	}
}

func TestPromise4PastItsLimitAGuardDoesWhatItsOwnerChose(t *testing.T) {
	t.Parallel()
	redis := enginetest.Redis(t)
	s := inProcess(t, func(set *setting) { set.redis = redis })
	admin := s.token(s.operator)
	const limit = time.Second
	deny, p1 := s.farGuard("denies", guard.WithLimit(limit))
	ask, p2 := s.farGuard("asks", guard.WithLimit(limit), guard.WithPast(wire.PastRedis), guard.WithRedis(s.denylist(redis.Addr)))
	allow, p3 := s.farGuard("allows", guard.WithLimit(limit), guard.WithPast(wire.PastAllow))
	_, alive := s.issue(admin, "alive")
	_, dead := s.issue(admin, "dead")
	for _, g := range []*resource{deny, ask, allow} {
		g.ready()
		g.until(alive, http.StatusOK)
		g.until(dead, http.StatusOK)
	}
	for _, p := range []*enginetest.Proxy{p1, p2, p3} {
		p.Freeze()
	}
	r := s.commit(admin, "revoke", "principal:dead")

	deny.until(alive, http.StatusServiceUnavailable)
	answer := httptest.NewRecorder()
	req := httptest.NewRequest(http.MethodGet, "/orders", nil)
	req.Header.Set("Authorization", "Bearer "+alive)
	guardhttp.Require(deny, guard.Requirement{})(http.NotFoundHandler()).ServeHTTP(answer, req)
	if after, err := strconv.Atoi(answer.Header().Get("Retry-After")); answer.Code != http.StatusServiceUnavailable || err != nil || after < 1 {
		t.Errorf("past its limit over HTTP: %d, Retry-After %q", answer.Code, answer.Header().Get("Retry-After"))
	}
	if h := answer.Header().Get("WWW-Authenticate"); h != "" {
		t.Errorf("503 says of the token: %s", h)
	}

	eventually(t, "past its limit it asks Redis", func() error {
		if d := ask.decide(alive); d.Status != http.StatusOK || d.Source != guard.SourceRedis {
			return fmt.Errorf("%d by %s: %s", d.Status, d.Source, d.Reason)
		}
		return nil
	})
	ask.until(dead, http.StatusUnauthorized)
	redis.Kill()
	ask.until(alive, http.StatusServiceUnavailable)

	eventually(t, "past its limit it allows, and says so", func() error {
		if d := allow.decide(alive); d.Status != http.StatusOK || d.Source != guard.SourceStale || d.Staleness <= limit {
			return fmt.Errorf("%d by %s, %s old", d.Status, d.Source, d.Staleness)
		}
		return nil
	})
	// The one who answers for it is told: this guard is open, and the whole is not
	// called complete.
	var told receipt
	s.decode(s.api(admin, http.MethodGet, "/v1/revocations/"+r.ID, nil), http.StatusOK, &told)
	open := 0
	for _, u := range told.Unconfirmed {
		switch {
		case u.Name == "allows" && u.Open:
			open++
		case u.Name == "denies" && u.Open, u.Name == "asks" && u.Open:
			t.Errorf("%s is called open", u.Name)
		}
	}
	if open != 1 || told.Complete {
		t.Errorf("the receipt of a revocation that an allowing guard has not: %+v", told)
	}
}
