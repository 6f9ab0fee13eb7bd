package simulation

import (
	"context"
	"slices"
	"time"

	"github.com/quash-project/quash/services/issuer"
	"github.com/quash-project/quash/services/revocation/fleet"
	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/problem"
)

// takeAway ends credentials, clients, principals, roles and bindings, and narrows roles, until
// ctx ends. Now and then it makes good what a cut has killed.
func (s *scenario) takeAway(ctx context.Context) {
	for pause(ctx, 200*time.Millisecond+s.w.c.upTo(2*time.Second)) {
		s.takeOne(ctx)
	}
}

func (s *scenario) takeOne(ctx context.Context) {
	switch s.w.c.below(13) {
	case 0, 1, 2:
		s.deleteKey(ctx, pick(s, &s.keys))
	case 3:
		s.deleteApp(ctx, pick(s, &s.apps))
	case 4:
		s.deleteRole(ctx, pick(s, &s.roles))
	case 5, 6:
		s.unbind(ctx, pick(s, &s.bindings))
	case 7, 8, 9:
		s.narrow(ctx, pick(s, &s.roles))
	case 10:
		if k := pick(s, &s.keys); k != nil {
			_ = s.at(ctx, func(ctx context.Context, sv *issuer.Service) error {
				_, err := sv.RenewKey(ctx, somebody(), k.id, "simulated")
				return err
			})
		}
	case 11:
		if r := pick(s, &s.roles); r != nil {
			_ = s.at(ctx, func(ctx context.Context, sv *issuer.Service) error {
				_, err := sv.RenewRole(ctx, somebody(), r.name, "simulated")
				return err
			})
		}
	case 12:
		s.deletePrincipal(ctx, principal(s.w.c.below(nNames)))
	}
}

// deletePrincipal deletes a principal, and whoever makes a key for it next goes on with
// the name. It gets a record first, if it has none.
func (s *scenario) deletePrincipal(ctx context.Context, t revoke.Target) {
	_ = s.at(ctx, func(ctx context.Context, sv *issuer.Service) error {
		_, err := sv.CreatePrincipal(ctx, somebody(), issuer.NewPrincipal{ID: t.ID, Kind: issuer.Workload, Reason: "simulated"})
		return err
	})
	s.end1(ctx, &fact{target: t}, func(ctx context.Context, sv *issuer.Service) (*issuer.Ended, error) {
		e, err := sv.DeletePrincipal(ctx, somebody(), t.ID, "simulated")
		return &e, err
	})
}

func (s *scenario) deleteKey(ctx context.Context, k *apiKey) {
	if k == nil {
		return
	}
	s.end1(ctx, &fact{target: own(revoke.KindKey, k.id), app: k.app}, func(ctx context.Context, sv *issuer.Service) (*issuer.Ended, error) {
		e, err := sv.DeleteKey(ctx, somebody(), k.id, "simulated")
		return &e, err
	})
}

// deleteApp deletes a client. Its id is never given out again.
func (s *scenario) deleteApp(ctx context.Context, a *app) {
	if a == nil {
		return
	}
	s.end1(ctx, &fact{target: own(revoke.KindClient, a.id), final: true}, func(ctx context.Context, sv *issuer.Service) (*issuer.Ended, error) {
		e, err := sv.DeleteClient(ctx, somebody(), a.id, "simulated")
		return &e, err
	})
}

func (s *scenario) deleteRole(ctx context.Context, r *role) {
	if r == nil || !r.busy.CompareAndSwap(false, true) {
		return
	}
	defer r.busy.Store(false)
	s.end1(ctx, &fact{target: own(revoke.KindRole, r.id), final: true}, func(ctx context.Context, sv *issuer.Service) (*issuer.Ended, error) {
		e, err := sv.DeleteRole(ctx, somebody(), r.name, "simulated")
		return &e, err
	})
}

func (s *scenario) unbind(ctx context.Context, b *binding) {
	if b == nil {
		return
	}
	s.end1(ctx, &fact{target: own(revoke.KindBinding, revoke.PairID(b.subject, b.role.id))}, func(ctx context.Context, sv *issuer.Service) (*issuer.Ended, error) {
		e, err := sv.Unbind(ctx, somebody(), b.subject, b.role.name, "simulated")
		return &e, err
	})
}

// narrow takes from a role the scope that it was given last.
func (s *scenario) narrow(ctx context.Context, r *role) {
	if r == nil || !r.busy.CompareAndSwap(false, true) {
		return
	}
	defer r.busy.Store(false)
	if r.extra == "" {
		return
	}
	f := &fact{target: own(revoke.KindRole, r.id), scope: r.extra}
	r.extra = ""
	s.end1(ctx, f, func(ctx context.Context, sv *issuer.Service) (*issuer.Ended, error) {
		_, e, err := sv.SetRole(ctx, somebody(), r.name, []string{"base"}, "simulated")
		return e, err
	})
}

// end1 asks until it is answered, or gives up.
func (s *scenario) end1(ctx context.Context, f *fact, do func(context.Context, *issuer.Service) (*issuer.Ended, error)) {
	s.w.truth.askFact(f)
	for range 8 {
		var e *issuer.Ended
		err := s.at(ctx, func(ctx context.Context, sv *issuer.Service) (err error) { e, err = do(ctx, sv); return err })
		switch {
		case err == nil && e != nil:
			a := e.Answer
			if s.w.truth.ended(f, a.Stamp()) {
				s.follow(ctx, f, fleet.Entry{At: a.Stamp(), CommittedAt: time.UnixMilli(a.CommittedAt)})
			}
			return
		// Somebody has done it before. Of a binding that says nothing: there may
		// never have been one.
		case err == nil, problem.KindOf(err) == problem.NotFound && (f.final || f.target.Kind.Final()):
			st := s.stateInLog(f.key)
			if s.w.truth.everBack() && !(f.target.Kind.Final() && st.Ended) {
				return // who did it was not answered, and what they did may be lost
			}
			if f.app != nil && !st.Ended && !s.stateInLog(own(revoke.KindClient, f.app.id).Key()).Cut.IsZero() {
				return // it went with its client
			}
			s.w.truth.ended(f, st.Cut)
			return
		case problem.KindOf(err) == problem.NotFound:
			return
		}
		if !pause(ctx, s.w.c.upTo(2*time.Second)) {
			break
		}
	}
	s.w.truth.count("endings given up")
}

func (t *truth) askFact(f *fact) {
	f.op, f.key, f.asked, f.confirmed = commit.Revoke, f.target.Key(), time.Now(), map[string]time.Time{}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.facts[f.key] = append(t.facts[f.key], f)
	t.all = append(t.all, f)
}

func (t *truth) everBack() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.backs) > 0
}

// ended notes that an issuer has said of something that it is ended. It takes a
// while from the commit to here: when the log went back meanwhile, nothing is
// known of who holds it, and nothing is said.
func (t *truth) ended(f *fact, at revoke.Stamp) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if slices.ContainsFunc(t.backs, func(b back) bool { return b.at.After(f.asked) }) {
		t.counts["endings while the log went back"]++
		return false
	}
	f.acked, f.at = time.Now(), at
	t.counts["endings"]++
	return true
}

// revoked reports whether somebody has asked to end a key by its target alone, so
// that its record stays.
func (t *truth) revoked(id string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.ContainsFunc(t.facts[own(revoke.KindKey, id).Key()], func(f *fact) bool { return f.direct })
}
