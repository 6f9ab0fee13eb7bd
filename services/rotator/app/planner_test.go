package app_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/quash-project/quash/services/rotator"
	"github.com/quash-project/quash/services/rotator/kvstore"
	"github.com/quash-project/quash/services/rotator/schedule"
	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/seal"
	"github.com/quash-project/quash/shared/signing"
)

// planner is what a rotator has of schedules, on real buckets: rotations are recorded, and
// nobody works on them.
type planner struct {
	*schedule.Service
	store *kvstore.Schedules
	keys  *kvstore.Store
}

// faulty makes one call of a store or of a rotation fail: before it takes effect, or after.
type faulty struct {
	schedule.Store
	begin  func(context.Context, schedule.Begin) (string, error)
	keys   func(context.Context, schedule.KeyRotation) (schedule.KeyRotated, error) // nil: there are none
	calls  atomic.Int64
	failAt int64
	lost   bool
}

var errKilled = errors.New("killed here")

func (f *faulty) step(do func() error) error {
	n := f.calls.Add(1)
	if n == f.failAt && !f.lost {
		return errKilled
	}
	err := do()
	if n == f.failAt {
		return errKilled
	}
	return err
}

func (f *faulty) ChangeSchedule(ctx context.Context, tenant, name string, fn func(*schedule.Schedule) error) (x schedule.Schedule, err error) {
	err = f.step(func() error { x, err = f.Store.ChangeSchedule(ctx, tenant, name, fn); return err })
	return x, err
}

func (f *faulty) Begin(ctx context.Context, b schedule.Begin) (id string, err error) {
	err = f.step(func() error { id, err = f.begin(ctx, b); return err })
	return id, err
}

func (f *faulty) RotateKey(ctx context.Context, r schedule.KeyRotation) (out schedule.KeyRotated, err error) {
	err = f.step(func() error { out, err = f.keys(ctx, r); return err })
	return out, err
}

func (f *faulty) MayRotateKey(context.Context, schedule.Caller, schedule.Target) error { return nil }

// allTenants: the home tenant is there, and no other ends.
type allTenants struct{}

func (allTenants) Living(string) bool                         { return true }
func (allTenants) Tenants() map[string]bool                   { return nil }
func (allTenants) Ends(context.Context, string) (bool, error) { return false, nil }

type noSubjects struct{}

func (noSubjects) Subject(context.Context, string, schedule.Target) (schedule.Subject, error) {
	return schedule.Subject{}, nil
}

// plan starts a replica of it; without run it only follows.
func plan(t testing.TB, n *enginetest.NATSServer, now func() time.Time, wrap func(*faulty), run bool, late ...func(time.Duration)) *planner {
	t.Helper()
	js, err := jetstream.New(n.Dial(t, "rotator"))
	if err != nil {
		t.Fatal(err)
	}
	p := &planner{store: kvstore.NewSchedules(js, 1, logger(t)), keys: kvstore.New(js, 1, logger(t))}
	kek := t.TempDir() + "/kek"
	if err := seal.CreateKEK(kek); err != nil {
		t.Fatal(err)
	}
	aead, err := seal.LoadKEK(kek)
	if err != nil {
		t.Fatal(err)
	}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	r, err := rotator.New(rotator.Config{
		Home:   rotator.Tenant{Name: "default", Issuer: issuerURL},
		Policy: rotator.Policy{KeyLife: rotator.DefaultKeyLife, TokenLife: wire.MaxTokenLife, Alg: signing.ES256},
	}, rotator.Deps{Store: p.keys, Reader: blind{}, KEK: aead, Identity: private, Now: now, Rand: rand.Reader, Log: logger(t)})
	if err != nil {
		t.Fatal(err)
	}
	f := &faulty{Store: p.store, begin: func(ctx context.Context, b schedule.Begin) (string, error) {
		rot, err := r.Start(ctx, rotator.Request{Key: b.ID, Tenant: b.Tenant, Actor: b.Actor, Kind: rotator.KindSigningKey, Reason: b.Reason})
		return rot.ID, err
	}}
	if wrap != nil {
		wrap(f)
	}
	var keys schedule.Keys
	if f.keys != nil {
		keys = f
	}
	p.Service = schedule.New(schedule.Deps{
		Keys:  keys,
		Store: f, Rotations: f, Subjects: noSubjects{}, Tenants: allTenants{}, Now: now, Rand: rand.Reader, Log: logger(t),
		Late: func(d time.Duration) {
			for _, tell := range late {
				tell(d)
			}
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() { _ = p.keys.Run(ctx) })
	all.Go(func() {
		if run {
			_ = p.Run(ctx)
		} else {
			_ = p.store.FollowSchedules(ctx, func(string, string, uint64, *schedule.Schedule) {})
		}
	})
	t.Cleanup(func() { cancel(); all.Wait() })
	enginetest.Eventually(t, "the buckets are read", func() error {
		_, err := p.store.Schedules("default")
		_, other := p.keys.Open("default")
		return errors.Join(err, other)
	})
	return p
}

// clock is one that a test moves.
type clock struct{ at atomic.Int64 }

func newClock(text string) *clock {
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		panic(err) // a constant of a test
	}
	c := &clock{}
	c.at.Store(at.UnixMilli())
	return c
}

func (c *clock) now() time.Time       { return time.UnixMilli(c.at.Load()) }
func (c *clock) move(d time.Duration) { c.at.Add(d.Milliseconds()) }

var asker = schedule.Caller{Tenant: "default", Actor: "alice"}

func everyMinute(missed string) schedule.Spec {
	return schedule.Spec{Rotate: schedule.SigningKey, Cron: "* * * * *", Missed: missed, Reason: "a test"}
}

// rotations are the recorded ones by the reason and key that they have, each of a firing.
func (p *planner) rotations(t *testing.T) map[string]int {
	t.Helper()
	open, err := p.keys.Open("default")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]int{}
	for _, r := range open {
		out[r.ID]++
	}
	return out
}
