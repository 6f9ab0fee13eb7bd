package simulation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/quash-project/quash/services/issuer"
	"github.com/quash-project/quash/shared/problem"
	"github.com/quash-project/quash/shared/rights"
)

// apiKey is an API key or a client secret, as who asked for it knows it.
type apiKey struct {
	id, secret string
	app        *app // of a client
	isSecret   bool // that of its client
}

// app is a client.
type app struct{ id string }

// role is a role. Only one at a time changes it.
type role struct {
	id, name string
	busy     atomic.Bool
	n        int    // how many scopes it has had
	extra    string // the last of them, if it is known to have it
}

// binding is a role that somebody was given.
type binding struct {
	subject string
	role    *role
}

// pick returns one of those that there are, nil for none.
func pick[T any](s *scenario, of *[]*T) *T {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(*of) == 0 {
		return nil
	}
	return (*of)[s.w.c.below(len(*of))]
}

// keep adds one, and forgets one of many.
func keep[T any](s *scenario, of *[]*T, x *T, most int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*of = append(*of, x)
	if len(*of) > most {
		i := s.w.c.below(most)
		*of = append((*of)[:i:i], (*of)[i+1:]...)
	}
}

func somebody() issuer.Caller {
	return issuer.Caller{Actor: "somebody", Tenant: tenant, Scopes: rights.All()}
}

// at asks a replica of the issuer. The answer of a dead one reaches nobody.
func (s *scenario) at(ctx context.Context, do func(context.Context, *issuer.Service) error) error {
	var p *process
	for n, i := s.w.c.below(len(s.issuers)), 0; i < len(s.issuers) && p == nil; i++ {
		p = s.issuers[(n+i)%len(s.issuers)].current()
	}
	if p == nil {
		return errNobody
	}
	try, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	defer context.AfterFunc(p.ctx, cancel)()
	err := do(try, p.service)
	switch {
	case p.dead.Load():
		return errDead
	case s.w.b.goes(60):
		return errLost
	}
	return err
}

// issue makes records and tokens until ctx ends.
func (s *scenario) issue(ctx context.Context, n int) {
	for i := 0; pause(ctx, 50*time.Millisecond+s.w.c.upTo(500*time.Millisecond)); i++ {
		name := fmt.Sprintf("%d-%d", n, i)
		switch s.w.c.below(20) {
		case 0:
			s.makeApp(ctx, name)
		case 1:
			s.makeRole(ctx, name)
		case 2:
			s.bind(ctx)
		case 3, 4:
			s.widen(ctx)
		case 5, 6, 7, 8:
			s.makeKey(ctx, s.w.c.below(nNames))
		default:
			s.exchange(ctx)
		}
	}
}

func (s *scenario) makeApp(ctx context.Context, name string) {
	n := issuer.NewClient{Name: "app " + name, Grants: issuer.Grants(), Scopes: []string{"read"}}
	if r := pick(s, &s.roles); r != nil {
		n.Roles = []string{r.name}
	}
	_ = s.at(ctx, func(ctx context.Context, sv *issuer.Service) error {
		c, k, secret, err := sv.CreateClient(ctx, somebody(), n)
		if err == nil {
			a := &app{id: c.ID}
			keep(s, &s.apps, a, 6)
			keep(s, &s.keys, &apiKey{id: k.ID, secret: secret.Reveal(), app: a, isSecret: true}, 30)
		}
		return err
	})
}

func (s *scenario) makeRole(ctx context.Context, name string) *role {
	var made *role
	_ = s.at(ctx, func(ctx context.Context, sv *issuer.Service) error {
		r, err := sv.CreateRole(ctx, somebody(), "role-"+name, []string{"base"}, "simulated")
		if err == nil {
			made = &role{id: r.ID, name: r.Name}
			keep(s, &s.roles, made, 6)
		}
		return err
	})
	return made
}

func (s *scenario) bind(ctx context.Context) {
	r := pick(s, &s.roles)
	if r == nil {
		return
	}
	b := &binding{principal(s.w.c.below(nNames)).ID, r}
	if k := pick(s, &s.keys); k != nil && !k.isSecret && s.w.c.one(2) {
		b.subject = issuer.KeyClientPrefix + k.id
	}
	err := s.at(ctx, func(ctx context.Context, sv *issuer.Service) error {
		_, err := sv.Bind(ctx, somebody(), issuer.NewBinding{Subject: b.subject, Role: r.name})
		return err
	})
	if err == nil {
		keep(s, &s.bindings, b, 12)
	}
}

// widen gives a role a scope that nothing has had before.
func (s *scenario) widen(ctx context.Context) {
	r := pick(s, &s.roles)
	if r == nil || !r.busy.CompareAndSwap(false, true) {
		return
	}
	defer r.busy.Store(false)
	if r.extra != "" {
		return
	}
	r.n++
	extra := fmt.Sprintf("%s.%d", r.name, r.n)
	err := s.at(ctx, func(ctx context.Context, sv *issuer.Service) error {
		_, _, err := sv.SetRole(ctx, somebody(), r.name, []string{"base", extra}, "simulated")
		return err
	})
	if err == nil {
		r.extra = extra
	}
}

func (s *scenario) makeKey(ctx context.Context, owner int) *apiKey {
	n := issuer.NewKey{Owner: principal(owner).ID, Scopes: []string{"read"}, OwnerRoles: s.w.c.one(2)}
	if r := pick(s, &s.roles); r != nil && s.w.c.one(2) {
		n.Roles = []string{r.name}
	}
	k := &apiKey{}
	if a := pick(s, &s.apps); a != nil && s.w.c.one(3) {
		n.Client, k.app = a.id, a
	}
	made, err := s.newKey(ctx, n)
	if err != nil {
		return nil
	}
	k.id, k.secret = made.id, made.secret
	keep(s, &s.keys, k, 30)
	return k
}

func (s *scenario) newKey(ctx context.Context, n issuer.NewKey) (k *apiKey, err error) {
	err = s.at(ctx, func(ctx context.Context, sv *issuer.Service) error {
		made, secret, err := sv.CreateKey(ctx, somebody(), n)
		if err == nil {
			k = &apiKey{id: made.ID, secret: secret.Reveal()}
		}
		return err
	})
	return k, err
}

// exchange gives a key, alive or not, for a token.
func (s *scenario) exchange(ctx context.Context) *thing {
	return s.exchangeOf(ctx, pick(s, &s.keys))
}

func (s *scenario) exchangeOf(ctx context.Context, k *apiKey) *thing {
	if k == nil {
		return nil
	}
	x, err := s.tokenOf(ctx, k)
	switch {
	case err == nil:
		s.addToken(x)
		s.w.truth.count("tokens")
	case problem.KindOf(err) == problem.Unavailable:
		s.w.truth.count("tokens not now")
	case errors.Is(err, errLost), errors.Is(err, errDead), errors.Is(err, errNobody):
	default:
		s.w.truth.count("tokens refused")
		s.buried(k)
	}
	return x
}

// buried forgets one that is good for nothing, mostly: that it stays so is for the
// next day.
func (s *scenario) buried(k *apiKey) {
	s.mu.Lock()
	i := slices.Index(s.keys, k)
	if i >= 0 && s.w.c.one(2) {
		s.keys = slices.Delete(s.keys, i, i+1)
	} else {
		i = -1
	}
	s.mu.Unlock()
	if i >= 0 {
		keep(s, &s.dead, k, 40)
	}
}

func (s *scenario) tokenOf(ctx context.Context, k *apiKey) (x *thing, err error) {
	err = s.at(ctx, func(ctx context.Context, sv *issuer.Service) error {
		var t issuer.Token
		var err error
		if k.isSecret {
			t, err = sv.ClientCredentials(ctx, issuer.TokenRequest{Client: issuer.ClientAuth{ID: k.app.id, Secret: k.secret}})
		} else {
			t, err = sv.Exchange(ctx, issuer.TokenRequest{APIKey: k.secret})
		}
		if err != nil {
			return err
		}
		x, err = s.made(t, k.id, fmt.Sprintf("a token of the key %s with %v", k.id, t.Scopes))
		return err
	})
	return x, err
}
