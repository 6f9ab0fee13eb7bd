package issuer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/problem"
)

// making is one act of making something from records: its stamp was read
// before any of them, and each is checked against the view.
type making struct {
	stamp revoke.Stamp // put it on what is made
	view  *revoke.View
	read  revoke.Stamp // how far the view has been read at least
	now   time.Time
	base  [2]revoke.Key
}

// errBehind says that a record was made at a position which the own view has
// not reached: it can't be judged yet.
type errBehind struct{ at revoke.Stamp }

func (e errBehind) Error() string { return "a record is ahead of the view, at " + e.at.String() }

// behindWait is how long a request waits for a view that is behind a record: it
// takes milliseconds between replicas, unless the log is not followed at all.
const behindWait = 500 * time.Millisecond

// stampFirst makes something. make reads all its records after the stamp was
// read, and checks each with making.hit. What is long-lived (fresh) takes its
// stamp after a tick asked for now, so that it is not born dead by a cut which
// this replica had not heard of.
//
// It refuses while the view is not proved to be recent enough: a token made
// from an old view would be hit anyway, and a person had better know.
func stampFirst[T any](ctx context.Context, s *Service, fresh bool, fn func(m *making) (T, error)) (T, error) {
	var zero T
	if fresh {
		if err := s.d.Reader.Fresh(ctx); err != nil {
			return zero, problem.Wrap(problem.Unavailable, err, "the log can't be followed now, so nothing can be issued; try again")
		}
	}
	for first := true; ; first = false {
		m, err := s.begin(ctx)
		if err != nil {
			return zero, err
		}
		v, err := fn(m)
		var behind errBehind
		if !errors.As(err, &behind) {
			return v, err
		}
		if !first {
			return zero, problem.Wrap(problem.Unavailable, err, "this replica is behind; try again")
		}
		waitCtx, cancel := context.WithTimeout(ctx, behindWait)
		err = s.d.Reader.WaitFor(waitCtx, behind.at)
		cancel()
		if err != nil {
			return zero, problem.Wrap(problem.Unavailable, err, "this replica is behind; try again")
		}
	}
}

func (s *Service) begin(ctx context.Context) (*making, error) {
	staleness, err := s.d.Reader.Check()
	if err == nil && staleness > s.cfg.Limit {
		err = fmt.Errorf("the view may be %v old", staleness)
	}
	if err != nil {
		return nil, problem.Wrap(problem.Unavailable, err, "the log can't be followed now, so nothing can be issued; try again")
	}
	if err := s.d.Store.Ready(); err != nil {
		return nil, problem.Wrap(problem.Unavailable, err, "the records may be out of date, so nothing can be issued; try again")
	}
	m := &making{
		stamp: s.d.Reader.Stamp(), // first: before any record is read
		read:  s.d.Reader.Position().Stamp,
		view:  s.d.Reader.View(), now: s.d.Now(), base: s.base,
	}
	return m, s.Present(ctx)
}

// hit reports whether a record with this stamp is dead by one of its targets,
// tenant and issuer included.
func (m *making) hit(stamp revoke.Stamp, targets ...revoke.Key) (bool, error) {
	if m.read.Less(stamp) && m.stamp.Less(stamp) {
		return false, errBehind{stamp}
	}
	for _, k := range m.base {
		if m.view.Hit(k, stamp) {
			return true, nil
		}
	}
	for _, k := range targets {
		if m.view.Hit(k, stamp) {
			return true, nil
		}
	}
	return false, nil
}

// held reports whether something without a stamp (principal, client) is held.
func (m *making) held(targets ...revoke.Key) bool {
	for _, k := range targets {
		if m.view.Blocked(k) {
			return true
		}
	}
	return m.view.Blocked(m.base[0]) || m.view.Blocked(m.base[1])
}

// keyTargets are the targets of an API key or client secret: its own id, and
// those that it belongs to. Its roles are not among them.
func keyTargets(k *Key) [4]revoke.Key {
	client := k.ClientID()
	return [4]revoke.Key{
		target(k.Tenant, revoke.KindKey, k.ID),
		target(k.Tenant, revoke.KindPrincipal, k.Owner),
		target(k.Tenant, revoke.KindClient, client),
		target(k.Tenant, revoke.KindGrant, revoke.PairID(k.Owner, client)),
	}
}
