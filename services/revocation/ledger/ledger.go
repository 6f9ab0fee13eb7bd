package ledger

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/problem"
)

// Ledger is the log as one replica of the revocation service keeps it.
type Ledger struct {
	cfg     Config
	log     *zap.Logger
	broker  Broker
	replica string // random: names this process for pages
	view    *revoke.View
	ticks   *ticks
	clock   clock
	hazards atomic.Pointer[[]string]
	state   atomic.Pointer[readiness]
	// doubt is the epoch in which this service itself saw that the log went back. Its
	// positions mean something else now, so nothing is answered until the next one.
	doubt  atomic.Pointer[doubt]
	proofs chan proof
	lost   chan struct{} // the broker has no stream for what was published
	feed   chan *nats.Msg

	group     *group
	known     known
	observers []Observer // before Run only
	holders   Holders    // before Run only
	whole     snapshots

	// Owned by Run's goroutine:
	owed        *memory // what must be committed again
	own         *fold   // what the log itself says, while that is judged
	newest      uint64  // the newest epoch that was ever heard of, by Redis too
	here        uint64  // the epoch of the head
	connections uint64  // which connection the feed was last whole on
	holes       []hole  // above the newest epoch
	unlooked    bool    // the log has to be held against what is known, after a reconnect
	stopLooking context.CancelFunc
	looking     sync.WaitGroup

	mu       sync.Mutex
	ring     *ring
	head     wire.Position // the newest message that was applied
	observed revoke.Stamp  // and that all observers were told of
	headTime int64         // the broker's time of it
	stamp    revoke.Stamp  // the newest entry or epoch
	epoch    uint64        // the current one
	epochSeq uint64        // where its message stands
	// seen is the highest sequence that was applied or acknowledged in the current
	// epoch; a commit at or below it shows that the log went back.
	seen uint64
	// acked has, by sequence, what was acknowledged in the current epoch and not applied
	// yet: another message there shows that the log went back.
	acked     map[uint64]string
	keys      map[string]wire.Stored
	changed   chan struct{} // closed when head moves
	begunAt   time.Time     // when the current epoch was begun or adopted here
	lastBegin time.Time     // when this replica last began one, by the monotonic clock
}

type readiness struct{ err error }

type doubt struct {
	epoch uint64
	why   string
}

// New returns a Ledger; Run makes it work.
func New(cfg Config) (*Ledger, error) {
	if err := cfg.defaults(); err != nil {
		return nil, err
	}
	broker := cfg.Broker
	if broker == nil {
		var err error
		if broker, err = NewBroker(cfg.NATS, cfg); err != nil {
			return nil, err
		}
	}
	replica, err := wire.NewID(cfg.Rand)
	if err != nil {
		return nil, err
	}
	l := &Ledger{
		cfg: cfg, log: cfg.Log.Named("ledger"), broker: broker, replica: replica,
		view: revoke.NewView(), ring: newRing(cfg.RingSize), keys: map[string]wire.Stored{}, acked: map[uint64]string{},
		changed: make(chan struct{}), proofs: make(chan proof, 1), lost: make(chan struct{}, 1), feed: make(chan *nats.Msg, 1<<16),
	}
	l.clock = clock{now: cfg.Now, log: l.log}
	l.ticks = &ticks{commit: l.commitTick, ordinary: cfg.OrdinaryGather, urgent: cfg.UrgentGather, log: l.log}
	l.group = newGroup(broker.Publish, broker.PublishBatch, l.log)
	l.notReady("the log has not been read yet")
	return l, nil
}

// Observe registers an observer. Call it before Run.
func (l *Ledger) Observe(o Observer) { l.observers = append(l.observers, o) }

// View is the fold of the log. It is whole when Ready returns nil.
func (l *Ledger) View() *revoke.View { return l.view }

// Replica names this process; pages of a whole state are asked for by it.
func (l *Ledger) Replica() string { return l.replica }

// Ready returns nil when the view has reached a tick that was asked for after
// the start, the last reconnect and the last new epoch, and the clock agrees with
// the broker's; otherwise why not, as problem.Unavailable.
func (l *Ledger) Ready() error {
	if err := l.state.Load().err; err != nil {
		return err
	}
	if l.doubts(l.Epoch()) {
		return problem.New(problem.Unavailable, "the revocation service is not ready: the log went back, and a new epoch is to begin")
	}
	return l.clock.check()
}

func (l *Ledger) notReady(format string, args ...any) {
	why := fmt.Sprintf(format, args...)
	l.state.Store(&readiness{err: problem.New(problem.Unavailable, "the revocation service is not ready: %s", why)})
}

func (l *Ledger) ready() { l.state.Store(&readiness{}) }

// Head is the position of the newest applied message.
func (l *Ledger) Head() wire.Position {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.head
}

// Stamp is the position of the newest entry or epoch that was applied.
func (l *Ledger) Stamp() revoke.Stamp {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stamp
}

// Epoch is the number of the current history.
func (l *Ledger) Epoch() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.epoch
}

// EpochBegan is when, by this service's clock, it began or adopted the current
// epoch; zero if it found it there at its start.
func (l *Ledger) EpochBegan() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.begunAt
}

// epochAt is the position of the current epoch's message.
func (l *Ledger) epochAt() revoke.Stamp {
	l.mu.Lock()
	defer l.mu.Unlock()
	return revoke.Stamp{Epoch: l.epoch, Seq: l.epochSeq}
}

// WaitApplied returns once everything up to the stamp is in the view, and the
// observers were told of it.
func (l *Ledger) WaitApplied(ctx context.Context, s revoke.Stamp) error {
	for {
		l.mu.Lock()
		done, changed := !l.observed.Less(s), l.changed
		l.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return problem.Wrap(problem.Unavailable, context.Cause(ctx), "the service's own view is behind")
		}
	}
}

// Holds reports whether the log has this very message at this position: known
// is false when it is outside of what memory holds.
func (l *Ledger) Holds(p wire.Position) (has, known bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.holdsLocked(p)
}

func (l *Ledger) holdsLocked(p wire.Position) (has, known bool) {
	if it, ok := l.ring.find(p.Seq); ok {
		// The id alone: a message by a publisher that had not heard of the newest
		// epoch names the former, and readers count it as of the one that it stands in.
		return it.id == p.ID, true
	}
	return false, false
}

// sawAck takes note of an acknowledged message before the feed brings it:
// merging is commutative, so it may come first here.
func (l *Ledger) sawAck(p wire.Position, m wire.Message) {
	for k, s := range m.States(p.Stamp) {
		l.view.Merge(k, s)
	}
	if l.keepAck(p) {
		l.wentBack(fmt.Sprintf("another message than was acknowledged stands at %d", p.Seq))
	}
}

// keepAck reports whether another message was applied at the place of an acknowledged one.
func (l *Ledger) keepAck(p wire.Position) (another bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.Epoch != l.epoch { // its sequence is of another history by now
		return false
	}
	l.seen = max(l.seen, p.Seq)
	if p.Seq > l.head.Seq {
		l.acked[p.Seq] = p.ID
		return false
	}
	// The ring may still be that of the history before.
	it, ok := l.ring.find(p.Seq)
	return ok && it.epoch == p.Epoch && it.id != p.ID
}

// wasAcked forgets what was acknowledged at the place of a message that is being applied,
// and reports whether it was another one. It is called with mu held.
func (l *Ledger) wasAcked(s wire.Stored) (another bool) {
	id, ok := l.acked[s.Sequence]
	delete(l.acked, s.Sequence)
	return ok && id != s.Message.ID
}

// current is the epoch, and the highest sequence that was seen in it.
func (l *Ledger) current() (epoch, seen uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.epoch, l.seen
}
