package issuer

import (
	"context"
	"encoding/json"
	"errors"
	"time"

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
			return s.removeBindings(ctx, SubjectGroup(k.Tenant, KeyClientPrefix+k.ID))
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
				if err := s.removeBindings(ctx, SubjectGroup(k.Tenant, KeyClientPrefix+k.ID)); err != nil {
					return err
				}
				if err := s.d.Store.Keys.Remove(ctx, RecordKey(k.Tenant, k.ID), func(Key) bool { return true }); err != nil {
					return err
				}
			}
			return s.removeBindings(ctx, SubjectGroup(c.Tenant, c.ID))
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
			return s.removeBindings(ctx, RoleGroup(r.Tenant, r.ID))
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

func (s *Service) removeBindings(ctx context.Context, group string) error {
	for _, b := range s.d.Store.Bindings.Group(group) {
		key := BindingKey(b.Tenant, b.Subject, b.Role.ID)
		if err := s.d.Store.Bindings.Remove(ctx, key, func(Binding) bool { return true }); err != nil {
			return err
		}
	}
	return nil
}

// errMarked stops a Change whose record carries a mark already.
var errMarked = errors.New("issuer: the record is marked")

// end marks a record, commits, and finishes. plan makes the mark from the
// record as it stands; a record that is ending in the same way already is gone
// on with, so that a repeated request is the same ending.
func end[T any](ctx context.Context, s *Service, m markable[T], key string, plan func(T) (*endings.Mark, error)) (commit.Answer, error) {
	var planned *endings.Mark
	v, err := m.table.Change(ctx, key, func(v T) (T, error) {
		if have := m.mark(v); have != nil {
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
	for _, t := range mark.Targets {
		var err error
		switch t.Kind {
		case revoke.KindKey:
			if key := RecordKey(tenant, t.ID); key != own {
				err = s.d.Store.Keys.Remove(ctx, key, func(Key) bool { return true })
			}
		case revoke.KindBinding:
			if key := RecordKey(tenant, target(tenant, revoke.KindBinding, t.ID).String()); key != own {
				err = s.d.Store.Bindings.Remove(ctx, key, func(Binding) bool { return true })
			}
		default: // the record itself
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// SweepPeriod is how often each replica looks for marks that others left.
const SweepPeriod = 2 * time.Second

// Run goes on with endings that somebody did not finish, until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	s.runner.Sweep(ctx, SweepPeriod, func() []endings.Ending {
		var out []endings.Ending
		out = pending(s, out, s.keysMarkable(), func(k Key) string { return RecordKey(k.Tenant, k.ID) })
		out = pending(s, out, s.clientsMarkable(), func(c Client) string { return RecordKey(c.Tenant, c.ID) })
		out = pending(s, out, s.rolesMarkable(), func(r Role) string { return RoleKey(r.Tenant, r.Name) })
		out = pending(s, out, s.bindingsMarkable(), func(b Binding) string { return BindingKey(b.Tenant, b.Subject, b.Role.ID) })
		return out
	})
	return nil
}

func pending[T any](s *Service, out []endings.Ending, m markable[T], key func(T) string) []endings.Ending {
	for _, v := range m.table.Group(MarkedGroup) {
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
}
