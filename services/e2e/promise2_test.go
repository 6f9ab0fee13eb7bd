package e2e

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/guard/wire"
)

// Promise 2: Redis is a view. It can be flushed, lost, rolled back or evicted
// from; a reader tells "not revoked" from "view not complete", and it is rebuilt
// by itself.

// witness asks a guard without a pause about tokens that are revoked: once
// enough time has passed, none may ever be accepted again.
type witness struct {
	mu     sync.Mutex
	dead   map[string]time.Time // from then on
	wrong  atomic.Pointer[string]
	asked  atomic.Int64
	finish func()
}

func watchFor(g *resource) *witness {
	w := &witness{dead: map[string]time.Time{}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			w.mu.Lock()
			tokens := map[string]time.Time{}
			for t, from := range w.dead {
				tokens[t] = from
			}
			w.mu.Unlock()
			for token, from := range tokens {
				began := time.Now()
				d := g.decide(token)
				w.asked.Add(1)
				if d.Status == http.StatusOK && began.After(from) {
					s := fmt.Sprintf("accepted %s after it was revoked: by %s, %s old at most", began.Sub(from), d.Source, d.Staleness)
					w.wrong.CompareAndSwap(nil, &s)
				}
			}
			time.Sleep(time.Millisecond) // leaves the processor to the others
		}
	}()
	w.finish = func() { cancel(); <-done }
	return w
}

// add says that a token must not be accepted any more from a time on.
func (w *witness) add(token string, from time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dead[token] = from
}

// check ends it.
func (w *witness) check(t *testing.T) {
	t.Helper()
	w.finish()
	if s := w.wrong.Load(); s != nil {
		t.Error(*s)
	}
	if w.asked.Load() == 0 {
		t.Error("nothing was asked")
	}
}

func TestPromise2RedisIsOnlyAView(t *testing.T) {
	t.Parallel()
	redis := enginetest.Redis(t)
	s := inProcess(t, func(set *setting) { set.redis = redis })
	admin := s.token(s.operator)
	g := s.redisGuard(redis.Addr)
	_, alive := s.issue(admin, "alive")
	g.until(alive, http.StatusOK)
	w := watchFor(g)
	// revoke has the witness look from the moment on by which the view is fenced.
	revoke := func(owner string) string {
		t.Helper()
		_, token := s.issue(admin, owner)
		g.until(token, http.StatusOK)
		s.commit(admin, "revoke", "principal:"+owner)
		w.add(token, time.Now().Add(wire.RedisLimit))
		g.until(token, http.StatusUnauthorized)
		w.add(token, time.Now()) // told once, told for good
		return token
	}
	first := revoke("first")
	old := redis.Dump(t)
	meta, err := redis.Client.Get(t.Context(), wire.RedisMetaKey(0)).Result()
	if err != nil {
		t.Fatal(err)
	}
	second := revoke("second")
	config := func(pairs ...string) {
		t.Helper()
		for i := 0; i < len(pairs); i += 2 {
			if err := redis.Client.ConfigSet(t.Context(), pairs[i], pairs[i+1]).Err(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, fault := range []struct {
		name string
		do   func()
	}{
		{"flushed", func() { redis.FlushAll(t) }},
		{"killed and started empty", func() { redis.Restart(t) }},
		{"restored from an old dump", func() { redis.Load(t, old) }},
		{"away for a while", func() {
			redis.Kill()
			g.until(alive, http.StatusServiceUnavailable)
			redis.Start(t)
		}},
		{"evicting", func() {
			config("maxmemory-policy", "allkeys-random", "maxmemory", "1")
			g.until(alive, http.StatusServiceUnavailable)
			config("maxmemory", "0", "maxmemory-policy", "noeviction")
		}},
		{"meta put back by a stranger", func() {
			if err := redis.Client.Set(t.Context(), wire.RedisMetaKey(0), meta, 0).Err(); err != nil {
				t.Fatal(err)
			}
		}},
		{"meta overwritten by a stranger", func() {
			if err := redis.Client.Set(t.Context(), wire.RedisMetaKey(0), "hello", 0).Err(); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		fault.do()
		// What nobody revoked is accepted again once the view is whole, by itself.
		eventually(t, fault.name+": rebuilt", func() error {
			if d := g.decide(alive); d.Status != http.StatusOK {
				return fmt.Errorf("%d: %s", d.Status, d.Reason)
			}
			return nil
		})
		for name, token := range map[string]string{"first": first, "second": second} {
			if d := g.decide(token); d.Status != http.StatusUnauthorized && d.Status != http.StatusServiceUnavailable {
				t.Errorf("%s: the %s revoked token: %d", fault.name, name, d.Status)
			}
			g.until(token, http.StatusUnauthorized)
		}
		if w.wrong.Load() != nil {
			t.Errorf("%s: a revoked token was accepted", fault.name)
			break
		}
	}
	w.check(t)
	s.fsck(redis)
}

// What a stranger takes out of a view that is otherwise whole comes back.
func TestPromise2EntriesRemovedByAStrangerComeBack(t *testing.T) {
	t.Parallel()
	redis := enginetest.Redis(t)
	s := inProcess(t, func(set *setting) { set.redis = redis })
	admin := s.token(s.operator)
	g := s.redisGuard(redis.Addr)
	_, token := s.issue(admin, "alice")
	g.until(token, http.StatusOK)
	s.commit(admin, "revoke", "principal:alice")
	g.until(token, http.StatusUnauthorized)
	keys, err := redis.Client.Keys(t.Context(), wire.RedisTargetPrefix(0)+"*").Result()
	if err != nil || len(keys) == 0 {
		t.Fatalf("%d entries, %v", len(keys), err)
	}
	if err := redis.Client.Del(t.Context(), keys...).Err(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the entry is back", func() error { return redis.Client.Get(t.Context(), keys[0]).Err() })
	g.until(token, http.StatusUnauthorized)
	s.fsck(redis)
}
