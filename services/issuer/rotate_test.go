package issuer_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quash-project/quash/services/issuer"
	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/problem"
	"github.com/quash-project/quash/shared/rights"
)

func scopeOf(kind issuer.KeyKind) string {
	if kind == issuer.ClientSecret {
		return rights.ClientsWrite
	}
	return rights.KeysWrite
}

func (b *bench) rotate(ctx context.Context, id string, r issuer.Rotate) (issuer.Rotated, string, error) {
	r.Scope = scopeOf
	if r.Reason == "" {
		r.Reason = "test"
	}
	out, secret, err := b.RotateKey(ctx, operator(), id, r)
	return out, secret.Reveal(), err
}

func (b *bench) gives(secret string) (issuer.Claims, bool) {
	tok, err := b.Exchange(context.Background(), issuer.TokenRequest{APIKey: secret})
	return tok.Claims, err == nil
}

func (b *bench) stored(id string) (issuer.Key, bool) { return b.keys.Peek("default." + id) }

func (b *bench) failAt(n int, what outcome) {
	b.p.mu.Lock()
	defer b.p.mu.Unlock()
	b.p.n, b.p.at, b.p.what = 0, n, what
}

// What takes the place of a key gives the same to the same, and both are good until the old
// one's time is over; then that and every token of it are dead, and the new one lives on.
func TestRotatedKeyLivesBesideItsSuccessorAndEndsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		stop := b.running(t)
		defer stop()
		must(t, 0, second(b.CreateRole(t.Context(), operator(), "clerk", []string{"c"}, "test")))
		k, old := b.key(t, issuer.NewKey{
			Name: "shop", Labels: map[string]string{"env": "prod"}, Scopes: []string{"a"}, Roles: []string{"clerk"}, Audiences: []string{"https://a.test"},
			Networks: nil, RateLimit: 1000, Life: 30 * 24 * time.Hour,
		})
		must(t, 0, second(b.Bind(t.Context(), operator(), issuer.NewBinding{Subject: "key_" + k.ID, Role: "clerk", Life: time.Hour * 48, Reason: "test"})))
		time.Sleep(time.Hour)
		out, fresh, err := b.rotate(t.Context(), k.ID, issuer.Rotate{Overlap: 10 * time.Minute})
		must(t, 0, err)
		n := out.Key
		if n.Name != k.Name || n.Labels["env"] != "prod" || !slices.Equal(n.Scopes, k.Scopes) || !slices.Equal(n.Roles, k.Roles) || !slices.Equal(n.Audiences, k.Audiences) ||
			n.RateLimit != k.RateLimit || n.Owner != k.Owner || n.Previous() != k.ID || n.Expires.Sub(n.Created) != k.Expires.Sub(k.Created) {
			t.Errorf("the successor\n%+v\nis no likeness of\n%+v", n, k)
		}
		bound := b.bindings.Group(issuer.SubjectGroup("default", "key_"+n.ID))
		was := b.bindings.Group(issuer.SubjectGroup("default", "key_"+k.ID))
		if len(bound) != 1 || !bound[0].Expires.Equal(was[0].Expires) {
			t.Errorf("its bindings: %+v, want those of the old one: %+v", bound, was)
		}
		time.Sleep(9*time.Minute + 50*time.Second)
		was1, oldLives := b.gives(old)
		is, freshLives := b.gives(fresh)
		if !oldLives || !freshLives {
			t.Fatalf("within the overlap: the old one gives %t, the new one %t; want both", oldLives, freshLives)
		}
		if was1.Scope != is.Scope || !slices.Equal(was1.Roles, is.Roles) {
			t.Errorf("the new one gives %q %q, the old one %q %q", is.Scope, is.Roles, was1.Scope, was1.Roles)
		}
		time.Sleep(10 * time.Second) // the very moment
		if _, ok := b.gives(old); ok {
			t.Error("the old one gives a token at its end")
		}
		time.Sleep(5 * time.Second)
		if !b.hit(was1) || b.hit(is) {
			t.Errorf("tokens are dead: of the old one %t, of the new one %t; want that of the old one", b.hit(was1), b.hit(is))
		}
		if _, there := b.stored(k.ID); there {
			t.Error("the record of the old one stands there still")
		}
		if got := b.Successors("default", k.ID); !slices.Equal(got, []string{n.ID}) {
			t.Errorf("its successors are %q, want %s", got, n.ID)
		}
		var told []issuer.RotationChange
		for _, r := range b.rotations {
			told = append(told, r.Change)
		}
		if !slices.Equal(told, []issuer.RotationChange{issuer.RotationBegun, issuer.RotationEnded}) {
			t.Errorf("told %q", told)
		}
	})
}

// A role that was taken from a key must not come back with the newer stamp of its successor;
// one that is held is held for it too, and no more.
func TestRoleThatWasCutDoesNotComeBack(t *testing.T) {
	for _, by := range []string{"given", "bound", "role", "held"} {
		t.Run(by, func(t *testing.T) {
			b := newBench(t)
			ctx := t.Context()
			role, err := b.CreateRole(ctx, operator(), "clerk", []string{"c"}, "test")
			must(t, 0, err)
			n := issuer.NewKey{Scopes: []string{"a"}, Roles: []string{"clerk"}}
			if by == "bound" {
				n.Roles = nil
			}
			k, _ := b.key(t, n)
			if by == "bound" {
				must(t, 0, second(b.Bind(ctx, operator(), issuer.NewBinding{Subject: "key_" + k.ID, Role: "clerk", Reason: "test"})))
			}
			cut := commit.Target{Kind: revoke.KindBinding, ID: revoke.PairID("alice", role.ID)}
			switch by {
			case "bound":
				cut.ID = revoke.PairID("key_"+k.ID, role.ID)
			case "role":
				cut = commit.Target{Kind: revoke.KindRole, ID: role.ID}
			}
			if by == "held" {
				at := b.log.Stamp()
				b.log.view.Merge((revoke.Target{Tenant: "default", Issuer: revoke.Own, Kind: cut.Kind, ID: cut.ID}).Key(), revoke.State{Held: at, Until: 1 << 40})
			} else {
				must(t, 0, second(b.log.Commit(ctx, commit.Request{Key: "cut", Tenant: "default", Op: commit.Revoke, Targets: []commit.Target{cut}})))
			}
			out, fresh, err := b.rotate(ctx, k.ID, issuer.Rotate{})
			must(t, 0, err)
			c, ok := b.gives(fresh)
			if !ok || slices.Contains(c.Roles, "clerk") || c.Scope != "a" {
				t.Errorf("the successor gives %t: %q %q, want the scope a alone", ok, c.Roles, c.Scope)
			}
			kept := len(out.Key.Roles) + len(b.bindings.Group(issuer.SubjectGroup("default", "key_"+out.Key.ID)))
			if want := map[bool]int{true: 1}[by == "held"]; kept != want {
				t.Errorf("it was made with %d roles, want %d", kept, want)
			}
		})
	}
}

// Nobody gets out of a hold or a revocation by a new key, nor by one that is made just then.
func TestKeyThatIsNotGoodIsNotRotated(t *testing.T) {
	ctx := context.Background()
	hold := func(b *bench, k *issuer.Key) {
		b.log.view.Merge((revoke.Target{Tenant: "default", Issuer: revoke.Own, Kind: revoke.KindKey, ID: k.ID}).Key(), revoke.State{Held: b.log.Stamp(), Until: 1 << 40})
	}
	for name, spoil := range map[string]func(b *bench, k *issuer.Key){
		"held": hold,
		"held meanwhile": func(b *bench, k *issuer.Key) {
			b.keys.onNew = func() { hold(b, k) }
		},
		"revoked": func(b *bench, k *issuer.Key) {
			_, _ = b.log.Commit(ctx, commit.Request{Key: "x", Tenant: "default", Targets: []commit.Target{{Kind: revoke.KindPrincipal, ID: "alice"}}})
		},
		"marked": func(b *bench, k *issuer.Key) {
			b.log.down = true
			_, _ = b.DeleteKey(ctx, operator(), k.ID, "test")
			b.log.down = false
		},
		"expired": func(b *bench, k *issuer.Key) {
			r := b.keys.rows["default."+k.ID]
			r.Expires = time.Now().Add(-time.Second)
			b.keys.rows["default."+k.ID] = r
		},
	} {
		for _, emergency := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/%t", name, emergency), func(t *testing.T) {
				b := newBench(t)
				k, _ := b.key(t, issuer.NewKey{})
				spoil(b, &k)
				_, secret, err := b.rotate(ctx, k.ID, issuer.Rotate{Emergency: emergency})
				if problem.KindOf(err) != problem.Conflict || secret != "" {
					t.Errorf("%v (secret: %t), want a conflict", err, secret != "")
				}
				for _, n := range b.keys.rows {
					if !emergency && n.Previous() != "" {
						t.Errorf("a successor stands there: %+v", n)
					}
				}
			})
		}
	}
}

// Of two at once one wins, and the other is told who takes the key's place.
func TestTwoRotationsAtOnce(t *testing.T) {
	b := newBench(t)
	k, _ := b.key(t, issuer.NewKey{})
	var winner issuer.Rotated
	b.keys.onNew = func() {
		b.keys.onNew = nil
		_, _, err := b.rotate(context.Background(), k.ID, issuer.Rotate{}) // while the first makes its successor
		now, _ := b.stored(k.ID)
		if problem.KindOf(err) != problem.Conflict || !strings.Contains(err.Error(), now.Rotation.Next) {
			t.Errorf("the second: %v, want a conflict that names %s", err, now.Rotation.Next)
		}
	}
	winner, _, err := b.rotate(t.Context(), k.ID, issuer.Rotate{})
	must(t, 0, err)
	if _, _, err := b.rotate(t.Context(), k.ID, issuer.Rotate{Emergency: true}); problem.KindOf(err) != problem.Conflict || !strings.Contains(err.Error(), winner.Key.ID) {
		t.Errorf("later: %v", err)
	}
	if _, _, err := b.rotate(t.Context(), winner.Key.ID, issuer.Rotate{}); problem.KindOf(err) != problem.Conflict || !strings.Contains(err.Error(), k.ID) {
		t.Errorf("the successor in its turn: %v, want a conflict that names the old one", err)
	}
	if len(b.keys.rows) != 2 {
		t.Errorf("%d keys, want the two", len(b.keys.rows))
	}
}

// Whatever fails or is lost or crashes at whatever step: who was answered has a good key;
// who was not has the old one, as it was, or, in an emergency, nobody has it.
func TestRotationIsDoneOrTakenBackWhateverFails(t *testing.T) {
	for _, emergency := range []bool{false, true} {
		steps := 0
		synctest.Test(t, func(t *testing.T) { steps = rotateWith(t, emergency, -1, fine, false) })
		if steps < 3 {
			t.Fatalf("only %d steps were seen", steps)
		}
		for _, what := range []outcome{failed, lost} {
			for at := range steps {
				for _, crash := range []bool{false, true} {
					t.Run(fmt.Sprintf("emergency=%t/%d/%d/crash=%t", emergency, what, at, crash), func(t *testing.T) {
						synctest.Test(t, func(t *testing.T) { rotateWith(t, emergency, at, what, crash) })
					})
				}
			}
		}
	}
}

// rotateWith rotates a key while one step goes wrong; crash: whoever did it does nothing more.
func rotateWith(t *testing.T, emergency bool, at int, what outcome, crash bool) (steps int) {
	b := newBench(t)
	must(t, 0, second(b.CreateRole(t.Context(), operator(), "clerk", []string{"c"}, "test")))
	k, old := b.key(t, issuer.NewKey{Life: 30 * 24 * time.Hour})
	must(t, 0, second(b.Bind(t.Context(), operator(), issuer.NewBinding{Subject: "key_" + k.ID, Role: "clerk", Reason: "test"})))
	before, _ := b.gives(old)
	r := issuer.Rotate{Emergency: emergency}
	if !emergency {
		r.Overlap = time.Hour
	}
	b.failAt(at, what)
	b.p.dead = crash && at >= 0
	out, fresh, err := b.rotate(t.Context(), k.ID, r)
	b.p.mu.Lock()
	steps = b.p.n
	b.p.at, b.p.dead, b.p.died = -1, false, false
	b.p.mu.Unlock()
	stop := b.running(t)
	defer stop()
	time.Sleep(2 * time.Minute)
	now, there := b.stored(k.ID)
	_, oldGives := b.gives(old)
	switch {
	case err == nil:
		if _, ok := b.gives(fresh); !ok {
			t.Error("what was answered is not good")
		}
		if _, there := b.stored(out.Key.ID); !there {
			t.Error("the successor has no record")
		}
	case fresh != "" && !emergency:
		t.Errorf("a secret beside the error %v", err)
	}
	if emergency {
		touched := err == nil || !there || now.Rotation != nil
		if touched && (oldGives || !b.hit(before)) {
			t.Errorf("%v: the old one gives %t, its tokens are dead: %t", err, oldGives, b.hit(before))
		}
		if !touched && !oldGives {
			t.Error("nothing was begun, and the old one gives nothing")
		}
		return steps
	}
	if !oldGives || b.hit(before) {
		t.Errorf("%v: the old one gives %t, its tokens are dead: %t; want it good", err, oldGives, b.hit(before))
	}
	if crash && what == lost && now.Rotation != nil && now.Rotation.Made {
		return steps // it was done, and nobody was told: it is shown, and can be rolled back
	}
	if err != nil && (now.Rotation != nil || len(b.keys.rows) != 1 || len(b.bindings.rows) != 1) {
		t.Errorf("%v: left are %+v, %d keys and %d bindings; want the old ones alone", err, now.Rotation, len(b.keys.rows), len(b.bindings.rows))
	}
	return steps
}

// An emergency has no overlap, and says where the end stands in the log.
func TestEmergencyEndsTheOldKeyBeforeTheAnswer(t *testing.T) {
	b := newBench(t)
	k, old := b.key(t, issuer.NewKey{Scopes: []string{"a"}})
	c, _ := b.gives(old)
	out, fresh, err := b.rotate(t.Context(), k.ID, issuer.Rotate{Emergency: true})
	must(t, 0, err)
	if _, ok := b.gives(old); ok || !b.hit(c) || out.End.Answer.Sequence == 0 || out.End.Target != "key:"+k.ID || out.End.Next != out.Key.ID {
		t.Errorf("the old one gives %t, its token is dead: %t, the answer is %+v", ok, b.hit(c), out.End)
	}
	if _, ok := b.gives(fresh); !ok {
		t.Error("the new one gives nothing")
	}
	if _, _, err := b.rotate(t.Context(), out.Key.ID, issuer.Rotate{Emergency: true, Overlap: time.Hour}); problem.KindOf(err) != problem.Invalid {
		t.Errorf("an emergency with an overlap: %v", err)
	}
}

// Rolling back ends the successor alone; whatever fails, a sweep goes on with it.
func TestRollBackWhateverFails(t *testing.T) {
	steps := 0
	synctest.Test(t, func(t *testing.T) { steps = rollBackWith(t, -1, fine) })
	if steps < 3 {
		t.Fatalf("only %d steps were seen", steps)
	}
	for _, what := range []outcome{failed, lost} {
		for at := range steps {
			t.Run(fmt.Sprintf("%d/%d", what, at), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { rollBackWith(t, at, what) })
			})
		}
	}
}

func rollBackWith(t *testing.T, at int, what outcome) int {
	b := newBench(t)
	must(t, 0, second(b.CreateRole(t.Context(), operator(), "clerk", []string{"c"}, "test")))
	k, old := b.key(t, issuer.NewKey{Life: 30 * 24 * time.Hour})
	must(t, 0, second(b.Bind(t.Context(), operator(), issuer.NewBinding{Subject: "key_" + k.ID, Role: "clerk", Reason: "test"})))
	_, fresh, err := b.rotate(t.Context(), k.ID, issuer.Rotate{Overlap: time.Hour})
	must(t, 0, err)
	c, _ := b.gives(fresh)
	b.failAt(at, what)
	_, err = b.RollBack(t.Context(), operator(), k.ID, "it did not work")
	b.p.mu.Lock()
	steps := b.p.n
	b.p.at = -1
	b.p.mu.Unlock()
	if _, ok := b.gives(fresh); err == nil && (ok || !b.hit(c)) {
		t.Errorf("rolled back: the new one gives %t, its token is dead: %t", ok, b.hit(c))
	}
	stop := b.running(t)
	defer stop()
	time.Sleep(time.Minute)
	now, _ := b.stored(k.ID)
	if err != nil && now.Rotation != nil && now.Rotation.Back == nil { // nothing was done
		if _, ok := b.gives(fresh); !ok || b.hit(c) {
			t.Errorf("not rolled back: the new one gives %t, its token is dead: %t", ok, b.hit(c))
		}
		return steps
	}
	if _, ok := b.gives(old); !ok || now.Rotation != nil || len(b.keys.rows) != 1 || len(b.bindings.rows) != 1 || !b.hit(c) {
		t.Errorf("the old one gives %t and has %+v; %d keys, %d bindings, the new one's token is dead: %t", ok, now.Rotation, len(b.keys.rows), len(b.bindings.rows), b.hit(c))
	}
	time.Sleep(2 * time.Hour)
	if _, ok := b.gives(old); !ok {
		t.Error("the old one has ended all the same")
	}
	return steps
}

// During the overlap its end can be moved, within what the policy allows; and the old key can
// be ended or held without the new one.
func TestOverlapIsMovedWithinItsBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		stop := b.running(t)
		defer stop()
		k, old := b.key(t, issuer.NewKey{Life: 60 * 24 * time.Hour})
		ctx := t.Context()
		if _, err := b.SetOverlap(ctx, operator(), k.ID, time.Hour, "test"); problem.KindOf(err) != problem.Conflict {
			t.Errorf("of a key that is not rotated: %v", err)
		}
		if _, err := b.RollBack(ctx, operator(), k.ID, "test"); problem.KindOf(err) != problem.Conflict {
			t.Errorf("of a key that is not rotated: %v", err)
		}
		for _, overlap := range []time.Duration{time.Second, -time.Hour, 31 * 24 * time.Hour} {
			if _, _, err := b.rotate(ctx, k.ID, issuer.Rotate{Overlap: overlap}); problem.KindOf(err) != problem.Invalid {
				t.Errorf("overlap %v: %v", overlap, err)
			}
		}
		out, fresh, err := b.rotate(ctx, k.ID, issuer.Rotate{})
		must(t, 0, err)
		if d := out.Old.Rotation.Until.Sub(out.Old.Rotation.Begun); d != issuer.DefaultOverlap {
			t.Errorf("the overlap is %v, want that of the policy", d)
		}
		moved, err := b.SetOverlap(ctx, operator(), k.ID, 29*24*time.Hour, "they are slow")
		must(t, 0, err)
		time.Sleep(36 * time.Hour)
		if _, ok := b.gives(old); !ok {
			t.Errorf("it gives nothing before %v", moved.Rotation.Until)
		}
		if _, err := b.SetOverlap(ctx, operator(), k.ID, 29*24*time.Hour, "again"); problem.KindOf(err) != problem.Invalid {
			t.Errorf("beyond 30 days in all: %v", err)
		}
		must(t, 0, second(b.SetOverlap(ctx, operator(), k.ID, time.Minute, "they are done")))
		time.Sleep(time.Minute + 5*time.Second)
		if _, ok := b.gives(old); ok {
			t.Error("it gives a token after the end that was moved")
		}
		if _, err := b.RollBack(ctx, operator(), k.ID, "too late"); problem.KindOf(err) != problem.NotFound {
			t.Errorf("rolled back when it is over: %v", err)
		}

		again, fresher, err := b.rotate(ctx, out.Key.ID, issuer.Rotate{})
		must(t, 0, err)
		must(t, 0, second(b.DisableKey(ctx, operator(), out.Key.ID, "held")))
		if _, ok := b.gives(fresher); !ok {
			t.Error("a hold of the old one has taken the new one")
		}
		e, err := b.DeleteKey(ctx, operator(), out.Key.ID, "leaked")
		must(t, 0, err)
		if _, ok := b.gives(fresh); ok || e.Next != again.Key.ID {
			t.Errorf("deleted in the overlap: gives %t, and the answer names %q as what lives on; want %s", ok, e.Next, again.Key.ID)
		}
		if _, ok := b.gives(fresher); !ok {
			t.Error("the end of the old one has taken the new one")
		}
		found, err := b.Lookup(ctx, operator(), old)
		must(t, 0, err)
		if !slices.Equal(found.Successors, []string{again.Key.ID}) {
			t.Errorf("the first one's successors are %q, want %s", found.Successors, again.Key.ID)
		}
	})
}

// Whoever shows the secret of the key itself needs no right to make keys; a token of it, as
// every service is shown one, is not enough.
func TestKeyRotatesItselfByItsSecretAlone(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	k, secret := b.key(t, issuer.NewKey{Scopes: []string{"a"}})
	other, otherSecret := b.key(t, issuer.NewKey{})
	c, _ := b.gives(secret)
	of := func(k issuer.Key) []revoke.Key {
		return []revoke.Key{(revoke.Target{Tenant: "default", Issuer: revoke.Own, Kind: revoke.KindKey, ID: k.ID}).Key()}
	}
	alone := func(k issuer.Key) issuer.Caller {
		return issuer.Caller{Actor: "alice", Tenant: "default", Scopes: strings.Fields(c.Scope), Targets: of(k)}
	}
	for name, r := range map[string]struct {
		by issuer.Key
		id string
		issuer.Rotate
	}{
		"a token alone":          {k, k.ID, issuer.Rotate{}},
		"another's secret":       {k, k.ID, issuer.Rotate{Current: otherSecret}},
		"another's token":        {other, k.ID, issuer.Rotate{Current: secret}},
		"another key":            {k, other.ID, issuer.Rotate{Current: secret}},
		"one that is not there":  {k, strings.Repeat("x", 22), issuer.Rotate{Current: secret}},
		"the same without proof": {k, strings.Repeat("x", 22), issuer.Rotate{}},
	} {
		r.Scope = scopeOf
		if _, _, err := b.RotateKey(ctx, alone(r.by), r.id, r.Rotate); problem.KindOf(err) != problem.Forbidden {
			t.Errorf("%s: %v, want it forbidden", name, err)
		}
	}
	// To make one for all that it can do takes the right to give that.
	admin, _ := b.key(t, issuer.NewKey{Scopes: []string{rights.Revoke}})
	weak := issuer.Caller{Actor: "wanda", Tenant: "default", Scopes: []string{rights.KeysWrite}}
	if _, _, err := b.RotateKey(ctx, weak, admin.ID, issuer.Rotate{Scope: scopeOf}); problem.KindOf(err) != problem.Forbidden {
		t.Errorf("by who holds less: %v, want it forbidden", err)
	}
	out, fresh, err := b.RotateKey(ctx, alone(k), k.ID, issuer.Rotate{Current: secret, Scope: scopeOf, Reason: "test"})
	must(t, 0, err)
	if c, ok := b.gives(fresh.Reveal()); !ok || c.Scope != "a" || c.Subject != "alice" || out.Old.Rotation.By != "alice" {
		t.Errorf("%t %+v", ok, c)
	}
}

// A client's secret has a successor like any key, and what the client can do is the client's.
func TestClientSecretIsRotated(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	must(t, 0, second(b.CreateRole(ctx, operator(), "clerk", []string{"c"}, "test")))
	cl, k, old, err := b.CreateClient(ctx, operator(), issuer.NewClient{Name: "x", Grants: issuer.Grants(), Scopes: []string{"b"}, Roles: []string{"clerk"}, Reason: "test"})
	must(t, 0, err)
	keysAlone := issuer.Caller{Actor: "wanda", Tenant: "default", Scopes: []string{rights.KeysWrite}}
	if _, _, err := b.RotateKey(ctx, keysAlone, k.ID, issuer.Rotate{Scope: scopeOf}); problem.KindOf(err) != problem.Forbidden {
		t.Errorf("by who may not make secrets: %v", err)
	}
	_, fresh, err := b.rotate(ctx, k.ID, issuer.Rotate{})
	must(t, 0, err)
	for _, secret := range []string{old.Reveal(), fresh} {
		tok, err := b.ClientCredentials(ctx, issuer.TokenRequest{Client: issuer.ClientAuth{ID: cl.ID, Secret: secret}})
		if err != nil || tok.Claims.Scope != "b c" {
			t.Errorf("%v: %q", err, tok.Claims.Scope)
		}
	}
	must(t, 0, second(b.DeleteClient(ctx, operator(), cl.ID, "test")))
	if len(b.keys.rows) != 0 {
		t.Errorf("%d secrets are left of a client that is gone", len(b.keys.rows))
	}
}

// An imported key gets one of ours in its place.
func TestImportedKeyIsRotatedIntoOneOfOurs(t *testing.T) {
	b := newBench(t)
	in, err := b.ImportKeys(t.Context(), operator(), []issuer.ImportedKey{{NewKey: issuer.NewKey{Owner: "alice", Scopes: []string{"a"}}, SHA256: strings.Repeat("5e", 32)}}, "test")
	must(t, 0, err)
	out, fresh, err := b.rotate(t.Context(), in[0].ID, issuer.Rotate{Emergency: true})
	must(t, 0, err)
	if c, ok := b.gives(fresh); out.Key.Imported || !ok || c.Scope != "a" {
		t.Errorf("%+v gives %t %q", out.Key, ok, c.Scope)
	}
}

// The last key that rules the tenant can be rotated, and then ended; its successor can't be.
func TestLastAdminsKeyIsRotated(t *testing.T) {
	b, first := ruled(t)
	ctx := t.Context()
	out, _, err := b.rotate(ctx, first, issuer.Rotate{})
	must(t, 0, err)
	if _, err := b.DeleteKey(ctx, operator(), out.Key.ID, "test"); problem.KindOf(err) != problem.Conflict {
		t.Errorf("the successor is deleted while the old one is on its way out: %v, want a conflict", err)
	}
	must(t, 0, second(b.DeleteKey(ctx, operator(), first, "test")))
	if _, err := b.DeleteKey(ctx, operator(), out.Key.ID, "test"); problem.KindOf(err) != problem.Conflict {
		t.Errorf("the last one is deleted: %v, want a conflict", err)
	}
	must(t, 0, second(b.rotateEmergency(ctx, out.Key.ID)))
}

func (b *bench) rotateEmergency(ctx context.Context, id string) (issuer.Rotated, error) {
	out, _, err := b.rotate(ctx, id, issuer.Rotate{Emergency: true})
	return out, err
}

// Who still uses the old key is told, by each replica and by what they write, without what
// a caller says of itself being taken for more than that.
func TestUseOfTheOldKeyIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		stop := b.running(t)
		k, secret := b.key(t, issuer.NewKey{})
		use := func(agent string) {
			t.Helper()
			must(t, 0, second(b.Exchange(t.Context(), issuer.TokenRequest{APIKey: secret, Client: issuer.ClientAuth{From: netip.MustParseAddr("10.1.2.3"), Agent: agent}})))
		}
		use("before")
		time.Sleep(time.Minute)
		out, _, err := b.rotate(t.Context(), k.ID, issuer.Rotate{})
		must(t, 0, err)
		if u := b.UsedSince(&out.Old); u != (issuer.Use{}) {
			t.Errorf("not used since: %+v", u)
		}
		for range 1000 {
			time.Sleep(time.Second)
			use("shop/1.0\r\n" + secret + strings.Repeat("x", 200))
		}
		u := b.UsedSince(&out.Old)
		if u.Times != 1000 || u.From.String() != "10.1.2.3" || time.Since(u.At) > time.Minute || !strings.HasPrefix(u.Agent, "shop/1.0") || len(u.Agent) > 100 ||
			strings.Contains(u.Agent, secret) || strings.ContainsAny(u.Agent, "\r\n") {
			t.Errorf("%+v", u)
		}
		if n := b.writes("uses.create") + b.writes("uses.change"); n > 8 {
			t.Errorf("%d writes for 1,000 uses", n)
		}
		if keys, used := b.InOverlap(); keys != 1 || used != 1 {
			t.Errorf("%d keys in their overlap, %d of them used", keys, used)
		}
		stop()
		if u, _ := b.uses.Peek("default." + k.ID); u.Times != 1000 || u.Next != out.Key.ID {
			t.Errorf("%+v stands there", u)
		}
	})
}

// The same request again, after each step that may have failed or whose answer was lost, with
// whoever did it crashed: there is one successor, or it is named; and an emergency ends the
// old key, whichever try is answered.
func TestRotationIsTriedAgain(t *testing.T) {
	for _, emergency := range []bool{false, true} {
		steps := 0
		synctest.Test(t, func(t *testing.T) { steps = rotateAgain(t, emergency, -1, fine) })
		for _, what := range []outcome{failed, lost} {
			for at := range steps {
				t.Run(fmt.Sprintf("emergency=%t/%d/%d", emergency, what, at), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { rotateAgain(t, emergency, at, what) })
				})
			}
		}
	}
}

func rotateAgain(t *testing.T, emergency bool, at int, what outcome) (steps int) {
	b := newBench(t)
	k, old := b.key(t, issuer.NewKey{Life: 30 * 24 * time.Hour})
	before, _ := b.gives(old)
	r := issuer.Rotate{Emergency: emergency, Reason: "test", Scope: scopeOf}
	b.failAt(at, what)
	b.p.dead = at >= 0
	try := &fakeTry{}
	_, _, err := b.RotateKey(t.Context(), by(try), k.ID, r)
	b.p.mu.Lock()
	steps = b.p.n
	b.p.at, b.p.dead, b.p.died = -1, false, false
	b.p.mu.Unlock()
	if err == nil {
		return steps
	}
	out, fresh, err := b.RotateKey(t.Context(), by(try.next()), k.ID, r)
	was, there := b.stored(k.ID)
	var next []issuer.Key
	for _, n := range b.keys.rows {
		if n.ID != k.ID {
			next = append(next, n)
		}
	}
	if err == nil {
		if _, ok := b.gives(fresh.Reveal()); !ok || len(next) != 1 || next[0].ID != out.Key.ID {
			t.Errorf("the second try gives %t; %d successors", ok, len(next))
		}
	} else if problem.KindOf(err) != problem.Conflict || len(next) > 1 || len(next) == 1 && !emergency && !strings.Contains(fmt.Sprintf("%+v", problem.From(err)), next[0].ID) {
		t.Errorf("the second try: %v; %d successors, %+v", err, len(next), next)
	}
	_, oldGives := b.gives(old)
	if emergency && (oldGives || !b.hit(before) || there) {
		t.Errorf("after an emergency (%v) the old key gives %t, its token is dead: %t, it stands there: %t", err, oldGives, b.hit(before), there)
	}
	if !emergency && (!oldGives || was.Rotation == nil || len(next) != 1 || was.Rotation.Next != next[0].ID) {
		t.Errorf("(%v) the old key gives %t, and has %+v", err, oldGives, was.Rotation)
	}
	return steps
}

// What several replicas have seen of the old key adds up.
func TestUsesOfReplicasAddUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		stop := b.running(t)
		k, secret := b.key(t, issuer.NewKey{})
		out, _, err := b.rotate(t.Context(), k.ID, issuer.Rotate{})
		must(t, 0, err)
		other := issuer.Use{Tenant: "default", ID: k.ID, At: time.Now().UTC().Truncate(time.Minute).Add(2 * time.Minute), Agent: "other", Until: k.Expires, Next: out.Key.ID, Times: 5}
		b.uses.mu.Lock()
		b.uses.rows["default."+k.ID] = other
		b.uses.mu.Unlock()
		for range 3 {
			b.use(t, secret, "192.0.2.1")
		}
		if u := b.UsedSince(&out.Old); u.Times != 8 || u.Agent != "other" {
			t.Errorf("%+v, want 8 and the later of them", u)
		}
		stop()
		if u, _ := b.uses.Peek("default." + k.ID); u.Times != 8 || u.Agent != "other" || b.UsedSince(&out.Old).Times != 8 {
			t.Errorf("%+v stands there, want 8 and the later of them", u)
		}
	})
}

// What is used in the same minute before and after a rotation has begun counts as after it.
func TestUseInTheMinuteOfARotationCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		stop := b.running(t)
		defer stop()
		k, secret := b.key(t, issuer.NewKey{})
		b.use(t, secret, "192.0.2.1")
		time.Sleep(3 * time.Second) // it is written
		synctest.Wait()
		_, _, err := b.rotate(t.Context(), k.ID, issuer.Rotate{Overlap: time.Hour, Reason: "test"})
		must(t, 0, err)
		b.use(t, secret, "192.0.2.2")
		k, err = b.Key(t.Context(), operator(), k.ID)
		if use := b.UsedSince(&k); err != nil || use.Times != 1 || use.From.String() != "192.0.2.2" {
			t.Errorf("%+v, %v: want one use since, from the second address", use, err)
		}
	})
}
