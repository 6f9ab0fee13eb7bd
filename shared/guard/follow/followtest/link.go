package followtest

import (
	"context"
	"errors"
	"math/rand/v2"
	"sort"
	"sync"
	"time"

	"github.com/quash-project/quash/shared/guard/wire"
)

// Faults are what goes wrong between a reader and the log. Shares are from 0 to
// 1, of messages of the feed or of requests. The zero Faults are a good network.
type Faults struct {
	Lose   float64       // of the feed
	Repeat float64       // delivered twice, the second time late
	Late   float64       // delayed, so that others overtake
	Delay  time.Duration // for how long at most, of late and repeated ones; default 1 s
	Cut    bool          // the feed delivers nothing
	// LateTicks delays ticks by that much, and what comes after them overtakes.
	LateTicks time.Duration

	Frozen      bool    // requests are not answered, nor done
	LoseRequest float64 // not done, not answered
	LoseAnswer  float64 // done, not answered
	Latency     time.Duration
}

// Link is a reader's way to the log: its Source and Feed.
type Link struct {
	log *Log

	mu      sync.Mutex
	faults  Faults
	rand    *rand.Rand
	deliver func(wire.Stored, error)
	lost    func()
	queue   []parcel
	wake    chan struct{}
}

type parcel struct {
	due time.Time
	msg wire.Stored
	err error
}

// Link returns another way to the log. Its faults are drawn by its number, so
// that a test does the same each time as far as goroutines do.
func (l *Log) Link() *Link {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := &Link{log: l, rand: rand.New(rand.NewPCG(uint64(len(l.links)), 1)), wake: make(chan struct{}, 1)}
	l.links = append(l.links, k)
	return k
}

// SetFaults changes what goes wrong from now on.
func (k *Link) SetFaults(f Faults) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if f.Delay == 0 {
		f.Delay = time.Second
	}
	k.faults = f
}

// Lost tells the reader that something may have been lost, as a reconnect does.
func (k *Link) Lost() {
	k.mu.Lock()
	lost := k.lost
	k.mu.Unlock()
	if lost != nil {
		lost()
	}
}

// Inject delivers a message that the log does not have.
func (k *Link) Inject(m wire.Stored, err error) { k.put(parcel{due: time.Now(), msg: m, err: err}) }

// chance draws; the caller holds mu.
func (k *Link) chance(share float64) bool { return share > 0 && k.rand.Float64() < share }

// delay draws; the caller holds mu.
func (k *Link) delay() time.Duration {
	return time.Duration(k.rand.Int64N(int64(max(k.faults.Delay, time.Millisecond))))
}

// publish is called by the log in the order of commits.
func (k *Link) publish(m wire.Stored) {
	k.mu.Lock()
	f, now := k.faults, time.Now()
	due := []time.Time{now.Add(f.Latency)}
	switch {
	case f.Cut || k.chance(f.Lose):
		due = nil
	case k.chance(f.Late):
		due[0] = due[0].Add(k.delay())
	}
	if m.Message.Kind == wire.KindTick && len(due) > 0 {
		due[0] = due[0].Add(f.LateTicks)
	}
	if k.chance(f.Repeat) {
		due = append(due, now.Add(k.delay()))
	}
	k.mu.Unlock()
	for _, at := range due {
		k.put(parcel{due: at, msg: m, err: known(m.Message)})
	}
}

func (k *Link) put(p parcel) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.deliver == nil {
		return
	}
	k.queue = append(k.queue, p)
	sort.SliceStable(k.queue, func(i, j int) bool { return k.queue[i].due.Before(k.queue[j].due) })
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// Subscribe implements follow.Feed.
func (k *Link) Subscribe(deliver func(wire.Stored, error), lost func()) (stop func(), err error) {
	k.mu.Lock()
	k.deliver, k.lost = deliver, lost
	k.mu.Unlock()
	done := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() { k.run(done) })
	return func() {
		close(done)
		running.Wait()
		k.mu.Lock()
		k.deliver, k.lost, k.queue = nil, nil, nil
		k.mu.Unlock()
	}, nil
}

func (k *Link) run(done <-chan struct{}) {
	for {
		wait := time.Hour
		k.mu.Lock()
		if len(k.queue) > 0 {
			wait = time.Until(k.queue[0].due)
		}
		if wait <= 0 {
			p, deliver := k.queue[0], k.deliver
			k.queue = k.queue[1:]
			k.mu.Unlock()
			deliver(p.msg, p.err)
			continue
		}
		k.mu.Unlock()
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-k.wake:
		case <-done:
			t.Stop()
			return
		}
		t.Stop()
	}
}

var errNoAnswer = errors.New("no answer")

// travel is one request: do is the work at the other end.
func travel[T any](ctx context.Context, k *Link, do func() (T, error)) (T, error) {
	var none T
	k.mu.Lock()
	f := k.faults
	loseRequest, loseAnswer := f.Frozen || k.chance(f.LoseRequest), k.chance(f.LoseAnswer)
	k.mu.Unlock()
	if loseRequest {
		<-ctx.Done()
		return none, errNoAnswer
	}
	if f.Latency > 0 {
		time.Sleep(f.Latency)
	}
	ans, err := do()
	k.mu.Lock()
	frozen := k.faults.Frozen
	k.mu.Unlock()
	if loseAnswer || frozen {
		<-ctx.Done()
		return none, errNoAnswer
	}
	if f.Latency > 0 {
		time.Sleep(f.Latency)
	}
	if ctx.Err() != nil {
		return none, ctx.Err()
	}
	return ans, err
}

// Sync implements follow.Source.
func (k *Link) Sync(ctx context.Context, req wire.SyncRequest) (wire.SyncAnswer, error) {
	return travel(ctx, k, func() (wire.SyncAnswer, error) { return k.log.sync(req) })
}

// Page implements follow.Source.
func (k *Link) Page(ctx context.Context, _ string, req wire.PageRequest) ([]byte, error) {
	return travel(ctx, k, func() ([]byte, error) { return k.log.page(req) })
}

// Probe implements follow.Source.
func (k *Link) Probe(ctx context.Context, req wire.ProbeRequest) (wire.ProbeAnswer, error) {
	return travel(ctx, k, func() (wire.ProbeAnswer, error) { return k.log.probe(ctx, req) })
}

// Join implements follow.Source.
func (k *Link) Join(ctx context.Context, req wire.JoinRequest) (wire.JoinAnswer, error) {
	return travel(ctx, k, func() (wire.JoinAnswer, error) {
		return k.log.appendGuard(wire.Message{
			Kind: wire.KindJoin, Name: "guard", Instance: req.Instance, LimitMS: req.LimitMS, Past: req.Past,
		}), nil
	})
}

// Out implements follow.Source.
func (k *Link) Out(ctx context.Context, req wire.OutRequest) (wire.JoinAnswer, error) {
	return travel(ctx, k, func() (wire.JoinAnswer, error) {
		return k.log.appendGuard(wire.Message{Kind: wire.KindOut, Name: "guard", Instance: req.Instance, By: wire.BySelf}), nil
	})
}

// Report implements follow.Source.
func (k *Link) Report(_ context.Context, rep wire.Report) error {
	k.mu.Lock()
	lost := k.faults.Frozen || k.chance(k.faults.LoseRequest)
	k.mu.Unlock()
	if !lost {
		k.log.report(rep)
	}
	return nil
}
