package app

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/quash-project/quash/services/revocation"
	"github.com/quash-project/quash/shared/identity"
	"github.com/quash-project/quash/shared/kv"
	"github.com/quash-project/quash/shared/problem"
)

// pendingStore keeps what waits for a second person in a bucket of its own, so that the audit
// reads who asked for what, and who decided. Until run has opened it everything is
// problem.Unavailable.
type pendingStore struct {
	late *kv.Late
	log  *zap.Logger
}

const (
	// pendingKept is how long one is known: the longest that it may wait, and two days.
	pendingKept = revocation.MaxSecondTime + 48*time.Hour
	// settleEvery is how often what waits is looked at.
	settleEvery = 10 * time.Second
	// settleAgain is when it is looked at once more after it could not be.
	settleAgain = time.Second

	// listIn is how long it may take to list them all.
	listIn   = 5 * time.Second
	answerIn = 3 * time.Second
)

func newPendingStore(nc *nats.Conn, replicas int, log *zap.Logger) (*pendingStore, error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, err
	}
	cfg := kv.StreamOf(identity.Pending, "cuts that wait for a second person, and what became of them", replicas)
	// The audit has to see each version.
	cfg.MaxMsgsPerSubject, cfg.MaxAge = 8, pendingKept
	return &pendingStore{late: kv.NewLate(js, cfg, "what waits for a second person can't be read yet; nothing was done, try again"), log: log}, nil
}

// run makes the bucket, trying until it can, and then settles what waits until ctx ends.
func (s *pendingStore) run(ctx context.Context, settle func(context.Context, map[string]bool) error) error {
	err := s.late.Open(ctx, func(err error) {
		s.log.Warn("wide cuts with an Idempotency-Key, and all that need a second person, are refused until the bucket of pending cuts can be opened; up to 10 keys, tokens or sessions at once are cut", zap.Error(err))
	})
	if err != nil {
		return nil //nolint:nilerr // ctx has ended
	}
	failed := false
	for done := map[string]bool{}; ; {
		pause := settleEvery
		err := settle(ctx, done)
		if err != nil {
			pause = settleAgain
			if !failed && ctx.Err() == nil && problem.KindOf(err) != problem.Unavailable {
				s.log.Warn("not all of what waits for a second person could be settled; trying again", zap.Error(err))
			}
		}
		failed = err != nil
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

// Create implements revocation.PendingStore.
func (s *pendingStore) Create(ctx context.Context, p revocation.Pending) (revocation.Pending, error) {
	b, err := s.late.Bucket(ctx)
	if err != nil {
		return p, err
	}
	_, err = kv.Create(ctx, b, p.Tenant+"."+p.ID, p)
	if err == nil {
		return p, nil
	}
	if errors.Is(err, nats.ErrMaxPayload) {
		return p, problem.Wrap(problem.TooLarge, err, "the request has more than can be kept for a second person: send fewer targets at once")
	}
	// It is there already, or the answer was lost: what stands there tells.
	stands, _, readErr := s.Get(ctx, p.Tenant, p.ID)
	if readErr != nil {
		return p, problem.Wrap(problem.Unavailable, errors.Join(err, readErr), "the request could not be kept for a second person; nothing was cut, try again")
	}
	return stands, nil
}

// Get implements revocation.PendingStore.
func (s *pendingStore) Get(ctx context.Context, tenant, id string) (revocation.Pending, uint64, error) {
	b, err := s.late.Bucket(ctx)
	if err != nil {
		return revocation.Pending{}, 0, err
	}
	return kv.Get[revocation.Pending](ctx, b, tenant+"."+id)
}

// Update implements revocation.PendingStore.
func (s *pendingStore) Update(ctx context.Context, p revocation.Pending, revision uint64) error {
	b, err := s.late.Bucket(ctx)
	if err != nil {
		return err
	}
	data, err := json.Marshal(p)
	if err != nil {
		return err
	}
	asking, cancel := context.WithTimeout(ctx, answerIn)
	defer cancel()
	_, err = b.Update(asking, p.Tenant+"."+p.ID, data, revision)
	if err == nil {
		return nil
	}
	// On a replicated stream a refusal comes to a lone writer too, and an answer can be lost.
	stands, _, readErr := s.Get(ctx, p.Tenant, p.ID)
	if readErr == nil {
		if text, err := json.Marshal(stands); err == nil && string(text) == string(data) {
			return nil
		}
	}
	if errors.Is(err, jetstream.ErrKeyRevisionMismatch) || errors.Is(err, jetstream.ErrKeyExists) {
		return problem.Wrap(problem.Conflict, err, "somebody else has decided about it at the same time; look at it again")
	}
	return problem.Wrap(problem.Unavailable, err, "the decision could not be written down; try again")
}

// IDs implements revocation.PendingStore.
func (s *pendingStore) IDs(ctx context.Context, tenant string) ([]string, error) {
	b, err := s.late.Bucket(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, listIn)
	defer cancel()
	filter := ">"
	if tenant != "" {
		filter = tenant + ".*"
	}
	out, err := kv.Keys(ctx, b, filter)
	if err != nil {
		return nil, problem.Wrap(problem.Unavailable, err, "what waits for a second person can't be listed now; try again")
	}
	if tenant != "" {
		for i, name := range out {
			out[i] = strings.TrimPrefix(name, tenant+".")
		}
	}
	slices.Sort(out)
	return out, nil
}
