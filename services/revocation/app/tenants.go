package app

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/kv"
	"github.com/quash-project/quash/shared/problem"
)

// from is for those who are made before the domain is.
func (s *Service) from(ctx context.Context, tenant string) (revoke.Stamp, error) {
	return s.domain.From(ctx, tenant)
}

// tenants reads the issuer's records of them at their leader.
type tenants struct{ control *nats.Conn }

// tenantsBucket is the issuer's. Of its records only this is read.
const tenantsBucket = "tenants"

type tenantRow struct {
	Stamp   revoke.Stamp `json:"stamp"`
	Created time.Time    `json:"created_at"`
}

// tenantsTime bounds one reading of a record.
const tenantsTime = 5 * time.Second

// Made implements revocation.Tenants.
func (t tenants) Made(ctx context.Context, name string) (revoke.Stamp, error) {
	ctx, cancel := context.WithTimeout(ctx, tenantsTime)
	defer cancel()
	b, err := t.bucket(ctx)
	if err != nil {
		return revoke.Stamp{}, unread(name, err)
	}
	row, _, err := kv.Get[tenantRow](ctx, b, name)
	return row.Stamp, err
}

func unread(name string, err error) error {
	return problem.Wrap(problem.Unavailable, err, "the record of the tenant %q can't be read now; try again", name)
}

// Created implements revocation.Tenants. The broker's clock decides, which the log's
// entries have too, where the bucket still has the first revision.
func (t tenants) Created(ctx context.Context, name string) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, tenantsTime)
	defer cancel()
	b, err := t.bucket(ctx)
	if err != nil {
		return time.Time{}, unread(name, err)
	}
	revisions, err := b.History(ctx, name)
	if ctx.Err() != nil || !t.control.IsConnected() { // then it may have ended before its end
		err = cmp.Or(ctx.Err(), nats.ErrConnectionClosed)
	}
	if err != nil && !errors.Is(err, jetstream.ErrKeyNotFound) {
		return time.Time{}, unread(name, err)
	}
	var first jetstream.KeyValueEntry // since there is this tenant of the name
	afterEnd := false
	for _, e := range revisions {
		switch {
		case e.Operation() != jetstream.KeyValuePut:
			first, afterEnd = nil, true
		case first == nil:
			first = e
		}
	}
	if first == nil {
		return time.Time{}, problem.New(problem.NotFound, "there is no tenant %q", name)
	}
	at := first.Created().Truncate(time.Millisecond)
	if afterEnd {
		return at, nil
	}
	var row tenantRow
	if err := json.Unmarshal(first.Value(), &row); err != nil {
		return at, fmt.Errorf("record %s/%s at revision %d: %w", tenantsBucket, name, first.Revision(), err)
	}
	if row.Created.Before(at) { // earlier revisions are kept no more
		at = row.Created
	}
	return at, nil
}

func (t tenants) bucket(ctx context.Context) (jetstream.KeyValue, error) {
	if t.control == nil {
		return nil, nats.ErrInvalidConnection
	}
	js, err := jetstream.New(t.control)
	if err != nil {
		return nil, err
	}
	return js.KeyValue(ctx, tenantsBucket)
}
