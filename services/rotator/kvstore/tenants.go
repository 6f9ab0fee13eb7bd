package kvstore

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/kv"
	"github.com/quash-project/quash/shared/problem"
)

// tenantsBucket is the issuer's. Of its records only this is read.
const tenantsBucket = "tenants"

// openTime bounds one try to find a bucket, or to read it.
const openTime = 5 * time.Second

type tenantRow struct {
	Name string          `json:"name"`
	Mark json.RawMessage `json:"mark"`
}

func (r *tenantRow) ends() bool { return len(r.Mark) > 0 && string(r.Mark) != "null" }

// Tenants implements rotator.Store.
func (s *Store) Tenants() map[string]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.tenants)
}

// Ends implements rotator.Store. The issuer's bucket is read at its leader.
func (s *Store) Ends(ctx context.Context, tenant string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	b, err := s.js.KeyValue(ctx, tenantsBucket)
	if err != nil {
		return false, problem.Wrap(problem.Unavailable, err, "the tenants can't be read now")
	}
	row, _, err := kv.Get[tenantRow](ctx, b, tenant)
	if problem.KindOf(err) == problem.NotFound && err != nil {
		return true, nil
	}
	return row.ends(), err
}

// followTenants waits until the issuer has made its bucket, and follows that.
func (s *Store) followTenants(ctx context.Context) error {
	for ctx.Err() == nil {
		tryCtx, cancel := context.WithTimeout(ctx, openTime)
		b, err := s.js.KeyValue(tryCtx, tenantsBucket)
		cancel()
		if err == nil {
			return s.follow(ctx, b, s.tenant)
		}
		if !errors.Is(err, jetstream.ErrBucketNotFound) && ctx.Err() == nil {
			s.log.Warn("waiting for the tenants", zap.Error(err))
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
	return nil
}

// tenant takes a revision of a record. One that was removed is ending: a replica that is
// behind may have made keys for it again.
func (s *Store) tenant(e jetstream.KeyValueEntry) {
	if e == nil || strings.HasPrefix(e.Key(), kv.BeatPrefix) {
		return
	}
	ending := e.Operation() != jetstream.KeyValuePut
	if !ending {
		var row tenantRow
		if err := json.Unmarshal(e.Value(), &row); err != nil || row.Name != e.Key() {
			s.log.Error("record of a tenant can't be read", zap.String("key", e.Key()), zap.Error(err))
			return
		}
		ending = row.ends()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if had, known := s.tenants[e.Key()]; !known || had != ending {
		s.tenants[e.Key()] = ending
		s.wake()
	}
}
