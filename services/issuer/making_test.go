package issuer_test

import (
	"errors"
	"maps"
	"testing"

	"github.com/quash-project/quash/services/issuer"
	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/problem"
	"github.com/quash-project/quash/shared/rights"
)

func codeOf(err error) string {
	var r *issuer.Refusal
	if errors.As(err, &r) {
		return r.Code
	}
	return ""
}

func (b *bench) cut(kind revoke.Kind, id string) commit.Answer {
	return b.log.store(commit.Request{Key: kind.String() + id, Tenant: "default", Op: commit.Revoke, Targets: []commit.Target{{Kind: kind, ID: id}}})
}

// TestNoCutSlipsBetweenStampAndRecords commits a cut at every read of a record.
// Each token that comes of it must be refused by every guard that has the cut.
func TestNoCutSlipsBetweenStampAndRecords(t *testing.T) {
	for _, lag := range []bool{false, true} {
		for at := range 4 {
			b := newBench(t)
			ctx, c := t.Context(), operator()
			must(t, 0, second(b.CreateRole(ctx, c, "clerk", []string{"a"}, "test")))
			_, secret, err := b.CreateKey(ctx, c, issuer.NewKey{Owner: "alice", Roles: []string{"clerk"}, Reason: "test"})
			must(t, 0, err)
			b.log.lag = lag
			reads := 0
			hook := func() {
				if reads == at {
					b.cut(revoke.KindPrincipal, "alice")
				}
				reads++
			}
			b.keys.onGet, b.roles.onGet = hook, hook
			tok, err := b.Exchange(ctx, issuer.TokenRequest{APIKey: secret.Reveal()})
			b.log.hear()
			if reads > at && err == nil && !b.hit(tok.Claims) {
				t.Errorf("lag %v, cut at read %d: a token with the stamp %s lives", lag, at, tok.Claims.Stamp)
			}
			if reads <= at && err != nil {
				t.Errorf("no cut: %v", err)
			}
		}
	}
}

// TestNothingIsBornDead: a replica that has not heard of a cut yet hears of it
// before it stamps what lives long.
func TestNothingIsBornDead(t *testing.T) {
	b := newBench(t)
	b.log.lag = true
	b.cut(revoke.KindPrincipal, "alice")
	_, secret, err := b.CreateKey(t.Context(), operator(), issuer.NewKey{Owner: "alice", Scopes: []string{"a"}, Reason: "test"})
	must(t, 0, err)
	b.log.hear() // by the time that it is used
	if _, err := b.Exchange(t.Context(), issuer.TokenRequest{APIKey: secret.Reveal()}); err != nil {
		t.Errorf("a key made after the cut: %v", err)
	}
}

// TestStaleRecordIsDeadByItsOwnStamp: a replica whose copy still has a binding
// that was cut and removed leaves it out once its view has the cut, and before
// that makes tokens that the cut hits.
func TestStaleRecordIsDeadByItsOwnStamp(t *testing.T) {
	b := newBench(t)
	_, _ = keyWithRole(t, b)
	_, secret, err := b.CreateKey(t.Context(), operator(), issuer.NewKey{Owner: "alice", OwnerRoles: true, Reason: "test"})
	must(t, 0, err)
	role := b.roles.rows[issuer.RoleKey("default", "clerk")]
	b.log.lag = true
	b.cut(revoke.KindBinding, revoke.PairID("alice", role.ID))
	early, err := b.Exchange(t.Context(), issuer.TokenRequest{APIKey: secret.Reveal()})
	must(t, 0, err)
	b.log.hear()
	if len(early.Scopes) != 2 || !b.hit(early.Claims) {
		t.Errorf("before the cut was heard: %+v, hit %v", early.Scopes, b.hit(early.Claims))
	}
	late, err := b.Exchange(t.Context(), issuer.TokenRequest{APIKey: secret.Reveal()})
	must(t, 0, err)
	if len(late.Scopes) != 0 || b.hit(late.Claims) {
		t.Errorf("after: %+v, hit %v", late.Scopes, b.hit(late.Claims))
	}
}

// TestRecordAheadOfTheViewIsWaitedForAndRefused: it is never "newer than every cut".
func TestRecordAheadOfTheViewIsWaitedForAndRefused(t *testing.T) {
	b := newBench(t)
	k, secret, err := b.CreateKey(t.Context(), operator(), issuer.NewKey{Owner: "alice", Scopes: []string{"a"}, Reason: "test"})
	must(t, 0, err)
	k.Stamp.Seq += 5 // as another replica gave it, which has heard more
	b.keys.rows[issuer.RecordKey("default", k.ID)] = k
	if _, err = b.Exchange(t.Context(), issuer.TokenRequest{APIKey: secret.Reveal()}); problem.KindOf(err) != problem.Unavailable {
		t.Errorf("exchange: %v", err)
	}
	b.log.seq += 5 // now there is something to hear
	if _, err = b.Exchange(t.Context(), issuer.TokenRequest{APIKey: secret.Reveal()}); err != nil {
		t.Errorf("once it was waited for: %v", err)
	}
}

// TestNoNewKeyOfADeletedClient: a client has no stamp by which a copy that is behind
// would show that it was deleted, and a new key is above the cut.
func TestNoNewKeyOfADeletedClient(t *testing.T) {
	b := newBench(t)
	ctx, c := t.Context(), operator()
	cl, _, _, err := b.CreateClient(ctx, c, issuer.NewClient{Name: "x", Grants: issuer.Grants(), Reason: "test"})
	must(t, 0, err)
	k, secret, err := b.CreateKey(ctx, c, issuer.NewKey{Owner: "alice", Client: cl.ID, Scopes: []string{"a"}, Reason: "test"})
	must(t, 0, err)
	b.clients.old = maps.Clone(b.clients.rows)
	must(t, 0, second(b.DeleteClient(ctx, c, cl.ID, "test")))
	b.keys.rows[issuer.RecordKey("default", k.ID)] = k // another replica has made it meanwhile: the end does not name it
	if _, _, err := b.CreateKey(ctx, c, issuer.NewKey{Owner: "alice", Client: cl.ID, Reason: "test"}); problem.KindOf(err) != problem.Invalid {
		t.Errorf("a new key of it: %v", err)
	}
	if _, err := b.RenewKey(ctx, c, k.ID, "test"); problem.KindOf(err) != problem.Conflict {
		t.Errorf("renewing a key of it: %v", err)
	}
	if tok, err := b.Exchange(ctx, issuer.TokenRequest{APIKey: secret.Reveal()}); err == nil {
		t.Errorf("a token of it: %+v", tok.Claims)
	}
}

func TestFirstOperatorIsMadeOnce(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	must(t, 0, b.EnsureRoles(ctx))
	must(t, 0, b.EnsureRoles(ctx))
	if len(b.roles.rows) != len(rights.Roles(true))+len(rights.StartingRoles()) {
		t.Fatalf("%d roles", len(b.roles.rows))
	}
	if _, err := b.EnsureOperator(ctx, func(string, string) error { return errTest }); err == nil {
		t.Fatal("a key that could not be saved counts")
	}
	// A crash between saving and remembering: the saved one is not the last.
	b.p.n, b.p.at, b.p.what = 0, 1, failed
	if _, err := b.EnsureOperator(ctx, func(string, string) error { return nil }); err == nil {
		t.Fatal("the write did not fail")
	}
	b.p.at = -1
	var saved, id string
	made, err := b.EnsureOperator(ctx, func(i, s string) error { id, saved = i, s; return nil })
	if err != nil || !made {
		t.Fatalf("made %v, %v", made, err)
	}
	made, err = b.EnsureOperator(ctx, func(string, string) error { t.Error("a second key"); return nil })
	if err != nil || made {
		t.Errorf("again: %v, %v", made, err)
	}
	if len(b.keys.rows) != 1 {
		t.Errorf("%d keys: those that nobody has got are alive", len(b.keys.rows))
	}
	tok, err := b.Exchange(ctx, issuer.TokenRequest{APIKey: saved})
	if err != nil || tok.Claims.ClientID != "key_"+id || len(tok.Scopes) != len(rights.All()) {
		t.Errorf("token %+v, %v", tok.Claims, err)
	}
}
