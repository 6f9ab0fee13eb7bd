package issuer_test

import (
	"testing"
	"time"

	"github.com/quash-project/quash/services/issuer"
	"github.com/quash-project/quash/shared/problem"
	"github.com/quash-project/quash/shared/rights"
)

// Who registers a recipient may have what the key gives: so it needs what rotating needs.
func TestWhoMayRegisterARecipientAndCollect(t *testing.T) {
	b, owner := newBench(t), newOwner(t)
	ctx := t.Context()
	k, secret := b.key(t, issuer.NewKey{Scopes: []string{rights.Revoke}})
	_, other := b.key(t, issuer.NewKey{})
	to := owner.Recipient().String()
	weak, none := operator(), operator()
	weak.Scopes, none.Scopes = []string{rights.KeysWrite}, nil
	for name, c := range map[string]struct {
		who     issuer.Caller
		current string
		ok      bool
	}{
		"an operator":                          {operator(), "", true},
		"who lacks what the key gives":         {weak, "", false},
		"who may make no keys":                 {none, "", false},
		"the key by its token":                 {self(k.ID), "", false},
		"the key by its secret":                {self(k.ID), secret, true},
		"another key's token with its secret":  {self(issuer.KeyClientPrefix), secret, false},
		"the key's token with another secret":  {self(k.ID), other, false},
		"the key's token and no secret of any": {self(k.ID), "hunter2", false},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := b.SetRecipient(ctx, c.who, k.ID, issuer.SetRecipient{Recipient: to, Current: c.current, Scope: scopeOf, Reason: "r"})
			if c.ok && (err != nil || got.Recipient == nil || got.Recipient.Age != to || got.Recipient.By != c.who.Actor) {
				t.Errorf("registering: %+v, %v", got.Recipient, err)
			}
			_, collectErr := b.Collect(ctx, c.who, k.ID, issuer.Collect{Current: c.current, Scope: scopeOf, Reason: "r"})
			if want := map[bool]problem.Kind{true: problem.NotFound, false: problem.Forbidden}[c.ok]; problem.KindOf(collectErr) != want {
				t.Errorf("collecting what is not there: %v", collectErr)
			}
			if !c.ok && problem.KindOf(err) != problem.Forbidden {
				t.Errorf("registering: %v", err)
			}
		})
	}
	for _, text := range []string{owner.String(), "ssh-ed25519 AAAA", "age1"} {
		if _, err := b.SetRecipient(ctx, operator(), k.ID, issuer.SetRecipient{Recipient: text, Scope: scopeOf}); problem.From(err).Field != "recipient" {
			t.Errorf("%v", err)
		}
		if _, _, err := b.CreateKey(ctx, operator(), issuer.NewKey{Owner: "alice", Recipient: text}); problem.From(err).Field != "recipient" {
			t.Errorf("%v", err)
		}
	}
	if got, err := b.SetRecipient(ctx, operator(), k.ID, issuer.SetRecipient{Scope: scopeOf, Reason: "r"}); err != nil || got.Recipient != nil {
		t.Errorf("taken off: %+v, %v", got.Recipient, err)
	}
}

// What somebody holds for a while they can't have for longer by a recipient of their own.
func TestRecipientGivesNoLongerThanWhoRegisteredItHolds(t *testing.T) {
	b, owner := newBench(t), newOwner(t)
	ctx := t.Context()
	must(t, 0, second(b.CreateRole(ctx, operator(), "temp", []string{rights.KeysWrite, rights.Revoke}, "r")))
	mine, _, err := b.CreateKey(ctx, operator(), issuer.NewKey{Owner: "bob", Life: 300 * 24 * time.Hour})
	must(t, 0, err)
	must(t, 0, second(b.Bind(ctx, operator(), issuer.NewBinding{Subject: issuer.KeyClientPrefix + mine.ID, Role: "temp", Life: 60 * 24 * time.Hour, Reason: "r"})))
	bob := self(mine.ID)
	bob.Scopes = []string{rights.KeysWrite, rights.Revoke}
	for _, bound := range b.bindings.rows {
		bob.Targets = append(bob.Targets, issuer.BindingTarget(&bound).Key())
	}
	long, _ := b.key(t, issuer.NewKey{Scopes: []string{rights.Revoke}, Life: 90 * 24 * time.Hour})
	short, secret := b.key(t, issuer.NewKey{Scopes: []string{rights.Revoke}, Life: 50 * 24 * time.Hour})
	set := issuer.SetRecipient{Recipient: owner.Recipient().String(), Scope: scopeOf, Reason: "r"}
	if _, err := b.SetRecipient(ctx, bob, long.ID, set); problem.KindOf(err) != problem.Forbidden {
		t.Errorf("of a key that outlives what they hold: %v", err)
	}
	got, err := b.SetRecipient(ctx, bob, short.ID, set)
	must(t, 0, err)
	first, err := b.fire(ctx, short.ID, "f1", time.Hour)
	must(t, 0, err)
	n, _ := b.stored(first.Next)
	if end := got.Recipient.Until; end.IsZero() || n.Expires.After(end) || n.RightsUntil.After(end) || n.RightsUntil.IsZero() {
		t.Errorf("the successor ends at %v and gives until %v; who registered the recipient holds it until %v", n.Expires, n.RightsUntil, end)
	}
	must(t, 0, second(b.collect(t, short.ID, secret, owner)))
}
