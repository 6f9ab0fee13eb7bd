package natstrail

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/quash-project/quash/services/revocation/audit"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/identity"
)

// Config is what a Follower needs. NATS is required.
type Config struct {
	// NATS is the connection of the revocation service: the log is read, and the
	// chain is written, by it.
	NATS *nats.Conn
	// Control is that of the read-only user among the buckets; nil: none is read.
	Control *nats.Conn
	Log     *zap.Logger
	// Replicas of the stream. Default 1.
	Replicas int
	// Gather is how long items are gathered for one page. Default 250 ms: what
	// was done is durable already, and waits for nothing here.
	Gather time.Duration
}

// Bounds of a page. The greatest body of the log is some hundred KB below what
// the broker takes at once.
const (
	pageItems = 256
	pageBytes = 1 << 20
	// openTime bounds one try to open the chain: a cluster that is just being made
	// leaves requests unanswered.
	openTime = 3 * time.Second
	// standBy is how long a replica leaves the chain to another one that has
	// overtaken it.
	standBy = 2 * time.Second
)

// Follower writes the chain. Make it with New, and Run it.
type Follower struct {
	cfg     Config
	log     *zap.Logger
	js      jetstream.JetStream
	control jetstream.JetStream // nil: none
	news    chan arrival
	chain   *chain

	mu   sync.Mutex
	upto map[string]audit.Place // where the sources are read from: at or above the chain's
}

// arrival is a message of a source; without one, the source is another one.
type arrival struct {
	source  string
	message *stored
	made    time.Time
}

// New returns a Follower. It asks nothing of NATS yet.
func New(cfg Config) (*Follower, error) {
	if cfg.NATS == nil {
		return nil, errors.New("audit: no NATS connection")
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	if cfg.Replicas == 0 {
		cfg.Replicas = 1
	}
	if cfg.Gather == 0 {
		cfg.Gather = 250 * time.Millisecond
	}
	js, err := jetstream.New(cfg.NATS)
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	f := &Follower{cfg: cfg, log: cfg.Log, js: js, news: make(chan arrival, pageItems)}
	if cfg.Control != nil {
		if f.control, err = jetstream.New(cfg.Control); err != nil {
			return nil, fmt.Errorf("audit: %w", err)
		}
	}
	return f, nil
}

// Run follows every source until ctx ends. Whatever fails is tried again: an
// audit trail that is behind stops nothing, and loses nothing that its sources
// still have.
func (f *Follower) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		err := f.session(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if !errors.Is(err, errOvertaken) {
			f.log.Warn("the audit trail can't be written now; trying again", zap.Error(err))
			sleep(ctx, retryAfter)
			continue
		}
		sleep(ctx, standBy)
	}
	return nil
}

// session reads the end of the chain and follows the sources from there, until
// something fails or another replica writes.
func (f *Follower) session(ctx context.Context) (err error) {
	opening, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	if f.chain, err = openChain(opening, f.js, f.cfg.Replicas); err != nil {
		return err
	}
	f.mu.Lock()
	f.upto = maps.Clone(f.chain.upto)
	f.mu.Unlock()

	reading, stop := context.WithCancel(ctx)
	var sources sync.WaitGroup
	defer func() {
		stop()
		sources.Wait()
		for len(f.news) > 0 {
			<-f.news // the next session reads it again
		}
	}()
	follow := func(js jetstream.JetStream, stream string) {
		s := &source{js: js, name: stream, log: f.log, from: func() audit.Place { return f.place(stream) }}
		s.put = func(ctx context.Context, m *stored, made time.Time) error {
			select {
			case f.news <- arrival{stream, m, made}:
			case <-ctx.Done():
				return ctx.Err()
			}
			at := audit.Place{Made: made}
			if m != nil {
				at.Sequence, at.Stored = m.sequence, m.at.UTC()
			}
			f.mu.Lock()
			f.upto[stream] = at
			f.mu.Unlock()
			return nil
		}
		sources.Go(func() { s.run(reading) })
	}
	follow(f.js, wire.Stream)
	for _, bucket := range identity.Beside {
		follow(f.js, "KV_"+bucket)
	}
	if f.control != nil {
		for _, buckets := range identity.Buckets {
			for _, bucket := range buckets {
				follow(f.control, "KV_"+bucket)
			}
		}
	}
	return f.write(ctx)
}

func (f *Follower) place(stream string) audit.Place {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.upto[stream]
}

// page is what is gathered for the next page.
type page struct {
	items []audit.Item
	upto  map[string]audit.Place
	bytes int
}

// write gathers and appends, until something fails.
func (f *Follower) write(ctx context.Context) error {
	for {
		p := page{upto: maps.Clone(f.chain.upto)}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case a := <-f.news:
			p.take(a)
		}
		gather := time.NewTimer(f.cfg.Gather)
		for full := false; !full && len(p.items) < pageItems && p.bytes < pageBytes; {
			select {
			case a := <-f.news:
				p.take(a)
			case <-gather.C:
				full = true
			case <-ctx.Done():
				full = true // what was gathered is still written
			}
		}
		gather.Stop()
		if len(p.items) == 0 {
			f.chain.upto = p.upto // nothing but what is left out: told by the next page
			continue
		}
		if err := f.chain.add(context.WithoutCancel(ctx), p.items, p.upto); err != nil {
			return err
		}
	}
}

func (p *page) take(a arrival) {
	if a.message == nil {
		was := p.upto[a.source]
		p.upto[a.source] = audit.Place{Made: a.made}
		now := time.Now().UTC()
		p.items = append(p.items, audit.Item{
			Source: a.source, Sequence: was.Sequence, Stored: now, At: now, Type: audit.TypeRestart, Actor: "revocation",
			Reason: fmt.Sprintf("the stream of %s was read up to %d, and is another one now, made %s, or has other messages there, or ends before that",
				was.Made.Format(time.RFC3339), was.Sequence, a.made.Format(time.RFC3339)),
		})
		return
	}
	p.upto[a.source] = audit.Place{Made: a.made, Sequence: a.message.sequence, Stored: a.message.at.UTC()}
	if it, ok := a.message.item(); ok {
		p.items = append(p.items, it)
		p.bytes += len(it.Event) + 512
	}
}
