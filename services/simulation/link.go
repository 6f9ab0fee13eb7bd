package simulation

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/quash-project/quash/services/revocation/ledger"
)

// link is the connection of one replica: its ledger.Broker.
type link struct {
	b    *broker
	dead atomic.Bool // its process is: nothing leaves or comes any more
	away atomic.Bool // it is cut off

	mu         sync.Mutex
	ear        *ear
	status     chan bool
	reconnects atomic.Uint64
}

func newLink(b *broker) *link {
	l := &link{b: b, status: make(chan bool, 64)}
	b.mu.Lock()
	b.links[l] = true
	b.mu.Unlock()
	return l
}

func (l *link) close() {
	l.b.mu.Lock()
	delete(l.b.links, l)
	l.b.mu.Unlock()
}

func (l *link) tell(connected bool) {
	select {
	case l.status <- connected:
	default: // nobody listens yet
	}
}

// cut cuts it off, or brings it back.
func (l *link) cut(away bool) {
	if l.away.Swap(away) == away {
		return
	}
	l.mu.Lock()
	if l.ear != nil {
		l.ear.away.Store(away)
	}
	l.mu.Unlock()
	if away {
		l.tell(false)
		return
	}
	l.reconnects.Add(1)
	l.tell(true)
}

func (l *link) reconnect() {
	l.reconnects.Add(1)
	l.tell(false)
	l.tell(true)
}

// way is one trip to the broker: an error if it does not arrive.
func (l *link) way(ctx context.Context) error {
	if l.dead.Load() {
		return nats.ErrConnectionClosed
	}
	if l.away.Load() && l.b.c.one(2) {
		return nats.ErrReconnectBufExceeded
	}
	late := l.b.c.upTo(3 * time.Millisecond)
	if l.b.goes(50) {
		late = l.b.c.upTo(3 * time.Second)
	}
	if !pause(ctx, late) {
		return ctx.Err()
	}
	l.b.mu.Lock()
	down := l.b.down
	l.b.mu.Unlock()
	if down || l.away.Load() || l.b.goes(100) {
		<-ctx.Done()
		return ctx.Err()
	}
	return nil
}

// back is the way of the answer.
func (l *link) back(ctx context.Context) error {
	if l.away.Load() || l.b.goes(60) {
		<-ctx.Done()
		return ctx.Err()
	}
	if !pause(ctx, l.b.c.upTo(2*time.Millisecond)) {
		return ctx.Err()
	}
	if l.dead.Load() {
		return nats.ErrConnectionClosed
	}
	return nil
}

func (l *link) SetUp(ctx context.Context) ([]string, error) {
	if err := l.way(ctx); err != nil {
		return nil, err
	}
	l.b.mu.Lock()
	l.b.made = true
	l.b.mu.Unlock()
	return nil, l.back(ctx)
}

func (l *link) Gone(ctx context.Context) bool {
	if l.way(ctx) != nil {
		return false
	}
	l.b.mu.Lock()
	made := l.b.made
	l.b.mu.Unlock()
	return l.back(ctx) == nil && !made
}

func (l *link) Publish(ctx context.Context, m *nats.Msg) (uint64, error) {
	if err := l.way(ctx); err != nil {
		if !l.dead.Load() && !l.away.Load() && ctx.Err() != nil && l.b.goes(3) {
			// Given up, and on its way all the same.
			late := l.b.c.upTo(20 * time.Second)
			time.AfterFunc(late, func() { _, _ = l.b.put(m) })
		}
		return 0, err
	}
	seq, err := l.b.put(m)
	if lost := l.back(ctx); lost != nil {
		return 0, lost
	}
	return seq, err
}

func (l *link) PublishBatch(ctx context.Context, ms []*nats.Msg) (uint64, error) {
	var last uint64
	if err := l.way(ctx); err != nil {
		return 0, err
	}
	for i, m := range ms { // an atomic batch would be refused as a whole
		seq, err := l.b.put(m)
		if err != nil && i > 0 {
			return 0, context.DeadlineExceeded // so it counts as not answered, and is sent again singly
		}
		if err != nil {
			return 0, err
		}
		if i > 0 && seq != last+1 {
			return 0, context.DeadlineExceeded
		}
		last = seq
	}
	return last, l.back(ctx)
}

func (l *link) Get(ctx context.Context, seq uint64) (ledger.Raw, error) {
	return l.get(ctx, func(s *stored) bool { return s.seq == seq })
}

func (l *link) Last(ctx context.Context, subject string) (ledger.Raw, error) {
	return l.get(ctx, func(s *stored) bool { return s.subject == subject })
}

func (l *link) get(ctx context.Context, is func(*stored) bool) (ledger.Raw, error) {
	if err := l.way(ctx); err != nil {
		return ledger.Raw{}, err
	}
	l.b.mu.Lock()
	l.b.expire()
	out, err := ledger.Raw{}, ledger.ErrNoMessage
	if !l.b.made {
		err = jetstream.ErrStreamNotFound
	}
	for i := range l.b.messages {
		if s := &l.b.messages[i]; is(s) {
			out, err = rawOf(*s), nil
		}
	}
	l.b.mu.Unlock()
	if lost := l.back(ctx); lost != nil {
		return ledger.Raw{}, lost
	}
	return out, err
}

func rawOf(s stored) ledger.Raw {
	return ledger.Raw{Sequence: s.seq, Time: s.at, Header: s.header, Data: s.data}
}

// silence is after how long a broker that brings nothing is given up, as the real one is.
const silence = 5 * time.Second

func (l *link) Read(ctx context.Context, from uint64, yield func(ledger.Raw) (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, silence)
	defer cancel()
	if err := l.way(ctx); err != nil {
		return err
	}
	l.b.mu.Lock()
	l.b.expire()
	made := l.b.made
	messages := append([]stored(nil), l.b.messages...)
	l.b.mu.Unlock()
	if !made {
		return jetstream.ErrStreamNotFound
	}
	for _, s := range messages {
		if s.seq < from {
			continue
		}
		if l.b.goes(2000) || l.dead.Load() {
			return l.back(ctx) // it ends too early
		}
		if more, err := yield(rawOf(s)); err != nil || !more {
			return err
		}
	}
	return nil
}

func (l *link) Follow(ch chan *nats.Msg) (func(), error) {
	e, stop := l.b.listen(func(s stored) {
		if l.dead.Load() {
			return
		}
		select {
		case ch <- &nats.Msg{Subject: s.subject, Header: feedHeader(s)}:
		default:
		}
	})
	l.mu.Lock()
	l.ear = e
	l.mu.Unlock()
	e.away.Store(l.away.Load())
	return stop, nil
}

func (l *link) Connected(context.Context) <-chan bool { return l.status }

func (l *link) Reconnects() uint64 { return l.reconnects.Load() }

func (l *link) MaxPayload() int64 { return 0 }
