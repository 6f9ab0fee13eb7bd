package issuer_test

import (
	"testing"

	"github.com/quash-project/quash/services/issuer"
	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/guard/revoke"
)

// presented is a Service whose verifier is shown a living token, and the client that it was
// issued to.
func presented(t *testing.T) (*bench, issuer.ClientAuth) {
	t.Helper()
	b := newBench(t)
	k, secret, err := b.CreateKey(t.Context(), operator(), issuer.NewKey{Owner: "alice", Scopes: []string{"a"}, Reason: "test"})
	must(t, 0, err)
	tok, err := b.Exchange(t.Context(), issuer.TokenRequest{APIKey: secret.Reveal()})
	must(t, 0, err)
	b.presented = tok.Claims
	return b, issuer.ClientAuth{ID: k.ClientID(), Secret: secret.Reveal()}
}

// RFC 7009, 2: "the invalidation takes place immediately": who revokes a token and
// then asks about it must not be told that it is active.
func TestRevokedTokenIsInactiveOnceThatIsAnswered(t *testing.T) {
	ctx := t.Context()
	b, auth := presented(t)
	if c, err := b.Introspect(ctx, auth, "it", false); c == nil || err != nil {
		t.Fatalf("a living token: %v, %v", c, err)
	}
	b.log.lag = true // the reader hears of a commit only when it is waited for
	must(t, 0, b.Revoke(ctx, auth, "it"))
	if c, err := b.Introspect(ctx, auth, "it", false); c != nil || err != nil {
		t.Errorf("a revoked token: %v, %v, want not active", c, err)
	}
}

// RFC 7662 leaves open how old an answer may be; who asks with fresh gets what was
// acknowledged before.
func TestFreshIntrospectionAsksTheLogFirst(t *testing.T) {
	ctx := t.Context()
	b, auth := presented(t)
	b.log.lag = true // somebody else commits, and the reader has not heard of it
	_, err := b.log.Commit(ctx, commit.Request{
		Key: "another", Tenant: "default", Op: commit.Revoke, Actor: "olga", Reason: "test",
		Targets: []commit.Target{{Kind: revoke.KindToken, ID: b.presented.ID}},
	})
	must(t, 0, err)
	if c, err := b.Introspect(ctx, auth, "it", false); c == nil || err != nil {
		t.Fatalf("before the reader has heard of it: %v, %v", c, err)
	}
	if c, err := b.Introspect(ctx, auth, "it", true); c != nil || err != nil {
		t.Errorf("asked anew: %v, %v, want not active", c, err)
	}
}
