package ledger

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// HoldOrder is what the service does by itself with holds of one tenant.
type HoldOrder struct {
	// Op is wire.OpRelease, wire.OpHold to commit the holds again, or wire.OpEnd
	// to revoke what they hold, which cuts what may be used again.
	Op string
	// Holds are the positions of the holds by target. A release names them, and
	// so undoes no newer one.
	Holds map[revoke.Key]revoke.Stamp
	// Known are the targets as a person reads them. Those that are not among them
	// stand in the record as keys, and are taken for what may be used again.
	Known map[revoke.Key]revoke.Target
	// Copy is, to commit holds again, where they were committed last.
	Copy   revoke.Stamp
	Tenant string
	Reason string
}

// CommitHolds commits one entry for an order. Its name is made of the order, so
// that it is committed once, whoever repeats it: another replica, or this one
// after it has died on the way.
func (l *Ledger) CommitHolds(ctx context.Context, o HoldOrder) error {
	if err := l.Ready(); err != nil {
		return err
	}
	id, err := wire.NewID(l.cfg.Rand)
	if err != nil {
		return err
	}
	now := l.cfg.Now()
	keys := make([]revoke.Key, 0, len(o.Holds))
	for k := range o.Holds {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b revoke.Key) int { return bytes.Compare(a[:], b[:]) })
	d := EventData{Op: eventOp(o.Op), Tenant: o.Tenant, Service: ownName, Actor: ownName, Reason: o.Reason}
	m := wire.Message{Kind: wire.KindEntry, ID: id, At: now.UnixMilli()}
	var life time.Duration
	name := []string{"hold", o.Op, o.Copy.String()}
	for _, k := range keys {
		t, known := o.Known[k]
		if known {
			d.Targets = append(d.Targets, EventTarget{Issuer: t.Issuer, Kind: t.Kind, ID: t.ID})
			life = max(life, lifeOf(t, false, l.cfg.Foreign))
		} else {
			d.TargetKeys = append(d.TargetKeys, k)
			life = max(life, longestLife)
		}
		l.put(&m, o, k, known && t.Kind.Final())
		name = append(name, string(k[:]), o.Holds[k].String())
	}
	m.Until = now.Add(life+releaseMore(o.Op)).Unix() + 1
	d.Entry = hashOf(name...)
	return l.commitNamed(ctx, d.Entry, m, d)
}

func eventOp(op string) string {
	if op == wire.OpEnd {
		return "revoke"
	}
	return op
}

func (l *Ledger) put(m *wire.Message, o HoldOrder, k revoke.Key, final bool) {
	switch {
	case o.Op == wire.OpRelease:
		if m.Release == nil {
			m.Release = map[revoke.Key]revoke.Stamp{}
		}
		m.Release[k] = l.released(o.Holds[k])
	case o.Op == wire.OpHold:
		if m.First == nil {
			m.First = map[revoke.Key]revoke.Stamp{}
		}
		m.Hold, m.First[k] = append(m.Hold, k), o.Holds[k]
	case final:
		m.End = append(m.End, k)
	default:
		m.Cut = append(m.Cut, k)
	}
}

// commitNamed stores an entry whose subject is made of what it says, so that
// whoever has the same to say stores it once. An error means that it may be
// there or not; the same again is harmless.
func (l *Ledger) commitNamed(ctx context.Context, name string, m wire.Message, d EventData) error {
	now := l.cfg.Now()
	body, err := newEvent(m, now, d)
	if err != nil {
		return err
	}
	var none uint64
	_, err = l.publish(ctx, outgoing{subject: wire.LogEntry + name, message: m, body: body, ttl: ttlOf(m.Until, now), expect: &none})
	var exists errExists
	switch {
	case errors.As(err, &exists):
		return nil
	case err == nil:
		l.ticks.soon()
	}
	return err
}
