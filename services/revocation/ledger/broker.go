package ledger

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/guard/wire"
)

// Broker is the stream that keeps the log, and its feed: all that the ledger knows
// of JetStream. NewBroker returns that of a connection; a simulation has its own.
// Errors are those of nats.go, which tell what has certainly not been done.
type Broker interface {
	// SetUp makes the stream, or brings it to its settings, and returns what would
	// let an acknowledged message be lost.
	SetUp(ctx context.Context) (hazards []string, err error)
	// Gone reports whether the stream was deleted. One that only has no leader now
	// is not.
	Gone(ctx context.Context) bool
	// Publish stores one message, whose headers may have conditions and a TTL, and
	// returns its sequence.
	Publish(ctx context.Context, m *nats.Msg) (seq uint64, err error)
	// PublishBatch stores all of the messages or none, one after the other, and
	// returns the sequence of the last.
	PublishBatch(ctx context.Context, ms []*nats.Msg) (last uint64, err error)
	// Get and Last read one message at the leader, by its sequence, or the newest
	// of a subject; ErrNoMessage if there is none.
	Get(ctx context.Context, seq uint64) (Raw, error)
	Last(ctx context.Context, subject string) (Raw, error)
	// Read yields the messages from a sequence on, without bodies, until yield
	// returns false or an error, or what there was has been read.
	Read(ctx context.Context, from uint64, yield func(Raw) (more bool, err error)) error
	// Follow delivers the feed into a channel until stop is called. What has no
	// room there is lost, as what comes while the connection is away.
	Follow(ch chan *nats.Msg) (stop func(), err error)
	// Connected says when the connection is lost (false) and back (true), until ctx
	// ends; Reconnects counts how often it came back, before anything comes by it.
	Connected(ctx context.Context) <-chan bool
	Reconnects() uint64
	// MaxPayload is what one message may have in bytes, 0 if that is not known.
	MaxPayload() int64
}

// Raw is one message as the broker has it.
type Raw struct {
	Sequence uint64
	Time     time.Time
	Header   nats.Header
	Data     []byte
}

// stored decodes its wire part.
func (r *Raw) stored() (wire.Stored, error) {
	s := wire.Stored{Sequence: r.Sequence, Time: r.Time.UnixMilli()}
	parts := r.Header[wire.Header]
	if len(parts) != 1 {
		return s, fmt.Errorf("%w: %d headers %s, want one", wire.ErrMalformed, len(parts), wire.Header)
	}
	var err error
	s.Message, err = wire.Decode([]byte(parts[0]))
	return s, err
}

// raw is one message that was read, with its wire part.
type raw struct {
	seq    uint64
	data   []byte
	stored wire.Stored
	err    error  // of the wire part
	asked  uint64 // the epoch in which it was asked for
}

func rawOf(r Raw, asked uint64) raw {
	out := raw{seq: r.Sequence, data: r.Data, asked: asked}
	out.stored, out.err = r.stored()
	return out
}

// ErrNoMessage is what Find and EventAt say of something that the log does not have
// (any more).
var ErrNoMessage = errors.New("no such message in the log")

// getBySeq reads one message at the leader.
func (l *Ledger) getBySeq(ctx context.Context, seq uint64) (raw, error) {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.TryTimeout)
	defer cancel()
	asked := l.Epoch()
	r, err := l.broker.Get(ctx, seq)
	if err != nil {
		return raw{}, err
	}
	return rawOf(r, asked), nil
}

// getLast reads the newest message of a subject at the leader.
func (l *Ledger) getLast(ctx context.Context, subject string) (raw, error) {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.TryTimeout)
	defer cancel()
	asked := l.Epoch()
	r, err := l.broker.Last(ctx, subject)
	if err != nil {
		return raw{}, err
	}
	return rawOf(r, asked), nil
}

// setUpTime bounds one try to create the stream: with three replicas it takes a
// moment.
const setUpTime = 3 * time.Second

// setUpStream creates the stream, or brings an older one to its settings, and
// says in one line what would let an acknowledged revocation be lost.
func (l *Ledger) setUpStream(ctx context.Context) error {
	// A cluster that has no leader yet leaves the request unanswered.
	ctx, cancel := context.WithTimeout(ctx, setUpTime)
	defer cancel()
	hazards, err := l.broker.SetUp(ctx)
	if err != nil {
		return err
	}
	l.hazards.Store(&hazards)
	if len(hazards) > 0 {
		l.log.Warn("an acknowledged revocation can be lost: "+strings.Join(hazards, "; "), zap.String("stream", wire.Stream))
	} else {
		l.log.Info("the log keeps what it acknowledges", zap.String("stream", wire.Stream))
	}
	return nil
}

// Hazards are the settings by which an acknowledged revocation can be lost, as
// the start-up check found them; none is what should be.
func (l *Ledger) Hazards() []string {
	if h := l.hazards.Load(); h != nil {
		return *h
	}
	return nil
}
