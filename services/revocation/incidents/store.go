package incidents

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/quash-project/quash/services/revocation/receipts"
	"github.com/quash-project/quash/shared/identity"
	"github.com/quash-project/quash/shared/kv"
	"github.com/quash-project/quash/shared/problem"
)

// Life is how long a notebook is kept after its last change.
const Life = receipts.Life

// history is how many versions of a record the audit trail may be behind.
const history = 64

// store is the bucket. Until run has opened it everything is problem.Unavailable.
type store struct {
	late *kv.Late
	log  *zap.Logger
}

// answerIn is how long it is waited for the broker.
const answerIn = 3 * time.Second

func newStore(nc *nats.Conn, replicas int, log *zap.Logger) (*store, error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, fmt.Errorf("incidents: %w", err)
	}
	cfg := kv.StreamOf(identity.Incidents, "notebooks of incidents", replicas)
	cfg.MaxMsgsPerSubject, cfg.MaxAge = history, Life
	return &store{late: kv.NewLate(js, cfg, "the notebooks can't be read yet; try again"), log: log}, nil
}

// run makes the bucket, trying until it can or ctx ends.
func (s *store) run(ctx context.Context) {
	_ = s.late.Open(ctx, func(err error) {
		s.log.Warn("notebooks can't be kept until their bucket can be opened; cuts name their incident all the same", zap.Error(err))
	})
}

func keyOf(tenant, id string) string { return tenant + "." + id }

func (s *store) get(ctx context.Context, tenant, id string) (Incident, error) {
	b, err := s.late.Bucket(ctx)
	if err != nil {
		return Incident{}, err
	}
	x, _, err := kv.Get[Incident](ctx, b, keyOf(tenant, id))
	return x, err
}

func (s *store) create(ctx context.Context, x Incident) error {
	b, err := s.late.Bucket(ctx)
	if err != nil {
		return err
	}
	_, err = kv.Create(ctx, b, keyOf(x.Tenant, x.ID), x)
	return err
}

// errThere says that a change has been made before.
var errThere = errors.New("it is there")

// change changes a notebook by compare-and-set, so that of two who write at once none is lost.
func (s *store) change(ctx context.Context, tenant, id string, fn func(Incident) (Incident, error)) (Incident, error) {
	b, err := s.late.Bucket(ctx)
	if err != nil {
		return Incident{}, err
	}
	var there Incident
	x, _, err := kv.Change(ctx, b, keyOf(tenant, id), func(is Incident) (Incident, error) {
		next, err := fn(is)
		if err != nil {
			there = is
			return is, err
		}
		data, err := json.Marshal(next)
		if err == nil && len(data) > maxRecord {
			err = errFull("the notebook has %d bytes, as many as it may", maxRecord)
		}
		return next, err
	})
	if errors.Is(err, errThere) {
		return there, nil
	}
	return x, err
}

// ids returns those of a tenant, newest first.
func (s *store) ids(ctx context.Context, tenant string) ([]string, error) {
	b, err := s.late.Bucket(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, answerIn)
	defer cancel()
	out, err := kv.Keys(ctx, b, keyOf(tenant, "*"))
	if err != nil {
		return nil, problem.Wrap(problem.Unavailable, err, "the notebooks can't be listed now; try again")
	}
	for i, key := range out {
		out[i] = strings.TrimPrefix(key, tenant+".")
	}
	slices.Sort(out)
	slices.Reverse(out)
	return out, nil
}
