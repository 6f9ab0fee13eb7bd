package ledger

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/problem"
)

// faulty is JetStream with a fault at each publish of an entry.
type faulty struct {
	jetstream.JetStream
	publish atomic.Pointer[func(ctx context.Context, m *nats.Msg, real func() (*jetstream.PubAck, error)) (*jetstream.PubAck, error)]
}

func (f *faulty) PublishMsg(ctx context.Context, m *nats.Msg, opts ...jetstream.PublishOpt) (*jetstream.PubAck, error) {
	real := func() (*jetstream.PubAck, error) { return f.JetStream.PublishMsg(ctx, m, opts...) }
	if fn := f.publish.Load(); fn != nil && m.Subject != wire.LogTick {
		return (*fn)(ctx, m, real)
	}
	return real()
}

func startFaulty(t testing.TB) (*running, *faulty) {
	t.Helper()
	f := &faulty{}
	l := start(t, enginetest.NATS(t).Conn(t, "revocation"), func(c *Config) {
		c.wrap = func(js jetstream.JetStream) jetstream.JetStream { f.JetStream = js; return f }
	})
	return l, f
}

func (f *faulty) set(fn func(ctx context.Context, m *nats.Msg, real func() (*jetstream.PubAck, error)) (*jetstream.PubAck, error)) {
	f.publish.Store(&fn)
}

func TestCommitAnswersAfterTheAcknowledgement(t *testing.T) {
	l, f := startFaulty(t)
	stored, goOn := make(chan struct{}), make(chan struct{})
	f.set(func(_ context.Context, _ *nats.Msg, real func() (*jetstream.PubAck, error)) (*jetstream.PubAck, error) {
		close(stored)
		<-goOn
		return real()
	})
	answered := make(chan error, 1)
	go func() {
		_, err := l.Commit(context.Background(), request("k", commit.Revoke, "principal:alice"), "test")
		answered <- err
	}()
	<-stored
	select {
	case err := <-answered:
		t.Fatalf("answered before the broker: %v", err)
	case <-time.After(100 * time.Millisecond): // long enough for an answer that waits for nothing
	}
	if l.View().Hit(keyOf("principal:alice"), revoke.Stamp{Epoch: 1, Seq: 1}) {
		t.Fatal("in the view before it is in the log")
	}
	close(goOn)
	if err := <-answered; err != nil {
		t.Fatal(err)
	}
}

func TestLostAcknowledgementIsReadBack(t *testing.T) {
	l, f := startFaulty(t)
	var tries atomic.Int32
	f.set(func(_ context.Context, _ *nats.Msg, real func() (*jetstream.PubAck, error)) (*jetstream.PubAck, error) {
		ack, err := real()
		if tries.Add(1) == 1 {
			return nil, nats.ErrTimeout
		}
		return ack, err
	})
	a := mustCommit(t, l.Ledger, request("k", commit.Revoke, "principal:alice"))
	if a.Repeated || tries.Load() != 2 {
		t.Fatalf("%+v after %d tries: want the first one's answer, not called a repetition", a, tries.Load())
	}
	again := mustCommit(t, l.Ledger, request("k", commit.Revoke, "principal:alice"))
	if again.Sequence != a.Sequence || !again.Repeated {
		t.Fatalf("again %+v, first %+v", again, a)
	}
}

func TestOutcomeThatStaysUnknownIsSaidToBe(t *testing.T) {
	for name, stores := range map[string]bool{"stored": true, "not stored": false} {
		t.Run(name, func(t *testing.T) {
			l, f := startFaulty(t)
			f.set(func(_ context.Context, _ *nats.Msg, real func() (*jetstream.PubAck, error)) (*jetstream.PubAck, error) {
				if stores {
					_, _ = real()
				}
				return nil, nats.ErrTimeout
			})
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			_, err := l.Commit(ctx, request("k", commit.Revoke, "principal:alice"), "test")
			if p := problem.From(err); p.Kind != problem.UnknownOutcome || p.Key != "k" {
				t.Fatalf("%v: want an unknown outcome with the key to repeat with", err)
			}
			f.publish.Store(nil)
			if a := mustCommit(t, l.Ledger, request("k", commit.Revoke, "principal:alice")); a.Repeated != stores {
				t.Fatalf("the repetition: %+v", a)
			}
		})
	}
}

func TestWhatCertainlyWasNotStoredIsUnavailable(t *testing.T) {
	for name, err := range map[string]error{
		"nobody listens":       jetstream.ErrNoStreamResponse,
		"disconnected":         nats.ErrReconnectBufExceeded,
		"another in flight":    &jetstream.APIError{ErrorCode: jetstream.JSErrCodeStreamWrongLastSequenceConstant},
		"insufficient storage": &jetstream.APIError{ErrorCode: 10047},
	} {
		t.Run(name, func(t *testing.T) {
			if got := classify(fmt.Errorf("nats: %w", err)); !errors.Is(got, errNotStored) || errors.Is(got, errUnknown) {
				t.Fatalf("classified as %v", got)
			}
		})
	}
	l, f := startFaulty(t)
	var tries atomic.Int32
	f.set(func(_ context.Context, _ *nats.Msg, real func() (*jetstream.PubAck, error)) (*jetstream.PubAck, error) {
		if tries.Add(1) < 3 {
			return nil, &jetstream.APIError{ErrorCode: jetstream.JSErrCodeStreamWrongLastSequenceConstant}
		}
		return real()
	})
	if a := mustCommit(t, l.Ledger, request("k", commit.Revoke, "principal:alice")); a.Repeated {
		t.Fatalf("%+v: 10164 is no sign of somebody else", a)
	}
	f.set(func(context.Context, *nats.Msg, func() (*jetstream.PubAck, error)) (*jetstream.PubAck, error) {
		return nil, jetstream.ErrNoStreamResponse
	})
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := l.Commit(ctx, request("k2", commit.Revoke, "principal:alice"), "test"); problem.KindOf(err) != problem.Unavailable {
		t.Fatalf("%v: want unavailable", err)
	}
}

func TestOneOfManySameRequestsIsStored(t *testing.T) {
	l := start(t, enginetest.NATS(t).Conn(t, "revocation"), nil)
	answers := make(chan commit.Answer, 32)
	for range cap(answers) {
		go func() {
			a, err := l.Commit(context.Background(), request("k", commit.Revoke, "principal:alice"), "test")
			if err != nil {
				t.Errorf("commit: %v", err)
			}
			answers <- a
		}()
	}
	first := 0
	var seq uint64
	for range cap(answers) {
		a := <-answers
		if seq == 0 {
			seq = a.Sequence
		}
		if a.Sequence != seq {
			t.Errorf("at %d and at %d", a.Sequence, seq)
		}
		if !a.Repeated {
			first++
		}
	}
	if first != 1 {
		t.Errorf("%d of the same request say that they were the first", first)
	}
}

func TestServiceCommitsNothingBeforeItHasReadTheLog(t *testing.T) {
	n := enginetest.NATS(t)
	l, err := New(Config{NATS: n.Conn(t, "revocation")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Commit(t.Context(), request("k", commit.Revoke, "principal:alice"), "test"); problem.KindOf(err) != problem.Unavailable {
		t.Fatalf("commit: %v", err)
	}
	if a := l.Sync(t.Context(), "g", wire.SyncRequest{Instance: "i"}); a.Error == nil || a.Whole != nil {
		t.Fatalf("sync: %+v", a)
	}
	if a := l.Probe(t.Context(), "g", wire.ProbeRequest{Instance: "i"}); a.Error == nil {
		t.Fatalf("probe: %+v", a)
	}
}

func TestEveryKindOfTargetIsCutOrEnded(t *testing.T) {
	l := start(t, enginetest.NATS(t).Conn(t, "revocation"), nil)
	for _, kind := range revoke.Kinds() {
		id := map[revoke.Kind]string{
			revoke.KindGrant: revoke.PairID("alice", "c"), revoke.KindBinding: revoke.PairID("alice", "r"),
			revoke.KindTenant: "default", revoke.KindIssuer: revoke.Own,
		}[kind]
		if id == "" {
			id = "x-" + kind.String()
		}
		target, err := revoke.NewTarget("default", "", kind, id)
		if err != nil {
			t.Fatal(err)
		}
		r := request("k-"+kind.String(), commit.Revoke)
		r.Targets = []commit.Target{{Kind: kind, ID: id}}
		a := mustCommit(t, l.Ledger, r)
		later := revoke.Stamp{Epoch: a.Epoch, Seq: a.Sequence + 1}
		if !l.View().Hit(target.Key(), revoke.Stamp{Epoch: a.Epoch, Seq: a.Sequence - 1}) {
			t.Errorf("%s: does not hit what was made before", kind)
		}
		if l.View().Hit(target.Key(), later) != kind.Final() {
			t.Errorf("%s: hits what was made after: %t, want %t", kind, !kind.Final(), kind.Final())
		}
		hold := request("h-"+kind.String(), commit.Hold)
		hold.Targets = []commit.Target{{Issuer: "partner", Kind: revoke.KindPrincipal, ID: "of-" + kind.String()}}
		mustCommit(t, l.Ledger, hold)
	}
}

func TestEntriesLiveAsLongAsWhatTheyCanHit(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	long := wire.MaxCredentialLife + wire.MaxTokenLife + wire.Slack
	for _, c := range []struct {
		name string
		req  commit.Request
		want time.Duration
	}{
		{"a token", request("k", commit.Revoke, "token:t"), wire.MaxTokenLife + wire.Slack},
		{"a key that may be used", request("k", commit.Revoke, "key:k"), long},
		{"the longest of several", request("k", commit.Revoke, "token:t", "principal:p"), long},
		{"a release outlives the hold", request("k", commit.Release, "principal:p"), long + 24*time.Hour},
		{"a record that is dead by itself", func() commit.Request {
			r := request("k", commit.Revoke, "key:k")
			r.Record = true
			return r
		}(), wire.MaxTokenLife + wire.Slack},
		{"a foreign issuer's longest session", func() commit.Request {
			r := request("k", commit.Revoke, "principal:p")
			r.Targets[0].Issuer = "partner"
			return r
		}(), 48*time.Hour + wire.Slack},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := planOf(c.req, "test")
			if err != nil {
				t.Fatal(err)
			}
			m := p.message("AAAAAAAAAAAAAAAAAAAAAA", now, map[string]time.Duration{"partner": 48 * time.Hour})
			if got := time.Unix(m.Until, 0).Sub(now); got < c.want || got > c.want+2*time.Second {
				t.Errorf("until is %s from now, want %s", got, c.want)
			}
			if ttl := ttlOf(m.Until, now); ttl < time.Hour || ttl < c.want+wire.Slack {
				t.Errorf("TTL %s", ttl)
			}
		})
	}
}

func TestBadRequestsNameTheField(t *testing.T) {
	long := make([]byte, revoke.MaxID+1)
	for i := range long {
		long[i] = 'x'
	}
	for field, change := range map[string]func(*commit.Request){
		"idempotency_key": func(r *commit.Request) { r.Key = "" },
		"tenant":          func(r *commit.Request) { r.Tenant = "Default!" },
		"op":              func(r *commit.Request) { r.Op = "erase" },
		"reason":          func(r *commit.Request) { r.Reason = "" },
		"actor":           func(r *commit.Request) { r.Actor = "\xff" },
		"targets":         func(r *commit.Request) { r.Targets = nil },
		"targets[0]":      func(r *commit.Request) { r.Targets[0].ID = string(long) },
		"for":             func(r *commit.Request) { r.ForMS = 1 },
		"then":            func(r *commit.Request) { r.Op, r.Then = commit.Hold, "revoke" },
	} {
		r := request("k", commit.Revoke, "principal:alice")
		change(&r)
		if _, err := planOf(r, "test"); problem.KindOf(err) != problem.Invalid || problem.From(err).Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
}

// FuzzRequest: whatever is taken becomes a message that every reader can read.
func FuzzRequest(f *testing.F) {
	f.Add("k", "default", "revoke", "token", "t", "", "why", "alice", int64(0), "")
	f.Add("k", "default", "hold", "grant", "a/b", "partner", "why", "alice", int64(5000), "revoke")
	f.Fuzz(func(t *testing.T, key, tenant, op, kind, id, issuer, reason, actor string, forMS int64, then string) {
		k, err := revoke.ParseKind(kind)
		if err != nil {
			return
		}
		r := commit.Request{
			Key: key, Tenant: tenant, Op: commit.Op(op), Targets: []commit.Target{{Issuer: issuer, Kind: k, ID: id}},
			Reason: reason, Actor: actor, ForMS: forMS, Then: then,
		}
		p, err := planOf(r, "test")
		if err != nil || r.Op == commit.Release {
			return
		}
		m := p.message("AAAAAAAAAAAAAAAAAAAAAA", time.Unix(1_800_000_000, 0), nil)
		m.Epoch = 1 + uint64(rand.IntN(1000))
		data, err := wire.Encode(m)
		if err != nil {
			t.Fatalf("%+v: %v", r, err)
		}
		if _, err := wire.Decode(data); err != nil {
			t.Fatalf("%s: %v", data, err)
		}
		if len(p.id) != 43 {
			t.Fatalf("id %q", p.id)
		}
	})
}
