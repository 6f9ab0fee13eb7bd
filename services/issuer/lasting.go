package issuer

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/problem"
	"github.com/quash-project/quash/shared/rights"
)

// forGood is a time that never comes: of what does not end by itself.
var forGood = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)

// lasts wants that the caller holds Quash's own among the scopes for as long as what they are
// given to lives, which is until a time, or zero: that has no end. Otherwise a role that was
// given for an hour would be one for ever. It returns when the first of them ends for the
// caller, zero for never: for so long what they are given to may give them on.
func (s *Service) lasts(ctx context.Context, c Caller, field string, scopes []string, until time.Time) (time.Time, error) {
	scopes = slices.DeleteFunc(slices.Clone(scopes), func(sc string) bool { return !rights.Own(sc) })
	if len(scopes) == 0 || len(c.Targets) == 0 { // Quash itself has no credential
		return time.Time{}, nil
	}
	if until.IsZero() {
		until = forGood
	}
	held, err := s.heldUntil(ctx, c)
	if err != nil {
		return time.Time{}, err
	}
	first := forGood
	for _, sc := range scopes {
		end, is := held[sc]
		switch {
		case !is:
			return time.Time{}, forbidden(field, []string{sc})
		case end.Before(until):
			e := problem.New(problem.Forbidden, "you hold %s until %s yourself: what you give has to end by then", sc, end.UTC().Format(time.RFC3339))
			e.Field = field
			return time.Time{}, e
		case end.Before(first):
			first = end
		}
	}
	if first.Equal(forGood) {
		first = time.Time{}
	}
	return first, nil
}

// sooner returns the earlier of two ends, of which zero is none.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// lasting returns those of Quash's own scopes that the caller holds until a time.
func (s *Service) lasting(ctx context.Context, c Caller, until time.Time) ([]string, error) {
	out := slices.DeleteFunc(slices.Clone(c.Scopes), func(sc string) bool { return !rights.Own(sc) })
	if out == nil {
		out = []string{}
	}
	if len(c.Targets) == 0 || len(out) == 0 {
		return out, nil
	}
	held, err := s.heldUntil(ctx, c)
	return slices.DeleteFunc(out, func(sc string) bool { return held[sc].Before(until) }), err
}

// heldUntil tells until when the caller holds each scope, by the credential of which their
// token came. That this ends itself does not count, since whoever has it may make another; but
// that who made it held something for a while does.
func (s *Service) heldUntil(ctx context.Context, c Caller) (map[string]time.Time, error) {
	k, err := s.credentialOf(ctx, c)
	if err != nil {
		return nil, err
	}
	out := map[string]time.Time{}
	scopes := k.Scopes
	if k.Kind == ClientSecret {
		cl, err := s.Client(ctx, c, k.Client)
		if err != nil {
			return nil, err
		}
		scopes = cl.Scopes
	}
	forAll := sooner(forGood, k.RightsUntil)
	for _, sc := range scopes {
		out[sc] = forAll
	}
	held, err := s.rolesOfKey(&k)
	if err != nil {
		return nil, err
	}
	for _, h := range held {
		if !slices.Contains(c.Targets, h.binding) { // given since
			continue
		}
		end := sooner(forAll, h.until)
		scopes, err := s.scopesOf(ctx, nil, []heldRole{h})
		if err != nil {
			return nil, err
		}
		for _, sc := range scopes {
			if end.After(out[sc]) {
				out[sc] = end
			}
		}
	}
	return out, nil
}

// credentialOf returns the API key or client secret of which the caller's token came.
func (s *Service) credentialOf(ctx context.Context, c Caller) (Key, error) {
	is := func(k *Key) bool { return slices.Contains(c.Targets, target(k.Tenant, revoke.KindKey, k.ID)) }
	if id, own := strings.CutPrefix(c.Client, KeyClientPrefix); own {
		k, err := s.d.Store.Keys.Get(ctx, RecordKey(c.Tenant, id))
		if err == nil && is(&k) {
			return k, nil
		}
		if err != nil && problem.KindOf(err) != problem.NotFound {
			return Key{}, err
		}
	}
	for k := range s.d.Store.Keys.Walk(ClientGroup(c.Tenant, c.Client)) {
		if is(&k) {
			return k, nil
		}
	}
	return Key{}, problem.New(problem.Forbidden, "the credential of which your token came is not there any more: get a token with another one")
}

// scopesOf returns what scopes and roles come to, whether or not the roles are hit just now.
func (s *Service) scopesOf(ctx context.Context, scopes []string, held []heldRole) ([]string, error) {
	all := slices.Clone(scopes)
	for _, h := range held {
		r, err := s.d.Store.Roles.Get(ctx, RoleKey(s.cfg.Tenant, h.role.Name))
		switch {
		case err == nil && r.ID == h.role.ID:
			all = union(all, h.within(r.Scopes))
		case err != nil && problem.KindOf(err) != problem.NotFound:
			return nil, err
		}
	}
	return all, nil
}

// within returns those of a role's scopes that come to its holder.
func (h *heldRole) within(scopes []string) []string {
	if h.most == nil {
		return scopes
	}
	lacking := rights.Lacking(h.most, scopes)
	return slices.DeleteFunc(slices.Clone(scopes), func(sc string) bool { return slices.Contains(lacking, sc) })
}

// takes reports whether a scope of a role of its owner comes to the key.
func (k *Key) takes(scope string) bool {
	return k.OwnerMost == nil || !rights.Own(scope) || slices.Contains(k.OwnerMost, scope)
}
