package issuer

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/quash-project/quash/shared/apikey"
	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/endings"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/problem"
)

// NewBinding asks that a role be given to a subject.
type NewBinding struct {
	Subject string // a principal, client_... or key_...
	Role    string // by name
	Reason  string
}

// Bind gives a role to a subject. Doing it again is the same binding.
func (s *Service) Bind(ctx context.Context, c Caller, n NewBinding) (Binding, error) {
	if err := s.checkTenant(c); err != nil {
		return Binding{}, err
	}
	if err := s.checkSubject(ctx, c, n.Subject); err != nil {
		return Binding{}, err
	}
	if err := checkRoleName("role", n.Role); err != nil {
		return Binding{}, err
	}
	return s.bind(ctx, c, n, "role")
}

func (s *Service) bind(ctx context.Context, c Caller, n NewBinding, field string) (Binding, error) {
	return stampFirst(ctx, s, true, func(m *making) (Binding, error) {
		r, err := s.giveRole(ctx, m, c, field, n.Role)
		if err != nil {
			return Binding{}, err
		}
		group := s.d.Store.Bindings.Group(SubjectGroup(c.Tenant, n.Subject))
		there := func(b Binding) bool { return b.Role.ID == r.ID }
		if len(group) >= MaxRoles && !slices.ContainsFunc(group, there) {
			return Binding{}, problem.New(problem.Conflict, "%.80q has %d roles already: that is the most", n.Subject, len(group))
		}
		b := Binding{
			Tenant: c.Tenant, Subject: n.Subject, Role: r.Ref(), Stamp: m.stamp,
			Created: m.now.UTC().Truncate(time.Millisecond), Meta: s.meta(c, n.Reason),
		}
		key := BindingKey(b.Tenant, b.Subject, b.Role.ID)
		err = s.d.Store.Bindings.Create(ctx, key, b)
		if err == nil || problem.KindOf(err) != problem.Conflict {
			return b, err
		}
		return s.rebind(ctx, m, c, key, n)
	})
}

// rebind meets a binding that is there already: one that is dead by a cut gets
// a new stamp, since giving again is what was asked for.
func (s *Service) rebind(ctx context.Context, m *making, c Caller, key string, n NewBinding) (Binding, error) {
	return s.d.Store.Bindings.Change(ctx, key, func(b Binding) (Binding, error) {
		if b.Mark != nil {
			return b, problem.New(problem.Conflict, "this binding is being taken away; try again in a few seconds")
		}
		b.Stamp, b.Meta = m.stamp, s.meta(c, n.Reason)
		return b, nil
	})
}

func (s *Service) checkSubject(ctx context.Context, c Caller, subject string) error {
	switch {
	case strings.HasPrefix(subject, ClientPrefix):
		if _, err := s.Client(ctx, c, subject); err != nil {
			return notFoundField(err, "subject", "there is no client %.80q", subject)
		}
		return nil
	case strings.HasPrefix(subject, KeyClientPrefix):
		id := strings.TrimPrefix(subject, KeyClientPrefix)
		k, err := s.Key(ctx, c, id)
		if err == nil && k.Kind != APIKey || !apikey.IsID(id) {
			return problem.FieldError("subject", "%.80q is no API key", subject)
		}
		return notFoundField(err, "subject", "there is no API key %.80q", subject)
	}
	err := checkOwner(subject)
	if e := problem.From(err); err != nil {
		e.Field = "subject"
		return e
	}
	return nil
}

// BindingFilter narrows a list. Empty parts don't.
type BindingFilter struct {
	Subject string
	Role    string // by name
}

// Bindings returns the bindings of the tenant that fit, oldest first.
func (s *Service) Bindings(_ context.Context, c Caller, f BindingFilter) ([]Binding, error) {
	if err := s.checkTenant(c); err != nil {
		return nil, err
	}
	var out []Binding
	for _, b := range s.d.Store.Bindings.All() {
		if b.Tenant == c.Tenant && (f.Subject == "" || b.Subject == f.Subject) && (f.Role == "" || b.Role.Name == f.Role) {
			out = append(out, b)
		}
	}
	slices.SortFunc(out, func(a, b Binding) int { return byAge(a.Created, a.BindingID(), b.Created, b.BindingID()) })
	return out, nil
}

// Unbind takes a role from a subject: the binding is cut and its record removed.
func (s *Service) Unbind(ctx context.Context, c Caller, subject, role, reason string) (Ended, error) {
	r, err := s.Role(ctx, c, role)
	if err != nil {
		return Ended{}, err
	}
	key := BindingKey(c.Tenant, subject, r.ID)
	if _, err := s.d.Store.Bindings.Load(ctx, key); err != nil {
		if problem.KindOf(err) == problem.NotFound {
			err = problem.New(problem.NotFound, "%.80q does not have the role %q", subject, role)
		}
		return Ended{}, err
	}
	id := revoke.PairID(subject, r.ID)
	a, err := end(ctx, s, s.bindingsMarkable(), key, func(b Binding) (*endings.Mark, error) {
		m, err := endings.NewMark(s.d.Rand, s.meta(c, reason), commit.Target{Kind: revoke.KindBinding, ID: b.BindingID()})
		if err == nil {
			// The same target takes the role from API keys of the principal that were
			// made with it, and their records stay: the entry has to outlive them.
			m.Record = reserved(b.Subject)
		}
		return m, err
	})
	return Ended{Target: revoke.Target{Kind: revoke.KindBinding, ID: id}.String(), Answer: a}, err
}
