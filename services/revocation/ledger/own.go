package ledger

import (
	"context"
	"errors"

	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/problem"
)

// LiveHold is one hold of a target that no release has ended.
type LiveHold struct {
	First revoke.Stamp // its position
	Copy  wire.Stored  // its entry, or the one by which it was committed again last
}

// Holders knows the holds of each target: all that the ledger has told its observers of.
type Holders interface {
	Holding(k revoke.Key) []LiveHold
}

// AskHolders has the ledger ask h whose holds a target has; before Run only.
func (l *Ledger) AskHolders(h Holders) { l.holders = h }

var (
	errNotHeld = problem.New(problem.Conflict, "none of the targets is held: there is nothing to release")
	errHeldNow = problem.New(problem.Conflict, "none of the targets is held by that hold any more: it has ended, or a newer one holds them")
)

// ownHold returns the newest hold that a release may end which is of the holds of its own
// service alone, and otherwise the zero Stamp and why there is none. A release ends all
// that is older, too, so that none of those may be another's either. What can't be read
// any more is taken for another's.
func (l *Ledger) ownHold(ctx context.Context, p *plan) (newest revoke.Stamp, none, err error) {
	k := p.keys[0]
	s := l.view.State(k)
	if !l.view.Epochs().Clamp(s.Released).Less(s.Held) {
		return revoke.Stamp{}, errNotHeld, nil
	}
	var live []LiveHold
	if l.holders != nil {
		live = l.holders.Holding(k)
	}
	now := l.cfg.Now().UnixMilli()
	for _, h := range live {
		newest = newest.Max(h.First)
		m := h.Copy.Message
		if m.HoldEnd != 0 && m.HoldEnd <= now && m.Then != wire.ThenRevoke {
			continue // it would have ended by itself, if no other went on
		}
		switch ev, err := l.EventAt(ctx, h.Copy); {
		case err != nil && !errors.Is(err, ErrNoMessage):
			return revoke.Stamp{}, nil, problem.Wrap(problem.Unavailable, err, "the log can't be read now; nothing was done, try again")
		case err != nil || ev.Data.Service != p.service:
			return revoke.Stamp{}, heldByOthers(p.targets[0]), nil
		}
	}
	if newest.Less(s.Held) { // by one that nobody knows
		return revoke.Stamp{}, heldByOthers(p.targets[0]), nil
	}
	return newest, errNotHeld, nil
}

func heldByOthers(t revoke.Target) error {
	return problem.New(problem.Conflict, "%s is held by a responder, an incident or what else is not of the service that was asked, or was committed again after the log went back; nothing was released. "+
		"Who may release it does so by: quash release %s", t, t)
}
