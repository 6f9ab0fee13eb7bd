package bench

import (
	"context"
	"crypto/rand"
	"fmt"
	mathrand "math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/guard/follow"
	"github.com/quash-project/quash/shared/guard/natsfeed"
	"github.com/quash-project/quash/shared/guard/wire"
)

// The times of a reader, as package follow has them.
const (
	probeTimeout   = 3 * time.Second
	joinTimeout    = 5 * time.Second
	repeatOrdinary = 2 * time.Second
	repeatUrgent   = time.Second
	reportSpacing  = 250 * time.Millisecond
)

// herd is the instances of one identity, on one connection. They read the feed
// together, by one real reader that is no part of the fleet, and share its
// position; each syncs, joins, probes and reports by itself, as a guard does.
type herd struct {
	link    *natsfeed.Link
	reader  *follow.Reader
	members map[string]*member // by instance; does not change
	stale   *atomic.Int64      // the greatest staleness that any of them had, nanoseconds
}

// member is a guard that decides nothing.
type member struct {
	*herd
	instance string
	joined   chan struct{} // closed when its join was applied
	proved   atomic.Int64  // Unix nanoseconds; 0: not yet
	due      chan struct{} // there is something to report
	spread   atomic.Int64
}

// herds starts so many identities with so many instances each, and returns when
// all have joined and know how fresh they are. The greatest staleness since the
// last look stands in stale.
func (d *deployed) herds(b *testing.B, identities, instances int) (stale *atomic.Int64) {
	b.Helper()
	stale = &atomic.Int64{}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	b.Cleanup(func() { cancel(); running.Wait() })
	starting := make(chan struct{}, 128) // as many as are let in at once
	var all []*member
	for i := range identities {
		creds, err := d.ids.AddGuard(fmt.Sprintf("herd-%d", i))
		if err != nil {
			b.Fatal(err)
		}
		h := &herd{members: map[string]*member{}, stale: stale}
		nc := d.connect(b, nodes[i%len(nodes)], creds)
		if h.link, err = natsfeed.New(nc, fmt.Sprintf("herd-%d", i)); err != nil {
			b.Fatal(err)
		}
		for range instances {
			id, err := wire.NewID(rand.Reader)
			if err != nil {
				b.Fatal(err)
			}
			h.members[id] = &member{herd: h, instance: id, joined: make(chan struct{}), due: make(chan struct{}, 1)}
			all = append(all, h.members[id])
		}
		if h.reader, err = follow.New(follow.Config{Source: h.link, Feed: h.link, NoJoin: true, OnEntry: h.applied}); err != nil {
			b.Fatal(err)
		}
		running.Go(func() { _ = h.reader.Run(ctx) })
	}
	for _, m := range all {
		running.Go(func() { m.run(ctx, starting) })
	}
	for _, m := range all {
		enginetest.Eventually(b, "a guard has joined, and has proved its freshness", func() error {
			if m.proved.Load() == 0 {
				return fmt.Errorf("it waits")
			}
			return nil
		})
	}
	return stale
}

// applied tells members what a guard takes notice of.
func (h *herd) applied(s wire.Stored) {
	switch s.Message.Kind {
	case wire.KindEntry, wire.KindKey:
		for _, m := range h.members {
			m.reportSoon()
		}
	case wire.KindJoin:
		if m := h.members[s.Message.Instance]; m != nil {
			select {
			case <-m.joined:
			default:
				close(m.joined)
			}
			m.reportSoon()
		}
	}
}

func (m *member) reportSoon() {
	select {
	case m.due <- struct{}{}:
	default:
	}
}

func (m *member) run(ctx context.Context, starting chan struct{}) {
	select {
	case starting <- struct{}{}:
	case <-ctx.Done():
		return
	}
	first := m.begin(ctx)
	<-starting
	if ctx.Err() != nil {
		return
	}
	var reports sync.WaitGroup
	reports.Go(func() { m.report(ctx) })
	m.probe(ctx, first)
	reports.Wait()
}

// begin syncs and joins, and returns when the join was sent: it is a first probe.
func (m *member) begin(ctx context.Context) (first time.Time) {
	for ctx.Err() == nil && m.reader.Position().Seq == 0 {
		pause(ctx, 10*time.Millisecond)
	}
	for ctx.Err() == nil {
		asking, cancel := context.WithTimeout(ctx, joinTimeout)
		answer, err := m.link.Sync(asking, wire.SyncRequest{Instance: m.instance, Position: m.reader.Position().JSON()})
		cancel()
		if err == nil && answer.Error == nil {
			break
		}
		pause(ctx, mathrand.N(time.Second))
	}
	for ctx.Err() == nil {
		first = time.Now()
		asking, cancel := context.WithTimeout(ctx, joinTimeout)
		answer, err := m.link.Join(asking, wire.JoinRequest{Instance: m.instance, LimitMS: wire.DefaultLimit.Milliseconds(), Past: wire.PastDeny})
		if err == nil && answer.Error == nil {
			select {
			case <-m.joined:
			case <-asking.Done():
			}
		}
		cancel()
		select {
		case <-m.joined:
			return first
		default:
			pause(ctx, mathrand.N(time.Second))
		}
	}
	return first
}

// probe probes at a third of the limit, counted from the last probe that was
// proved, and repeats what is not answered.
func (m *member) probe(ctx context.Context, proved time.Time) {
	const limit = wire.DefaultLimit
	answers := make(chan time.Time, 64) // when a probe was sent that is proved now
	next := proved.Add(limit / 3)
	m.proved.Store(proved.UnixNano())
	for {
		t := time.NewTimer(time.Until(next))
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case t0 := <-answers:
			if t0.After(proved) {
				m.note(time.Since(proved))
				proved = t0
				m.proved.Store(proved.UnixNano())
				next = proved.Add(limit / 3)
			}
		case <-t.C:
			m.note(time.Since(proved))
			now := time.Now()
			urgent := now.Sub(proved) > limit/2
			go m.ask(ctx, now, urgent, answers)
			next = now.Add(repeatOrdinary)
			if half := proved.Add(limit / 2); !urgent && half.Before(next) {
				next = half
			}
			if urgent {
				next = now.Add(repeatUrgent)
			}
		}
		t.Stop()
	}
}

func (m *member) ask(ctx context.Context, t0 time.Time, urgent bool, answers chan<- time.Time) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	answer, err := m.link.Probe(ctx, wire.ProbeRequest{Instance: m.instance, Position: m.reader.Position().JSON(), Urgent: urgent})
	if err != nil || answer.Error != nil {
		return
	}
	m.spread.Store(int64(time.Duration(answer.SpreadMS) * time.Millisecond))
	if m.reader.WaitFor(ctx, answer.Tick.Position().Stamp) == nil {
		answers <- t0
	}
}

func (m *member) note(stale time.Duration) {
	for was := m.stale.Load(); int64(stale) > was && !m.stale.CompareAndSwap(was, int64(stale)); was = m.stale.Load() {
	}
}

// report tells how far it is, spaced and spread as a reader does.
func (m *member) report(ctx context.Context) {
	last := time.Time{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.due:
		}
		wait := max(reportSpacing-time.Since(last), 0)
		if last.IsZero() {
			wait = 0
		}
		if spread := m.spread.Load(); spread > 0 {
			wait += time.Duration(mathrand.Int64N(spread))
		}
		if !pause(ctx, wait) {
			return
		}
		select {
		case <-m.due: // that one too
		default:
		}
		last = time.Now()
		_ = m.link.Report(ctx, wire.Report{Instance: m.instance, Position: m.reader.Position().JSON()}) // the next probe tells as much
	}
}

// pause waits, and reports whether ctx is still good.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
