package issuer

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/problem"
	"github.com/quash-project/quash/shared/selector"
)

// Selected is a target that a selector has named.
type Selected struct {
	Target  string
	Owner   string // of a key
	Client  string
	State   State     // of a key; of a principal empty
	Created time.Time // of a record
}

// Select returns the targets that fit, sorted, those after one of them, and at most so many;
// more says that there are others. However many there are, no copy of them all is made.
func (s *Service) Select(ctx context.Context, c Caller, sel selector.Selector, after string, limit int) (page []Selected, more bool, err error) {
	if err := s.checkTenant(c); err != nil {
		return nil, false, err
	}
	if err := s.Ready(); err != nil {
		return nil, false, problem.Wrap(problem.Unavailable, err, "the issuer can't see all of its records now; try again")
	}
	if err := s.Present(ctx); err != nil {
		return nil, false, err
	}
	first := &smallest{limit: limit, after: after}
	if sel.What == selector.Keys {
		err = s.selectKeys(ctx, &sel, first)
	} else {
		err = s.selectPrincipals(ctx, &sel, first)
	}
	if err != nil {
		return nil, false, err
	}
	page = first.sorted()
	if len(page) > limit {
		return page[:limit], true, nil
	}
	return page, false, nil
}

func (s *Service) selectKeys(ctx context.Context, sel *selector.Selector, into *smallest) error {
	if err := s.d.Store.Keys.Fresh(ctx); err != nil {
		return err
	}
	f := KeyFilter{
		Owner: sel.Owner, Client: sel.Client, Kind: KeyKind(sel.Kind), Labels: sel.Labels, Having: sel.Having, ExpiresWithin: sel.Ends,
		UnusedFor: sel.Unused, Creator: sel.Creator, From: sel.From, To: sel.To,
	}
	switch sel.Kind {
	case "":
		f.Kind = APIKey
	case "all":
		f.Kind = ""
	}
	group := TenantGroup(s.cfg.Tenant)
	switch {
	case sel.Client != "":
		group = ClientGroup(s.cfg.Tenant, sel.Client)
	case sel.Owner != "":
		group = OwnerGroup(s.cfg.Tenant, sel.Owner)
	}
	for k := range s.d.Store.Keys.Walk(group) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		target := own(k.Tenant, revoke.KindKey, k.ID).String()
		if !into.wants(target) || !s.fits(&k, &f) {
			continue
		}
		state := s.stateOfKey(&k)
		if sel.State == "" && state != StateActive && state != StateHeld || sel.State != "" && string(state) != sel.State {
			continue
		}
		into.add(Selected{Target: target, Owner: k.Owner, Client: k.Client, State: state, Created: k.Created})
	}
	return nil
}

// selectPrincipals gives principals that have a record, or own API keys, or are named; each
// within a client, where one is named.
func (s *Service) selectPrincipals(ctx context.Context, sel *selector.Selector, into *smallest) error {
	for _, t := range []interface{ Fresh(context.Context) error }{s.d.Store.Keys, s.d.Store.Principals} {
		if err := t.Fresh(ctx); err != nil {
			return err
		}
	}
	take := func(name string, created time.Time) {
		t := own(s.cfg.Tenant, revoke.KindPrincipal, name)
		if sel.Client != "" {
			t.Kind, t.ID = revoke.KindGrant, revoke.PairID(name, sel.Client)
		}
		if into.wants(t.String()) {
			into.add(Selected{Target: t.String(), Owner: name, Client: sel.Client, Created: created})
		}
	}
	ofRecord := sel.Kind != "" || len(sel.Labels) > 0 || len(sel.Having) > 0
	fits := func(name string) (Principal, bool) {
		p, is := s.d.Store.Principals.Peek(PrincipalKey(s.cfg.Tenant, name))
		if !is {
			return p, !ofRecord
		}
		return p, (sel.Kind == "" || string(p.Kind) == sel.Kind) && labelled(p.Labels, sel.Labels) && having(p.Labels, sel.Having)
	}
	switch {
	case sel.Name != "": // it needs neither a record nor keys
		if _, err := revoke.NewTarget(s.cfg.Tenant, "", revoke.KindPrincipal, sel.Name); err != nil {
			return problem.FieldError("select", "%v", err)
		}
		if p, ok := fits(sel.Name); ok {
			take(sel.Name, p.Created)
		}
	case sel.Client != "":
		known := map[string]bool{}
		for k := range s.d.Store.Keys.Walk(ClientGroup(s.cfg.Tenant, sel.Client)) {
			if k.Kind != APIKey || known[k.Owner] {
				continue
			}
			known[k.Owner] = true
			if p, ok := fits(k.Owner); ok {
				take(k.Owner, p.Created)
			}
		}
	default:
		for p := range s.d.Store.Principals.Walk(TenantGroup(s.cfg.Tenant)) {
			if _, ok := fits(p.ID); ok {
				take(p.ID, p.Created)
			}
		}
	}
	return nil
}

// smallest keeps the limit+1 smallest targets after one.
type smallest struct {
	after string
	limit int
	kept  []Selected
	bound string // no greater one is among them; empty: not known yet
}

func (s *smallest) wants(target string) bool {
	return target > s.after && (s.bound == "" || target < s.bound)
}

func (s *smallest) add(x Selected) {
	s.kept = append(s.kept, x)
	if len(s.kept) >= 2*(s.limit+1) {
		s.kept = s.sorted()
		s.bound = s.kept[len(s.kept)-1].Target
	}
}

func (s *smallest) sorted() []Selected {
	slices.SortFunc(s.kept, func(a, b Selected) int { return strings.Compare(a.Target, b.Target) })
	s.kept = slices.CompactFunc(s.kept, func(a, b Selected) bool { return a.Target == b.Target })
	return s.kept[:min(len(s.kept), s.limit+1)]
}
