package issuer

import (
	"context"
	"errors"
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
	Subject string        // a principal, client_... or key_...
	Role    string        // by name
	Life    time.Duration // 0: it does not end by itself
	Reason  string
}

// The shortest and the longest life of a binding that ends by itself.
const (
	MinBindingLife = time.Minute
	MaxBindingLife = MaxKeyLife
)

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
	if n.Life != 0 && (n.Life < MinBindingLife || n.Life > MaxBindingLife) {
		return Binding{}, problem.FieldError("expires_in", "%v: want %v to %v (400 days), or nothing", n.Life, MinBindingLife, MaxBindingLife)
	}
	return s.bind(ctx, c, n, "role")
}

func (s *Service) bind(ctx context.Context, c Caller, n NewBinding, field string) (Binding, error) {
	return stampFirst(ctx, s, true, func(m *making) (Binding, error) {
		if err := s.staying(ctx, n.Subject); err != nil {
			return Binding{}, err
		}
		r, err := s.giveRole(ctx, m, c, field, n.Role)
		if err != nil {
			return Binding{}, err
		}
		others := 0
		for _, b := range s.d.Store.Bindings.Group(SubjectGroup(c.Tenant, n.Subject)) {
			if b.Role.ID != r.ID && !b.Ended(m.now) && s.roleStands(ctx, b) {
				others++
			}
		}
		if others >= MaxRoles {
			return Binding{}, problem.New(problem.Conflict, "%.80q has %d roles already: that is the most", n.Subject, others)
		}
		b := Binding{
			Tenant: c.Tenant, Subject: n.Subject, Role: r.Ref(), Stamp: m.stamp,
			Created: m.now.UTC().Truncate(time.Millisecond), Meta: s.meta(c, n.Reason),
		}
		if n.Life > 0 {
			b.Expires = b.Created.Add(n.Life)
		}
		if _, err := s.lasts(ctx, c, "expires_in", r.Scopes, b.Expires); err != nil {
			return Binding{}, err
		}
		key := BindingKey(b.Tenant, b.Subject, b.Role.ID)
		err = s.d.Store.Bindings.Create(ctx, key, b)
		switch {
		case err == nil:
			return b, s.outlives(ctx, key, b)
		case problem.KindOf(err) != problem.Conflict:
			return b, err
		}
		return s.rebind(ctx, key, b)
	})
}

// outlives wants that neither the role nor the subject of a binding has ended while its
// record was made: their end takes the bindings that are there by then, and this one would
// be left for whoever gets the name next. It is taken back.
func (s *Service) outlives(ctx context.Context, key string, b Binding) error {
	err := s.stillThere(ctx, b)
	if err == nil {
		return nil
	}
	same := func(now Binding) bool { return now.Stamp == b.Stamp && now.Mark == nil }
	if failed := s.d.Store.Bindings.Remove(ctx, key, same); failed != nil && problem.KindOf(failed) != problem.NotFound {
		return errors.Join(err, failed)
	}
	return err
}

func (s *Service) stillThere(ctx context.Context, b Binding) error {
	r, err := s.d.Store.Roles.Load(ctx, RoleKey(b.Tenant, b.Role.Name))
	switch {
	case err != nil && problem.KindOf(err) != problem.NotFound:
		return err
	case err != nil || r.ID != b.Role.ID:
		return problem.FieldError("role", "the role %.80q was deleted meanwhile", b.Role.Name)
	case r.Mark != nil:
		return problem.New(problem.Unavailable, "role %q is being changed; try again", r.Name)
	}
	if err := s.staying(ctx, b.Subject); err != nil || reserved(b.Subject) {
		return err
	}
	// Where no record is left, the log has its end.
	if err := s.d.Reader.Fresh(ctx); err != nil {
		return problem.Wrap(problem.Unavailable, err, "the log can't be followed now, so nothing can be given; try again")
	}
	if s.d.Reader.View().Hit(target(b.Tenant, revoke.KindPrincipal, b.Subject), b.Stamp) {
		return problem.New(problem.Conflict, "%.80q was cut meanwhile: give the role again if it is still meant to be", b.Subject)
	}
	return nil
}

// roleStands reports whether the role of a binding is there, or may be. A binding that was
// left behind by a role that has ended gives nothing and counts for nothing.
func (s *Service) roleStands(ctx context.Context, b Binding) bool {
	r, err := s.d.Store.Roles.Get(ctx, RoleKey(b.Tenant, b.Role.Name))
	if err != nil {
		return problem.KindOf(err) != problem.NotFound
	}
	return r.ID == b.Role.ID
}

// rebind meets a binding that is there already: one that is dead by a cut gets
// a new stamp, since giving again is what was asked for. Its end can be moved away, not
// nearer: tokens that were made with it may live until the one that it had.
func (s *Service) rebind(ctx context.Context, key string, again Binding) (Binding, error) {
	return s.d.Store.Bindings.Change(ctx, key, func(b Binding) (Binding, error) {
		if b.Mark != nil {
			return b, problem.New(problem.Conflict, "this binding is being taken away; try again in a few seconds")
		}
		sooner := !again.Expires.IsZero() && (b.Expires.IsZero() || again.Expires.Before(b.Expires))
		if sooner && !b.Ended(again.Created) {
			return b, problem.New(problem.Conflict, "%.80q has the role %q for longer, or for ever: take it away first (unbind), then give it anew", b.Subject, b.Role.Name)
		}
		b.Stamp, b.Expires, b.Meta = again.Stamp, again.Expires, again.Meta
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
	return checkPrincipal("subject", subject)
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
	group := TenantGroup(c.Tenant)
	if f.Subject != "" {
		group = SubjectGroup(c.Tenant, f.Subject)
	}
	out := slices.DeleteFunc(s.d.Store.Bindings.Group(group), func(b Binding) bool { return f.Role != "" && b.Role.Name != f.Role })
	slices.SortFunc(out, func(a, b Binding) int { return byAge(a.Created, a.BindingID(), b.Created, b.BindingID()) })
	return out, nil
}

// Unbind takes a role from a subject: the binding is cut and its record removed.
func (s *Service) Unbind(ctx context.Context, c Caller, subject, role, reason string, only ...If[Binding]) (Ended, error) {
	r, err := s.Role(ctx, c, role)
	if err != nil {
		return Ended{}, err
	}
	if _, err := s.d.Store.Bindings.Load(ctx, BindingKey(c.Tenant, subject, r.ID)); err != nil {
		if problem.KindOf(err) == problem.NotFound {
			err = problem.New(problem.NotFound, "%.80q does not have the role %q", subject, role)
		}
		return Ended{}, err
	}
	if r.Name == s.rulingRole() {
		return s.endingRuler(ctx, c, leaving{subject: subject}, func(ctx context.Context) (Ended, error) {
			return s.endBinding(ctx, c, subject, r.ID, reason, only...)
		})
	}
	return s.endBinding(ctx, c, subject, r.ID, reason, only...)
}

func (s *Service) endBinding(ctx context.Context, c Caller, subject, role, reason string, only ...If[Binding]) (Ended, error) {
	id := revoke.PairID(subject, role)
	a, err := end(ctx, s, c, s.bindingsMarkable(), BindingKey(c.Tenant, subject, role), func(b Binding) (*endings.Mark, error) {
		if err := check(b, only); err != nil {
			return nil, err
		}
		m, err := s.newMark(c, reason, commit.Target{Kind: revoke.KindBinding, ID: b.BindingID()})
		if err == nil {
			// The same target takes the role from API keys of the principal that were
			// made with it, and their records stay: the entry has to outlive them.
			m.Record = reserved(b.Subject)
		}
		return m, err
	})
	return Ended{Target: revoke.Target{Kind: revoke.KindBinding, ID: id}.String(), Answer: a}, err
}
