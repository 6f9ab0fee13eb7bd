package kvstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/quash-project/quash/services/issuer"
	"github.com/quash-project/quash/shared/apikey"
)

// Config says where the records are.
type Config struct {
	NATS     *nats.Conn
	Replicas int // of the buckets' streams: 1 or 3
	Log      *zap.Logger
	Now      func() time.Time
	Rand     io.Reader
}

// Store keeps all tables of the issuer.
type Store struct {
	issuer.Store
	instance string
	runs     []func(context.Context, string) error
}

// afterEnd is how long a record is kept after its end, for people who look for it.
const afterEnd = 7 * 24 * time.Hour

// Open creates the buckets that are missing.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	js, err := jetstream.New(cfg.NATS)
	if err != nil {
		return nil, err
	}
	instance, err := apikey.RandomID(cfg.Rand)
	if err != nil {
		return nil, err
	}
	s := &Store{instance: instance}
	var errs [5]error
	s.Tenants, errs[0] = open(ctx, s, js, cfg, kind[issuer.Tenant, tenantRow]{
		bucket: "tenants",
		toRow:  func(t issuer.Tenant) tenantRow { return tenantRow(t) }, fromRow: func(r tenantRow) issuer.Tenant { return issuer.Tenant(r) },
	})
	s.Keys, errs[1] = open(ctx, s, js, cfg, kind[issuer.Key, keyRow]{
		bucket: "keys", toRow: keyToRow, fromRow: keyFromRow, groups: issuer.KeyGroups,
		end: func(k issuer.Key) time.Time { return k.Expires.Add(afterEnd) },
	})
	s.Clients, errs[2] = open(ctx, s, js, cfg, kind[issuer.Client, clientRow]{
		bucket: "clients", groups: issuer.ClientGroups,
		toRow: func(c issuer.Client) clientRow { return clientRow(c) }, fromRow: func(r clientRow) issuer.Client { return issuer.Client(r) },
	})
	s.Roles, errs[3] = open(ctx, s, js, cfg, kind[issuer.Role, roleRow]{
		bucket: "roles", groups: issuer.RoleGroups,
		toRow: func(r issuer.Role) roleRow { return roleRow(r) }, fromRow: func(r roleRow) issuer.Role { return issuer.Role(r) },
	})
	s.Bindings, errs[4] = open(ctx, s, js, cfg, kind[issuer.Binding, bindingRow]{
		bucket: "bindings", toRow: bindingToRow, fromRow: bindingFromRow, groups: issuer.BindingGroups,
	})
	if err := errors.Join(errs[:]...); err != nil {
		return nil, fmt.Errorf("open the record store: %w", err)
	}
	return s, nil
}

func open[T, R any](ctx context.Context, s *Store, js jetstream.JetStream, cfg Config, k kind[T, R]) (issuer.Table[T], error) {
	b, err := openBucket(ctx, js, k.bucket, max(cfg.Replicas, 1))
	if err != nil {
		return nil, err
	}
	t := &table[T, R]{
		kind: k, js: js, b: b, now: cfg.Now, log: cfg.Log, copy: newReplica(k.groups),
		beat: beat{came: make(chan struct{}, 1)},
	}
	s.runs = append(s.runs, t.run)
	return t, nil
}

// Run keeps the copies until ctx ends.
func (s *Store) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, run := range s.runs {
		g.Go(func() error { return run(ctx, s.instance) })
	}
	return g.Wait()
}
