package simulation

import (
	"fmt"
	"slices"
	"sort"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/quash-project/quash/shared/guard/wire"
)

// stored is one message of the log.
type stored struct {
	seq     uint64
	subject string
	header  nats.Header
	data    []byte
	at      time.Time // by the broker's clock
	expires time.Time // zero: never
}

// broker is the cluster that keeps the log: the stream, and who hears its feed.
type broker struct {
	c *chance

	mu       sync.Mutex
	messages []stored // ascending
	last     uint64
	nextEnd  time.Time // nothing expires before
	made     bool
	down     bool // it has no leader
	ears     map[*ear]bool
	links    map[*link]bool
	faults   atomic.Bool // whether messages are lost at all
	decoded  map[feedText]wire.Stored
}

func newBroker(c *chance) *broker {
	b := &broker{c: c, ears: map[*ear]bool{}, links: map[*link]bool{}}
	b.faults.Store(true)
	return b
}

// goes reports whether something rare happens to a message.
func (b *broker) goes(n int) bool { return b.faults.Load() && b.c.one(n) }

// ear is one subscription to the feed. What it hears comes in order, late, and now
// and then not at all.
type ear struct {
	hear  func(stored)
	away  atomic.Bool
	lost  func() // of a follower: messages may have been missed
	queue chan stored
	end   chan struct{}
}

func (b *broker) listen(hear func(stored)) (*ear, func()) {
	e := &ear{hear: hear, queue: make(chan stored, 4096), end: make(chan struct{})}
	b.mu.Lock()
	b.ears[e] = true
	b.mu.Unlock()
	var done sync.WaitGroup
	done.Go(func() {
		for {
			select {
			case <-e.end:
				return
			case s := <-e.queue:
				late := b.c.upTo(2 * time.Millisecond)
				if b.goes(40) {
					late = b.c.upTo(300 * time.Millisecond)
				}
				time.Sleep(late)
				if !e.away.Load() && !b.goes(60) {
					e.hear(s)
				}
			}
		}
	})
	return e, sync.OnceFunc(func() {
		b.mu.Lock()
		delete(b.ears, e)
		b.mu.Unlock()
		close(e.end)
		done.Wait()
	})
}

// put stores a message if its conditions hold.
func (b *broker) put(m *nats.Msg) (uint64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.made {
		return 0, jetstream.ErrNoStreamResponse
	}
	b.expire()
	if text := m.Header.Get(jetstream.ExpectedLastSubjSeqHeader); text != "" {
		want, _ := strconv.ParseUint(text, 10, 64)
		have := uint64(0)
		for i := range b.messages {
			if b.messages[i].subject == m.Subject {
				have = b.messages[i].seq
			}
		}
		if have != want {
			return 0, &jetstream.APIError{
				Code: 400, ErrorCode: jetstream.JSErrCodeStreamWrongLastSequence, Description: fmt.Sprintf("wrong last sequence: %d", have),
			}
		}
	}
	b.last++
	s := stored{seq: b.last, subject: m.Subject, data: m.Data, at: time.Now(), header: nats.Header{wire.Header: m.Header[wire.Header]}}
	if text := m.Header.Get(jetstream.MsgTTLHeader); text != "" {
		n, _ := strconv.ParseInt(text, 10, 64)
		s.expires = s.at.Add(time.Duration(n) * time.Second)
	}
	if !s.expires.IsZero() && s.expires.Before(b.nextEnd) {
		b.nextEnd = s.expires
	}
	b.messages = append(b.messages, s)
	for e := range b.ears {
		select {
		case e.queue <- s:
		default: // a slow one loses it
		}
	}
	return s.seq, nil
}

// newest is the sequence of the newest message, 0 while there is none.
func (b *broker) newest() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.last
}

func (b *broker) expire() {
	now := time.Now()
	if now.Before(b.nextEnd) {
		return
	}
	b.nextEnd = now.Add(time.Hour)
	kept := b.messages[:0:0]
	for _, s := range b.messages {
		if !s.expires.IsZero() && !now.Before(s.expires) {
			continue
		}
		if !s.expires.IsZero() && s.expires.Before(b.nextEnd) {
			b.nextEnd = s.expires
		}
		kept = append(kept, s)
	}
	b.messages = kept
}

// rollBack loses what is above a sequence; it is given out again. Every connection
// comes back to another server.
func (b *broker) rollBack(to uint64) {
	b.mu.Lock()
	i := sort.Search(len(b.messages), func(i int) bool { return b.messages[i].seq > to })
	b.messages, b.last = b.messages[:i:i], to
	for e := range b.ears {
		for len(e.queue) > 0 {
			<-e.queue
		}
	}
	b.mu.Unlock()
	b.reconnectAll()
}

// lose has servers that start again on a file with a damaged block: they lack what
// stood in it, and go on after the end.
func (b *broker) lose(from, to uint64) {
	b.mu.Lock()
	b.messages = slices.DeleteFunc(slices.Clone(b.messages), func(s stored) bool {
		return from <= s.seq && s.seq <= to && s.subject != wire.LogEpoch
	})
	b.mu.Unlock()
	b.reconnectAll()
}

// reconnectAll has everybody find another connection, as when all servers restart.
func (b *broker) reconnectAll() {
	b.mu.Lock()
	var again []func()
	for l := range b.links {
		again = append(again, l.reconnect)
	}
	for e := range b.ears {
		if e.lost != nil && !e.away.Load() {
			again = append(again, e.lost)
		}
	}
	b.mu.Unlock()
	for _, f := range again {
		time.AfterFunc(b.c.upTo(200*time.Millisecond), f)
	}
}

// delete makes away with the stream.
func (b *broker) delete() {
	b.mu.Lock()
	b.messages, b.last, b.made = nil, 0, false
	b.mu.Unlock()
	b.reconnectAll()
}

func (b *broker) setDown(down bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.down = down
}

// feedHeader is what the broker republishes of a message.
func feedHeader(s stored) nats.Header {
	return nats.Header{
		wire.Header: s.header[wire.Header], "Nats-Sequence": {strconv.FormatUint(s.seq, 10)}, "Nats-Time-Stamp": {s.at.UTC().Format(time.RFC3339Nano)},
	}
}
