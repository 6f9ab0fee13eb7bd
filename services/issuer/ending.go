package issuer

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/endings"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/problem"
)

// markable is what "mark, log, finish" needs to know of one kind of record.
type markable[T any] struct {
	kind     string
	table    Table[T]
	tenant   func(T) string
	mark     func(T) *endings.Mark
	withMark func(T, *endings.Mark) T
	// rewrite returns what the record becomes when it is not removed. nil: it is
	// always removed.
	rewrite func(T, *endings.Mark, revoke.Stamp) (T, error)
	// before is what is done before the record is rewritten. nil: nothing.
	before func(ctx context.Context, v T) error
	// dependents removes what hangs on the record, before the record itself and
	// after what the mark names.
	dependents func(ctx context.Context, v T) error
}

func (s *Service) keysMarkable() markable[Key] {
	return markable[Key]{
		kind: "keys", table: s.d.Store.Keys,
		tenant: func(k Key) string { return k.Tenant },
		mark:   func(k Key) *endings.Mark { return k.Mark },
		withMark: func(k Key, m *endings.Mark) Key {
			k.Mark = m
			return k
		},
		dependents: func(ctx context.Context, k Key) error {
			if k.Rotation != nil {
				if err := s.forgetDelivery(ctx, k.Tenant, k.Rotation.Next); err != nil {
					return err
				}
			}
			return s.forgetKey(ctx, k.Tenant, k.ID)
		},
	}
}

// principalsMarkable removes what the mark names, and bindings that were given while it was
// made: the name may come again, and must not have them.
func (s *Service) principalsMarkable() markable[Principal] {
	return markable[Principal]{
		kind: "principals", table: s.d.Store.Principals,
		tenant: func(p Principal) string { return p.Tenant },
		mark:   func(p Principal) *endings.Mark { return p.Mark },
		withMark: func(p Principal, m *endings.Mark) Principal {
			p.Mark = m
			return p
		},
		dependents: func(ctx context.Context, p Principal) error {
			if err := s.d.Store.Bindings.Fresh(ctx); err != nil {
				return err
			}
			return s.removeBindings(ctx, SubjectGroup(p.Tenant, p.ID), s.cutBy(target(p.Tenant, revoke.KindPrincipal, p.ID)))
		},
	}
}

func (s *Service) clientsMarkable() markable[Client] {
	return markable[Client]{
		kind: "clients", table: s.d.Store.Clients,
		tenant: func(c Client) string { return c.Tenant },
		mark:   func(c Client) *endings.Mark { return c.Mark },
		withMark: func(c Client, m *endings.Mark) Client {
			c.Mark = m
			return c
		},
		dependents: func(ctx context.Context, c Client) error {
			for _, k := range s.d.Store.Keys.Group(ClientGroup(c.Tenant, c.ID)) {
				if err := s.removeKey(ctx, k.Tenant, k.ID); err != nil {
					return err
				}
			}
			return s.removeBindings(ctx, SubjectGroup(c.Tenant, c.ID), every)
		},
	}
}

func (s *Service) rolesMarkable() markable[Role] {
	return markable[Role]{
		kind: "roles", table: s.d.Store.Roles,
		tenant: func(r Role) string { return r.Tenant },
		mark:   func(r Role) *endings.Mark { return r.Mark },
		withMark: func(r Role, m *endings.Mark) Role {
			r.Mark = m
			return r
		},
		rewrite: func(r Role, m *endings.Mark, stamp revoke.Stamp) (Role, error) {
			var scopes []string
			if err := json.Unmarshal(m.Next, &scopes); err != nil {
				return Role{}, err
			}
			r.Scopes, r.Stamp, r.Meta = scopes, stamp, m.Meta
			return r, nil
		},
		dependents: func(ctx context.Context, r Role) error {
			// The mark may name none: once the role is gone nobody looks for them any more.
			if err := s.d.Store.Bindings.Fresh(ctx); err != nil {
				return err
			}
			return s.removeBindings(ctx, RoleGroup(r.Tenant, r.ID), every)
		},
	}
}

func (s *Service) bindingsMarkable() markable[Binding] {
	return markable[Binding]{
		kind: "bindings", table: s.d.Store.Bindings,
		tenant: func(b Binding) string { return b.Tenant },
		mark:   func(b Binding) *endings.Mark { return b.Mark },
		withMark: func(b Binding, m *endings.Mark) Binding {
			b.Mark = m
			return b
		},
	}
}

// removeKey removes a key and what hangs on it.
func (s *Service) removeKey(ctx context.Context, tenant, id string) error {
	if err := s.forgetKey(ctx, tenant, id); err != nil {
		return err
	}
	return s.d.Store.Keys.Remove(ctx, RecordKey(tenant, id), func(Key) bool { return true })
}

// forgetKey removes what hangs on a key.
func (s *Service) forgetKey(ctx context.Context, tenant, id string) error {
	if err := errors.Join(s.forgetUse(ctx, RecordKey(tenant, id)), s.forgetDelivery(ctx, tenant, id)); err != nil {
		return err
	}
	return s.removeBindings(ctx, SubjectGroup(tenant, KeyClientPrefix+id), every)
}

// cutBy tells of bindings whether a cut of a target hits them: one that was given again has
// a stamp above it.
func (s *Service) cutBy(k revoke.Key) func(Binding) bool {
	return func(b Binding) bool { return s.d.Reader.View().Hit(k, b.Stamp) }
}

// every is for bindings of what has a random id: nobody is given them again.
func every(Binding) bool { return true }

// removeBindings removes those of a group that are gone.
func (s *Service) removeBindings(ctx context.Context, group string, gone func(Binding) bool) error {
	removing, ctx := errgroup.WithContext(ctx)
	removing.SetLimit(clearAtOnce)
	for _, b := range s.d.Store.Bindings.Group(group) {
		key := BindingKey(b.Tenant, b.Subject, b.Role.ID)
		removing.Go(func() error {
			return s.d.Store.Bindings.Remove(ctx, key, gone)
		})
	}
	return removing.Wait()
}

// errMarked stops a Change whose record carries a mark already.
var errMarked = errors.New("issuer: the record is marked")

// end marks a record, commits, and finishes. plan makes the mark from the
// record as it stands; a record that is ending in the same way already is gone
// on with, so that a repeated request is the same ending.
func end[T any](ctx context.Context, s *Service, c Caller, m markable[T], key string, plan func(T) (*endings.Mark, error)) (commit.Answer, error) {
	var planned *endings.Mark
	ours := false
	v, err := m.table.Change(ctx, key, func(v T) (T, error) {
		if have := m.mark(v); have != nil {
			ours = c.own(have) || planned != nil && have.ID == planned.ID
			planned = have
			return v, errMarked
		}
		mark, err := plan(v)
		if err != nil {
			return v, err
		}
		if planned == nil { // a lost race makes another plan under the same id
			planned = mark
		} else {
			mark.ID = planned.ID
			planned = mark
		}
		return m.withMark(v, mark), nil
	})
	if errors.Is(err, errMarked) {
		if v, err = m.table.Load(ctx, key); err != nil {
			return commit.Answer{}, err
		}
		if ours {
			return s.runner.Run(ctx, ending(s, m, key, v, planned))
		}
		want, planErr := plan(v)
		if planErr != nil {
			return commit.Answer{}, planErr
		}
		if (len(want.Next) == 0) != (len(planned.Next) == 0) || string(want.Next) != string(planned.Next) {
			return commit.Answer{}, problem.New(problem.Conflict, "it is being changed already; try again in a few seconds")
		}
	} else if err != nil {
		return commit.Answer{}, err
	}
	return s.runner.Run(ctx, ending(s, m, key, v, planned))
}

func ending[T any](s *Service, m markable[T], key string, v T, mark *endings.Mark) endings.Ending {
	return endings.Ending{
		Name: m.kind + "/" + key, Tenant: m.tenant(v), Mark: mark,
		Finish: func(ctx context.Context) error { return finish(ctx, s, m, key, v, mark) },
	}
}

func finish[T any](ctx context.Context, s *Service, m markable[T], key string, v T, mark *endings.Mark) error {
	still := func(v T) bool { have := m.mark(v); return have != nil && have.ID == mark.ID }
	if len(mark.Next) > 0 && m.rewrite != nil {
		if m.before != nil {
			if err := m.before(ctx, v); err != nil {
				return err
			}
		}
		// The own commit has been applied, so that this stamp is not below it.
		stamp := s.d.Reader.Stamp()
		_, err := m.table.Change(ctx, key, func(v T) (T, error) {
			if !still(v) {
				return v, errMarked
			}
			next, err := m.rewrite(v, mark, stamp)
			return m.withMark(next, nil), err
		})
		if errors.Is(err, errMarked) || problem.KindOf(err) == problem.NotFound && err != nil {
			return nil
		}
		return err
	}
	// Who is late must not take what came after: a name can be given again.
	now, err := m.table.Load(ctx, key)
	switch {
	case problem.KindOf(err) == problem.NotFound && err != nil:
		return nil
	case err != nil:
		return err
	case !still(now):
		return nil
	}
	if err := s.removeNamed(ctx, m.tenant(v), mark, key); err != nil {
		return err
	}
	if m.dependents != nil {
		if err := m.dependents(ctx, v); err != nil {
			return err
		}
	}
	return m.table.Remove(ctx, key, still)
}

// removeNamed removes the other keys and bindings that a mark names: whoever made
// it knew of them. The copy of whoever finishes may be behind, and once the record
// is gone nobody looks for them any more.
func (s *Service) removeNamed(ctx context.Context, tenant string, mark *endings.Mark, own string) error {
	removing, ctx := errgroup.WithContext(ctx)
	removing.SetLimit(clearAtOnce)
	for _, t := range mark.Targets {
		switch t.Kind {
		case revoke.KindKey:
			if RecordKey(tenant, t.ID) != own {
				removing.Go(func() error { return s.removeKey(ctx, tenant, t.ID) })
			}
		case revoke.KindBinding:
			k := target(tenant, revoke.KindBinding, t.ID)
			if key := RecordKey(tenant, k.String()); key != own {
				removing.Go(func() error { return s.d.Store.Bindings.Remove(ctx, key, s.cutBy(k)) })
			}
		default: // the record itself
		}
	}
	return removing.Wait()
}

// SweepPeriod is how often each replica looks for marks that others left.
const SweepPeriod = 2 * time.Second

// Run goes on with endings that somebody did not finish, writes when keys were used, and
// tells of those that come to their end, until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	var beside sync.WaitGroup
	defer beside.Wait()
	beside.Go(func() { s.writeUses(ctx) })
	beside.Go(func() { s.watchExpiry(ctx) })
	beside.Go(func() { s.watchRotations(ctx) })
	s.runner.Sweep(ctx, SweepPeriod, func() []endings.Ending {
		var out []endings.Ending
		out = pending(s, out, s.backMarkable(), RotatingGroup, func(k Key) string { return RecordKey(k.Tenant, k.ID) })
		out = pending(s, out, s.tenantsMarkable(), MarkedGroup, func(t Tenant) string { return t.Name })
		out = pending(s, out, s.principalsMarkable(), MarkedGroup, func(p Principal) string { return PrincipalKey(p.Tenant, p.ID) })
		out = pending(s, out, s.keysMarkable(), MarkedGroup, func(k Key) string { return RecordKey(k.Tenant, k.ID) })
		out = pending(s, out, s.clientsMarkable(), MarkedGroup, func(c Client) string { return RecordKey(c.Tenant, c.ID) })
		out = pending(s, out, s.rolesMarkable(), MarkedGroup, func(r Role) string { return RoleKey(r.Tenant, r.Name) })
		out = pending(s, out, s.bindingsMarkable(), MarkedGroup, func(b Binding) string { return BindingKey(b.Tenant, b.Subject, b.Role.ID) })
		return out
	})
	return nil
}

func pending[T any](s *Service, out []endings.Ending, m markable[T], group string, key func(T) string) []endings.Ending {
	for _, v := range m.table.Group(group) {
		if mark := m.mark(v); mark != nil {
			out = append(out, ending(s, m, key(v), v, mark))
		}
	}
	return out
}

// Ended is the answer to a request that took something away.
type Ended struct {
	Target string // what was revoked
	Answer commit.Answer
	Next   string // id of the key that has taken the place of the one that was ended; empty: none
}
