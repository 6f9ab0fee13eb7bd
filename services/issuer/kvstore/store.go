package kvstore

import (
	"context"
	"io"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/quash-project/quash/services/issuer"
	"github.com/quash-project/quash/shared/apikey"
	"github.com/quash-project/quash/shared/kv"
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
	cfg      Config
	js       jetstream.JetStream
	instance string
	tables   []runner
}

type runner interface {
	open(ctx context.Context, js jetstream.JetStream, replicas int) error
	run(ctx context.Context) error
}

// afterEnd is how long a record is kept after its end, for people who look for it.
const afterEnd = 7 * 24 * time.Hour

// New returns a store that answers "unavailable" until Run has opened it.
func New(cfg Config) (*Store, error) {
	js, err := jetstream.New(cfg.NATS)
	if err != nil {
		return nil, err
	}
	instance, err := apikey.RandomID(cfg.Rand)
	if err != nil {
		return nil, err
	}
	s := &Store{cfg: cfg, js: js, instance: instance}
	s.Tenants = add(s, kind[issuer.Tenant, tenantRow]{
		bucket: "tenants", toRow: tenantToRow, fromRow: tenantFromRow, groups: issuer.TenantGroups,
	})
	s.Principals = add(s, kind[issuer.Principal, principalRow]{
		bucket: "users", groups: issuer.PrincipalGroups, toRow: principalToRow, fromRow: principalFromRow,
	})
	s.Keys = add(s, kind[issuer.Key, keyRow]{
		bucket: "keys", toRow: keyToRow, fromRow: keyFromRow, groups: issuer.KeyGroups,
		end: func(k issuer.Key) time.Time { return k.Expires.Add(afterEnd) },
	})
	s.Clients = add(s, kind[issuer.Client, clientRow]{
		bucket: "clients", groups: issuer.ClientGroups,
		toRow: func(c issuer.Client) clientRow { return clientRow(c) }, fromRow: func(r clientRow) issuer.Client { return issuer.Client(r) },
	})
	s.Roles = add(s, kind[issuer.Role, roleRow]{
		bucket: "roles", groups: issuer.RoleGroups,
		toRow: func(r issuer.Role) roleRow { return roleRow(r) }, fromRow: func(r roleRow) issuer.Role { return issuer.Role(r) },
	})
	s.Bindings = add(s, kind[issuer.Binding, bindingRow]{
		bucket: "bindings", toRow: bindingToRow, fromRow: bindingFromRow, groups: issuer.BindingGroups,
		end: func(b issuer.Binding) time.Time {
			if b.Expires.IsZero() {
				return time.Time{}
			}
			return b.Expires.Add(afterEnd)
		},
	})
	uses := add(s, kind[issuer.Use, useRow]{
		bucket: "uses", history: keepLast,
		toRow: func(u issuer.Use) useRow { return useRow(u) }, fromRow: func(r useRow) issuer.Use { return issuer.Use(r) },
		end: func(u issuer.Use) time.Time { return u.Until.Add(afterEnd) },
	})
	s.Deliveries = add(s, kind[issuer.Delivery, deliveryRow]{
		bucket: "deliveries", history: keepLast,
		toRow: func(d issuer.Delivery) deliveryRow { return deliveryRow(d) }, fromRow: func(r deliveryRow) issuer.Delivery { return issuer.Delivery(r) },
		end: func(d issuer.Delivery) time.Time { return d.Until },
	})
	s.Uses, s.Turn = uses, uses.turn
	return s, nil
}

func add[T, R any](s *Store, k kind[T, R]) *table[T, R] {
	t := &table[T, R]{
		kind: k, js: s.js, now: s.cfg.Now, log: s.cfg.Log, copy: newReplica(k.groups),
		beat:   beat{key: kv.BeatPrefix + k.bucket + "." + s.instance, came: make(chan struct{}, 1)},
		behind: make(chan struct{}, 1),
	}
	s.tables = append(s.tables, t)
	return t
}

// Run creates the buckets that are missing, waiting for JetStream if need be,
// and keeps the copies until ctx ends.
func (s *Store) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, t := range s.tables {
		g.Go(func() error {
			if !s.open(ctx, t) {
				return nil
			}
			return t.run(ctx)
		})
	}
	return g.Wait()
}

// open tries until it succeeds; it reports false when ctx has ended.
func (s *Store) open(ctx context.Context, t runner) bool {
	for {
		tryCtx, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := t.open(tryCtx, s.js, max(s.cfg.Replicas, 1))
		cancel()
		if err == nil {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		s.cfg.Log.Warn("waiting for the record store", zap.Error(err))
		select {
		case <-ctx.Done():
			return false
		case <-time.After(500 * time.Millisecond):
		}
	}
}
