package followtest

import (
	"crypto/rand"
	"io"
	"sync"
	"time"

	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// Config is how the service behaves.
type Config struct {
	Now  func() time.Time // the broker's clock; default time.Now
	Rand io.Reader        // ids; default crypto/rand.Reader
	// Gather and GatherUrgent are how long probes are gathered for one tick;
	// default 1 s and 20 ms.
	Gather, GatherUrgent time.Duration
	// Tail is how many messages an answer to a sync holds; default 100.
	Tail int
	// Blind is a service that does not notice that its log went back.
	Blind bool
}

// Log is the log and the service before it. Its methods are safe for concurrent
// use.
type Log struct {
	cfg Config

	mu        sync.Mutex
	messages  []*wire.Stored // by sequence - 1; nil: gone
	epoch     uint64
	view      *revoke.View // all that was ever committed, as a service remembers it
	keys      map[string]wire.KeyMessage
	order     []string // of keys
	stamp     revoke.Stamp
	snapshots map[string][][]byte
	links     []*Link
	gather    *gathering
	counts    Counts
	reports   map[string]wire.Position
}

// Counts tells what readers have asked.
type Counts struct{ Sync, Page, Probe, Join, Out, Report, Tick int }

// NewLog returns a log whose only message begins its first epoch.
func NewLog(cfg Config) *Log {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Rand == nil {
		cfg.Rand = rand.Reader
	}
	if cfg.Gather == 0 {
		cfg.Gather = time.Second
	}
	if cfg.GatherUrgent == 0 {
		cfg.GatherUrgent = 20 * time.Millisecond
	}
	if cfg.Tail == 0 {
		cfg.Tail = 100
	}
	l := &Log{
		cfg: cfg, view: revoke.NewView(), keys: map[string]wire.KeyMessage{},
		snapshots: map[string][][]byte{}, reports: map[string]wire.Position{},
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.beginEpoch(revoke.Stamp{})
	return l
}

// Commit appends a message, whose ID, Epoch, At and Until are set where they
// are zero, and returns where it stands.
func (l *Log) Commit(m wire.Message) wire.Stored {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.commit(m)
}

// End commits an entry that ends these targets.
func (l *Log) End(keys ...revoke.Key) wire.Stored {
	return l.Commit(wire.Message{Kind: wire.KindEntry, End: keys})
}

// Cut commits an entry that cuts these targets.
func (l *Log) Cut(keys ...revoke.Key) wire.Stored {
	return l.Commit(wire.Message{Kind: wire.KindEntry, Cut: keys})
}

// Tick commits a tick.
func (l *Log) Tick() wire.Stored { return l.Commit(wire.Message{Kind: wire.KindTick}) }

func (l *Log) commit(m wire.Message) wire.Stored {
	now := l.cfg.Now()
	if m.ID == "" {
		id, err := wire.NewID(l.cfg.Rand)
		if err != nil {
			panic(err) // a test without randomness can't go on
		}
		m.ID = id
	}
	if m.Epoch == 0 {
		m.Epoch = l.epoch
	}
	switch m.Kind {
	case wire.KindEntry:
		if m.At == 0 {
			m.At = now.UnixMilli()
		}
		if m.Until == 0 {
			m.Until = now.Add(24 * time.Hour).Unix()
		}
		m.Ops = ops(m)
	case wire.KindTick:
		l.counts.Tick++
	}
	s := &wire.Stored{Sequence: uint64(len(l.messages)) + 1, Time: now.UnixMilli(), Message: m}
	l.messages = append(l.messages, s)
	l.fold(*s)
	for _, link := range l.links {
		link.publish(*s)
	}
	return *s
}

func ops(m wire.Message) []string {
	var out []string
	for _, op := range [...]struct {
		n    int
		name string
	}{{len(m.Cut), wire.OpCut}, {len(m.End), wire.OpEnd}, {len(m.Hold), wire.OpHold}, {len(m.Release), wire.OpRelease}} {
		if op.n > 0 {
			out = append(out, op.name)
		}
	}
	return out
}

func (l *Log) fold(s wire.Stored) {
	for k, st := range s.Message.States(s.Position().Stamp) {
		l.view.Merge(k, st)
	}
	if e, ok := s.Message.EpochState(); ok {
		l.view.MergeEpoch(e)
	}
	switch s.Message.Kind {
	case wire.KindEntry, wire.KindEpoch:
		l.stamp = l.stamp.Max(s.Position().Stamp)
	case wire.KindKey:
		if _, ok := l.keys[s.Message.KeyID]; !ok {
			l.order = append(l.order, s.Message.KeyID)
		}
		l.keys[s.Message.KeyID] = wire.KeyMessage{KeyID: s.Message.KeyID, Until: s.Message.Until, JWS: s.Message.JWS}
	}
}

// BeginEpoch begins a new history that shares everything up to d with the ones
// before.
func (l *Log) BeginEpoch(d revoke.Stamp) wire.Stored {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.beginEpoch(d)
}

func (l *Log) beginEpoch(d revoke.Stamp) wire.Stored {
	l.epoch = max(l.epoch+1, uint64(l.cfg.Now().UnixMilli()))
	return l.commit(wire.Message{Kind: wire.KindEpoch, D: &d})
}

// RollBack takes away everything above a sequence, as a lost tail or a restored
// copy does: nobody is told, and the sequences are given out again. It returns
// what was lost.
func (l *Log) RollBack(to uint64) []wire.Stored {
	l.mu.Lock()
	defer l.mu.Unlock()
	var lost []wire.Stored
	for _, m := range l.messages[to:] {
		if m != nil {
			lost = append(lost, *m)
		}
	}
	l.messages = l.messages[:to]
	return lost
}

// Expire takes the messages from one sequence to another away, as their time to
// live does. The epochs stay.
func (l *Log) Expire(from, to uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := from - 1; i < to && i < uint64(len(l.messages)); i++ {
		if m := l.messages[i]; m != nil && m.Message.Kind != wire.KindEpoch {
			l.messages[i] = nil
		}
	}
}

// Restart makes the service forget what its log does not hold: it replays.
func (l *Log) Restart() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.view, l.keys, l.order, l.stamp = revoke.NewView(), map[string]wire.KeyMessage{}, nil, revoke.Stamp{}
	clear(l.snapshots)
	l.epoch = 0
	for _, m := range l.messages {
		if m != nil {
			l.epoch = max(l.epoch, m.Message.Epoch)
			l.fold(*m)
		}
	}
}

// Fold returns the state of every target that the service knows.
func (l *Log) Fold() map[revoke.Key]revoke.State {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := map[revoke.Key]revoke.State{}
	for k, s := range l.view.All {
		out[k] = s
	}
	return out
}

// Head returns the position of the newest message.
func (l *Log) Head() wire.Position {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.head()
}

func (l *Log) head() wire.Position {
	for i := len(l.messages) - 1; i >= 0; i-- {
		if m := l.messages[i]; m != nil {
			return l.place(*m)
		}
	}
	return wire.Position{}
}

// place is where a message stands: in the epoch of the log, not of its publisher.
func (l *Log) place(m wire.Stored) wire.Position {
	p := m.Position()
	for i := m.Sequence; i > 0; i-- {
		if e := l.messages[i-1]; e != nil && e.Message.Kind == wire.KindEpoch {
			p.Epoch = max(p.Epoch, e.Message.Epoch)
			break
		}
	}
	return p
}

// Epoch returns the number of the current epoch.
func (l *Log) Epoch() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.epoch
}

// Counts returns what readers have asked since the last call of it.
func (l *Log) Counts() Counts {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.counts
	l.counts = Counts{}
	return c
}

// Reported returns the last position that an instance has told.
func (l *Log) Reported(instance string) wire.Position {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.reports[instance]
}
