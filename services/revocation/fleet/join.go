package fleet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/quash-project/quash/services/revocation/ledger"
	"github.com/quash-project/quash/shared/guard/wire"
)

// Appender puts joins and outs into the log.
type Appender interface {
	Join(ctx context.Context, reader string, r wire.JoinRequest) (wire.Position, error)
	Out(ctx context.Context, o ledger.OutOrder) (wire.Position, error)
}

// Join lets a guard's instance into the fleet, within what is allowed.
func (f *Fleet) Join(ctx context.Context, a Appender, name string, r wire.JoinRequest) wire.JoinAnswer {
	if limit := time.Duration(r.LimitMS) * time.Millisecond; limit > f.cfg.MaxLimit {
		return wire.JoinAnswer{Error: &wire.Refusal{Code: "invalid", Detail: fmt.Sprintf("the limit %s is above the deployment's maximum, %s", limit, f.cfg.MaxLimit)}}
	}
	if refusal := f.makeRoom(ctx, a, name, r.Instance); refusal != nil {
		return wire.JoinAnswer{Error: refusal}
	}
	return answer(a.Join(ctx, name, r))
}

func answer(at wire.Position, err error) wire.JoinAnswer {
	if err != nil {
		return wire.JoinAnswer{Error: &wire.Refusal{Code: "not_ready", Detail: err.Error()}}
	}
	return wire.JoinAnswer{Position: at.JSON()}
}

// Leave takes a guard out by its own word.
func (f *Fleet) Leave(ctx context.Context, a Appender, name string, r wire.OutRequest) wire.JoinAnswer {
	f.mu.Lock()
	g := f.guards[r.Instance]
	foreign := g != nil && g.name != name
	f.mu.Unlock()
	if foreign {
		return wire.JoinAnswer{Error: &wire.Refusal{Code: "invalid", Detail: "the instance is another guard's"}}
	}
	return answer(a.Out(ctx, ledger.OutOrder{Name: name, Instance: r.Instance, By: wire.BySelf, Actor: name, Reason: "it stopped"}))
}

// errNoRoom: all instances of an identity are within their limit.
var errNoRoom = errors.New("the identity has as many instances as it may")

// makeRoom puts out the oldest instance of an identity that is past its limit,
// when the identity has as many as it may. An instance also can't be taken over
// by another identity.
func (f *Fleet) makeRoom(ctx context.Context, a Appender, name, instance string) *wire.Refusal {
	f.mu.Lock()
	if g := f.guards[instance]; g != nil {
		f.mu.Unlock()
		if g.name != name {
			return &wire.Refusal{Code: "invalid", Detail: "the instance is another guard's"}
		}
		return nil
	}
	full := f.byName[name] >= f.cfg.Cap
	f.mu.Unlock()
	if !full {
		return nil
	}
	var mine []Guard
	for _, g := range f.List() {
		if g.Name == name {
			mine = append(mine, g)
		}
	}
	slices.SortFunc(mine, func(a, b Guard) int { return a.JoinedAt.Compare(b.JoinedAt) })
	for _, g := range mine {
		if g.State == StateOut {
			f.forget(g.Instance)
			return nil
		}
		if g.State != StateFenced || g.Past == wire.PastAllow {
			continue
		}
		_, err := a.Out(ctx, ledger.OutOrder{
			Name: name, Instance: g.Instance, By: wire.ByProof, Actor: "revocation",
			Reason: "its identity has as many instances as it may, and this one is past its limit",
		})
		if err != nil {
			return &wire.Refusal{Code: "not_ready", Detail: err.Error()}
		}
		f.forget(g.Instance)
		return nil
	}
	return &wire.Refusal{Code: "cap", Detail: fmt.Sprintf("%s: %d", errNoRoom, f.cfg.Cap)}
}

func (f *Fleet) forget(instance string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if g := f.guards[instance]; g != nil {
		f.remove(g)
	}
}

// Gone takes out every instance that joined under the given names: whoever calls
// it can prove that the processes are gone (a lock that they had held).
func (f *Fleet) Gone(ctx context.Context, a Appender, names []string, reason string) error {
	var errs []error
	for _, g := range f.List() {
		if g.State == StateOut || !slices.Contains(names, g.Name) {
			continue
		}
		_, err := a.Out(ctx, ledger.OutOrder{Name: g.Name, Instance: g.Instance, By: wire.ByProof, Actor: "revocation", Reason: reason})
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// renewEvery is how often the joins of guards that allow are looked at.
const renewEvery = time.Hour

// Run renews the joins of guards that allow past their limit, and forgets what
// has ended, until ctx ends.
func (f *Fleet) Run(ctx context.Context, a Appender) error {
	t := time.NewTicker(renewEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			f.Renew(ctx, a)
		}
	}
}

// Renew commits again the joins of guards that allow past their limit, a day
// after the last: they stay open until they are out.
func (f *Fleet) Renew(ctx context.Context, a Appender) {
	now := f.cfg.Now()
	var due []wire.JoinRequest
	var names []string
	f.mu.Lock()
	for _, g := range f.guards {
		switch {
		case f.expired(g, now) || !g.out.IsZero() && now.After(g.outAt.Add(wire.JoinLife)):
			f.remove(g)
		case g.past == wire.PastAllow && g.out.IsZero() && now.Sub(g.renewed) >= 24*time.Hour:
			names = append(names, g.name)
			due = append(due, wire.JoinRequest{Instance: g.instance, LimitMS: g.limit.Milliseconds(), Past: g.past})
		}
	}
	f.mu.Unlock()
	for i, r := range due {
		if _, err := a.Join(ctx, names[i], r); err != nil {
			f.log.Warn("the join of a guard that allows past its limit was not renewed; it is tried again within an hour",
				zap.String("name", names[i]), zap.String("instance", r.Instance), zap.Error(err))
		}
	}
}

var _ ledger.Observer = (*Fleet)(nil)
