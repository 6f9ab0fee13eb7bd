package simulation

import (
	"errors"
	"fmt"
	"strings"

	"github.com/quash-project/quash/services/issuer"
	"github.com/quash-project/quash/shared/guard/denylist"
	"github.com/quash-project/quash/shared/guard/revoke"
)

// anew makes a role, a key with it and a token for everybody who is not held, and
// wants the token taken everywhere.
func (s *scenario) anew() error {
	for n := range nNames {
		p := principal(n)
		// A reader keeps what it knew, also a hold that was never answered and that the
		// log has lost.
		if s.anyBlocks(p.Key()) {
			s.w.truth.count("held for the last time")
			continue
		}
		x, err := s.newToken(n)
		if err != nil {
			return fmt.Errorf("no new token for %s: %w; the log has %+v", p, err, s.stateInLog(p.Key()))
		}
		for _, m := range s.w.guards {
			if !m.decide(x) && !m.current().View().Blocked(p.Key()) {
				return fmt.Errorf("%s refuses a new token of %s with stamp %s", m.name, p, x.stamp)
			}
		}
		for _, v := range s.w.views {
			// What Redis fell back to may hold what is lost everywhere else.
			if res, _ := v.check(x); res.Outcome == denylist.Incomplete || res.Outcome == denylist.Hit && res.State.Held.IsZero() {
				return fmt.Errorf("%s refuses a new token of %s with stamp %s", v.name, p, x.stamp)
			}
		}
	}
	return nil
}

func (s *scenario) anyBlocks(k revoke.Key) bool {
	for _, i := range s.issuers {
		if i.m.current().View().Blocked(k) {
			return true
		}
	}
	return false
}

// newToken makes all that a token of a principal needs. That it is made at one
// replica and used at another is part of it.
func (s *scenario) newToken(n int) (*thing, error) {
	ctx := s.w.ctx
	r := s.makeRole(ctx, fmt.Sprintf("new-%d-%d", n, s.w.c.below(1<<30)))
	if r == nil {
		return nil, errors.New("no role is made")
	}
	k, err := s.newKey(ctx, issuer.NewKey{Owner: principal(n).ID, Scopes: []string{"read"}, Roles: []string{r.name}})
	if err != nil {
		return nil, fmt.Errorf("no key is made: %w", err)
	}
	x, err := s.tokenOf(ctx, k)
	if err == nil && strings.Join(x.scopes, " ") != "read base" {
		err = fmt.Errorf("it has the scopes %v", x.scopes)
	}
	return x, err
}

// finished wants that every ending has come to its end: nothing is marked, and
// what the log has ended by an issuer's wish is gone.
func (s *scenario) finished() error {
	if marked := s.w.records.marked(); len(marked) > 0 {
		return fmt.Errorf("still marked: %s", strings.Join(marked, ", "))
	}
	log, _ := s.w.b.fold()
	for _, k := range s.w.records.keyIDs() {
		if log.State(own(revoke.KindKey, k).Key()).Ended && !s.w.truth.revoked(k) {
			return fmt.Errorf("the key %s is ended, and its record is there", k)
		}
	}
	return nil
}
