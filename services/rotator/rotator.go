package rotator

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/tink-crypto/tink-go/v2/tink"
	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/problem"
	"github.com/quash-project/quash/shared/signing"
)

// Store keeps the records. Every change is a compare-and-set around a pure
// function; errors are those of shared/kv. It is safe for concurrent use.
type Store interface {
	Set(ctx context.Context, tenant string) (signing.Set, error)
	CreateSet(ctx context.Context, s signing.Set) error
	ChangeSet(ctx context.Context, tenant string, fn func(*signing.Set) error) (signing.Set, error)
	// RemoveSet removes a record if it is still as it was seen.
	RemoveSet(ctx context.Context, seen signing.Set) error
	// Tenants returns those that the issuer keeps, as far as they have been seen, and
	// those that were: whether each is ending.
	Tenants() map[string]bool
	// Ends reports whether the issuer ends a tenant of this name, or has none, as the
	// store has it now.
	Ends(ctx context.Context, tenant string) (bool, error)
	Rotation(ctx context.Context, id string) (Rotation, error)
	CreateRotation(ctx context.Context, r Rotation) error
	ChangeRotation(ctx context.Context, id string, fn func(*Rotation) error) (Rotation, error)
	// Open returns the rotations of a tenant that are not finished, as far as
	// they have been seen. It fails until all that there are have been.
	Open(tenant string) ([]Rotation, error)
	// Rotations returns the ids of all rotations of a tenant that are remembered. It fails
	// as Open does.
	Rotations(tenant string) ([]string, error)
	RemoveRotation(ctx context.Context, id string) error
	// Changed returns a channel that is closed at the next change of a record.
	Changed() <-chan struct{}
}

// Reader is what the rotator's own reader of the log knows.
type Reader interface {
	Epoch() uint64           // the newest history of the log, 0 for none yet
	Ended(k revoke.Key) bool // whether a target is ended
}

// Tenant is a tenant whose keys are kept.
type Tenant struct {
	Name   string
	Issuer string // the URL of its issuer
	// Ending is a tenant that was deleted: its keys are revoked, and their record is removed.
	Ending bool
}

// Config is what the operator chose.
type Config struct {
	Home   Tenant // the installation's own; the issuers of the others stand below its
	Policy Policy
	// IssuerName is the identity under which issuers join the fleet.
	IssuerName string
	// Idle is how long a worker rests at most, in case that a change was not
	// noticed. 0: 2 s.
	Idle time.Duration
}

// Deps is what a Rotator works with.
type Deps struct {
	Store    Store
	Entries  commit.Committer
	Keys     commit.KeyCommitter
	Reader   Reader
	KEK      tink.AEAD
	Identity ed25519.PrivateKey
	Now      func() time.Time
	Rand     io.Reader
	Log      *zap.Logger
	// Clear removes what else is kept of a tenant that ends, and is called until it returns
	// nil. nil: nothing is.
	Clear func(ctx context.Context, tenant string) error
}

// Rotator is one replica. Its methods are safe for concurrent use.
type Rotator struct {
	cfg Config
	Deps

	mu      sync.Mutex
	workers map[string]*worker // by tenant
}

// New checks the configuration.
func New(cfg Config, deps Deps) (*Rotator, error) {
	if err := cfg.Policy.Validate(); err != nil {
		return nil, err
	}
	if cfg.IssuerName == "" {
		cfg.IssuerName = "issuer"
	}
	if cfg.Idle == 0 {
		cfg.Idle = maxPause
	}
	if err := revoke.CheckName("tenant", cfg.Home.Name); err != nil {
		return nil, err
	}
	if cfg.Home.Issuer == "" {
		return nil, fmt.Errorf("tenant %q: it has no issuer URL", cfg.Home.Name)
	}
	return &Rotator{cfg: cfg, Deps: deps, workers: map[string]*worker{cfg.Home.Name: newWorker()}}, nil
}

// Start records a rotation, which every replica then works on. The same request
// again is answered with the same rotation; another one under the same key is
// problem.Conflict.
func (r *Rotator) Start(ctx context.Context, q Request) (Rotation, error) {
	if err := q.validate(); err != nil {
		return Rotation{}, err
	}
	if !r.Living(q.Tenant) {
		return Rotation{}, problem.FieldError("tenant", "there is no tenant %q", q.Tenant)
	}
	rot := newRotation(q, r.Now().UnixMilli())
	err := r.Store.CreateRotation(ctx, rot)
	if err == nil {
		r.Log.Info("rotation asked for", zap.String("id", rot.ID), zap.String("tenant", q.Tenant),
			zap.String("actor", q.Actor), zap.Bool("emergency", q.Emergency))
		return rot, nil
	}
	if problem.KindOf(err) != problem.Conflict {
		e := problem.Wrap(problem.UnknownOutcome, err, "the rotation may or may not have been recorded; repeat the request with the same idempotency key")
		e.Key = q.Key
		return Rotation{}, e
	}
	have, err := r.Store.Rotation(ctx, rot.ID)
	if err != nil {
		return Rotation{}, err
	}
	if !have.asks(q) {
		return Rotation{}, problem.New(problem.Conflict, "this idempotency key was used for another rotation, %s", have.ID)
	}
	return have, nil
}

// WaitsFor returns the oldest rotation of a tenant that somebody has asked for and that is not
// finished, as far as it has been seen.
func (r *Rotator) WaitsFor(tenant, actor string) (Rotation, bool, error) {
	open, err := r.Store.Open(tenant)
	if err != nil {
		return Rotation{}, false, err
	}
	open = slices.DeleteFunc(open, func(o Rotation) bool { return o.Actor != actor || o.Emergency })
	byUrgency(open)
	if len(open) == 0 {
		return Rotation{}, false, nil
	}
	return open[0], true, nil
}

// Wait returns a rotation of a tenant once it is finished, or as it is when
// ctx ends or the time is over.
func (r *Rotator) Wait(ctx context.Context, tenant, id string, limit time.Duration) (Rotation, error) {
	if !isRotationID(id) { // no other text may reach the store as a key
		return Rotation{}, problem.New(problem.NotFound, "there is no such rotation")
	}
	over := time.NewTimer(limit)
	defer over.Stop()
	for {
		changed := r.Store.Changed()
		rot, err := r.Store.Rotation(ctx, id)
		if err == nil && rot.Tenant != tenant {
			err = problem.New(problem.NotFound, "there is no such rotation")
		}
		if err != nil || rot.State != Waiting || limit <= 0 {
			return rot, err
		}
		// A read may lag behind the change that we were woken for.
		again := time.NewTimer(250 * time.Millisecond)
		select {
		case <-ctx.Done():
			again.Stop()
			return rot, nil
		case <-over.C:
			again.Stop()
			return rot, nil
		case <-changed:
		case <-again.C:
		}
		again.Stop()
	}
}

// SigningKeys returns the record of a tenant's keys, without private halves.
func (r *Rotator) SigningKeys(ctx context.Context, tenant string) (signing.Set, error) {
	if !r.Living(tenant) {
		return signing.Set{}, problem.New(problem.NotFound, "there is no tenant %q", tenant)
	}
	set, err := r.Store.Set(ctx, tenant)
	if err != nil {
		return signing.Set{}, err
	}
	set = set.Clone()
	for i := range set.Keys {
		set.Keys[i].Sealed = nil
	}
	return set, nil
}
