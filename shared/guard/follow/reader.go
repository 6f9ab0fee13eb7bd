package follow

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// Reader follows the log. Make it with New; it does nothing before Run.
type Reader struct {
	cfg      Config
	log      *zap.Logger
	instance string
	base     time.Time // of the monotonic clock; its wall reading is not used
	view     *revoke.View

	snap    atomic.Pointer[snapshot] // what the lock-free methods read
	started atomic.Bool
	changed broadcast
	moved   broadcast

	kickSync, kickProbe, kickJoin, kickReport chan struct{}

	randMu sync.Mutex // Config.Rand need not be safe for concurrent use

	mu sync.Mutex
	state
}

// state is owned by whoever holds Reader.mu.
type state struct {
	track                 // how far the log was applied: the watermark
	synced  revoke.Stamp  // stamp of the last sync, until the watermark has reached it
	top     uint64        // the highest epoch heard of
	toldTop wire.Position // of the message by which

	loaded bool    // view and keys hold all of the log up to pos, in the epoch top
	back   *back   // proof that the log went back
	unread *unread // what could not be read
	clock  error   // ErrClock after a tick said so

	stopped bool
	waiting string // for people

	following bool // the feed goes on from pos
	feed      backlog
	sync      syncState

	probes probeState
	join   joinState
	report reportState
	broker int64 // the broker's time, Unix milliseconds, of the newest tick asked for
}

// track is a way through the log.
type track struct {
	pos    wire.Position
	stamp  revoke.Stamp // of the newest entry or epoch on the way
	recent ring
}

// unread remembers a message that could not be read.
type unread struct {
	seq   uint64 // 0: not even that
	round uint64 // the newest round of syncs when it came
}

// back remembers the proof that the log went back.
type back struct {
	have  []place // what was read where the log has something else now
	round uint64  // the newest round of syncs when it came
}

// New returns a reader, or all that is wrong with the configuration.
func New(cfg Config) (*Reader, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	instance, err := wire.NewID(cfg.Rand)
	if err != nil {
		return nil, fmt.Errorf("follow: instance: %w", err)
	}
	r := &Reader{
		cfg: cfg, log: cfg.Log, instance: instance, base: time.Now(), view: revoke.NewView(),
		kickSync: make(chan struct{}, 1), kickProbe: make(chan struct{}, 1),
		kickJoin: make(chan struct{}, 1), kickReport: make(chan struct{}, 1),
	}
	r.join.limit, r.join.past = cfg.Limit, cfg.Past
	r.publish()
	return r, nil
}

// Instance returns the random name of this reader in the fleet.
func (r *Reader) Instance() string { return r.instance }

// Run follows the log until ctx ends; then it says that it is out of the fleet,
// and returns nil. Whatever fails meanwhile is tried again. It can be called
// once.
func (r *Reader) Run(ctx context.Context) error {
	if r.started.Swap(true) {
		return errors.New("follow: Run was called before")
	}
	run, cancel := context.WithCancel(ctx)
	var tasks sync.WaitGroup
	defer func() {
		r.mu.Lock()
		r.stopped = true // before the word goes out that nothing is accepted any more
		r.publish()
		r.mu.Unlock()
		cancel()
		tasks.Wait()
		r.sayOut(ctx)
	}()
	stop, err := r.subscribe(run)
	if err != nil {
		return nil //nolint:nilerr // ctx has ended, which is how Run ends
	}
	defer stop()
	r.mu.Lock() // the feed may have something to say already
	r.want(wantStart)
	r.mu.Unlock()
	for _, loop := range []func(context.Context, *sync.WaitGroup){r.syncLoop, r.probeLoop, r.joinLoop, r.reportLoop, r.dropLoop} {
		tasks.Go(func() { loop(run, &tasks) })
	}
	<-ctx.Done()
	return nil
}

// subscribe tries until it can, or ctx ends.
func (r *Reader) subscribe(ctx context.Context) (stop func(), err error) {
	for wait := firstBackoff; ; wait = min(2*wait, lastBackoff) {
		if stop, err = r.cfg.Feed.Subscribe(r.deliver, r.lost); err == nil {
			return stop, nil
		}
		r.setWaiting("subscribe to the feed", err)
		if !sleep(ctx, wait/2+r.jitter(wait/2), nil) {
			return nil, ctx.Err()
		}
	}
}

// sayOut tells the fleet that this instance accepts nothing any more. If that
// is lost, the join ends by itself.
func (r *Reader) sayOut(ctx context.Context) {
	r.mu.Lock()
	asked := r.join.asked
	r.mu.Unlock()
	if !asked {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), outTimeout)
	defer cancel()
	if _, err := r.cfg.Source.Out(ctx, wire.OutRequest{Instance: r.instance}); err != nil {
		r.log.Info("could not say that this reader is out; its join ends by itself", zap.Error(err))
	}
}

// View returns the view; it is the same one for the reader's whole life.
func (r *Reader) View() *revoke.View { return r.view }

// Position returns the watermark: everything in the log up to there is in the
// view.
func (r *Reader) Position() wire.Position { return r.snap.Load().pos }

// Stamp returns the stamp for what is made from now on: the position of the
// newest entry or epoch that the view has, or of the last sync if that is higher
// (an entry that has ended is in no view any more). It never exceeds the
// watermark.
func (r *Reader) Stamp() revoke.Stamp { return r.snap.Load().stamp }

// WaitFor returns once the watermark has reached the stamp, or with the error of
// ctx.
func (r *Reader) WaitFor(ctx context.Context, stamp revoke.Stamp) error {
	for {
		moved := r.moved.wait()
		switch s := r.snap.Load(); {
		case !s.pos.Less(stamp):
			return nil
		case s.stopped:
			return ErrStopped
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", stamp, context.Cause(ctx))
		}
	}
}

// Changed returns a channel that is closed when the view next changes.
func (r *Reader) Changed() <-chan struct{} { return r.changed.wait() }

// broadcast closes a channel for all who wait, and costs nothing while nobody
// does.
type broadcast struct {
	mu sync.Mutex
	ch chan struct{}
}

func (b *broadcast) wait() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch == nil {
		b.ch = make(chan struct{})
	}
	return b.ch
}

func (b *broadcast) send() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch != nil {
		close(b.ch)
		b.ch = nil
	}
}

func kick(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default: // it will look anyway
	}
}

// sleep waits for d, a kick or the end of ctx; only the last makes it false.
func sleep(ctx context.Context, d time.Duration, kicked <-chan struct{}) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-kicked:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

// setWaiting keeps what the reader fails at, and logs it when that is news.
func (r *Reader) setWaiting(what string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	text := what + ": " + err.Error()
	if r.waiting == "" {
		r.log.Warn("waiting for the revocation service", zap.String("to", what), zap.Error(err))
	}
	r.waiting = text
	r.publish()
}
