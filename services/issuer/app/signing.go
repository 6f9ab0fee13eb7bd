package app

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/quash-project/quash/services/issuer"
	"github.com/quash-project/quash/shared/guard"
	"github.com/quash-project/quash/shared/problem"
	"github.com/quash-project/quash/shared/signing"
)

// rings opens the keyring once the rotator has made its bucket.
type rings struct {
	js   jetstream.JetStream
	cfg  signing.Config
	ring atomic.Pointer[signing.Keyring]
}

func (r *rings) run(ctx context.Context) error {
	for {
		ring, err := r.open(ctx)
		if err == nil {
			r.ring.Store(ring)
			return ring.Run(ctx)
		}
		if ctx.Err() != nil {
			return nil
		}
		r.cfg.Log.Info("waiting for the bucket of signing keys, which the rotator makes", zap.Error(err))
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (r *rings) open(ctx context.Context) (*signing.Keyring, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	b, err := r.js.KeyValue(ctx, signing.Bucket)
	if err != nil {
		return nil, err
	}
	cfg := r.cfg
	cfg.Bucket = b
	return signing.NewKeyring(cfg)
}

var errNoRing = errors.New("the bucket of signing keys is not there yet: the rotator makes it")

func (r *rings) ready(tenant string) error {
	if ring := r.ring.Load(); ring != nil {
		return ring.Ready(tenant)
	}
	return errNoRing
}

// Public returns the JWKs of a tenant's keys.
func (r *rings) Public(tenant string) []map[string]string {
	if ring := r.ring.Load(); ring != nil {
		return ring.Public(tenant)
	}
	return nil
}

// Signer implements issuer.Signers.
func (r *rings) Signer(ctx context.Context, tenant string) (issuer.Signer, error) {
	ring := r.ring.Load()
	if ring == nil {
		return nil, problem.Wrap(problem.Unavailable, errNoRing, "there is no signing key yet; try again")
	}
	s, err := ring.Signer(ctx, tenant)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Gone implements issuer.Signers.
func (r *rings) Gone(ctx context.Context, tenant string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	b, err := r.js.KeyValue(ctx, signing.Bucket)
	if err == nil {
		_, err = b.Get(ctx, tenant)
	}
	switch {
	case err == nil:
		return issuer.ErrSigningKeys
	case errors.Is(err, jetstream.ErrKeyNotFound), errors.Is(err, jetstream.ErrBucketNotFound):
		return nil
	}
	return err
}

// verifier checks tokens by the service's own guard. Whether it is a good token is one
// question, for whom it is another.
type verifier struct{ g *guard.Guard }

// Verify implements issuer.Verifier.
func (v verifier) Verify(ctx context.Context, token string) (issuer.Verified, error) {
	d := v.g.Decide(ctx, token, guard.Requirement{AnyAudience: true})
	if d.Token == nil {
		if d.Outcome == guard.Unavailable {
			return issuer.Verified{}, problem.New(problem.Unavailable, "can't tell now whether this token is good: %s; try again", d.Reason)
		}
		return issuer.Verified{}, issuer.ErrNotOurs
	}
	t := d.Token
	return issuer.Verified{
		Active: d.Allowed(), Unknown: d.Outcome == guard.Unavailable,
		Token: issuer.Claims{
			Issuer: t.Issuer, Subject: t.Subject, Audience: t.Audience, Expires: t.Expires.Unix(), IssuedAt: t.IssuedAt.Unix(),
			ID: t.ID, ClientID: t.ClientID, Scope: strings.Join(t.Scopes, " "), Roles: t.Roles, Tenant: t.Tenant, Stamp: t.Stamp, Via: t.Via,
		},
	}, nil
}
