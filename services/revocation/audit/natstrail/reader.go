package natstrail

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/quash-project/quash/services/revocation/audit"
)

const (
	// patience is how long a page that is there may take to come.
	patience = 10 * time.Second
	// ahead is how much of the trail is taken before it is asked for, at most.
	aheadPages, aheadBytes = 500, 8 << 20
)

// Reader reads the trail. It is safe for concurrent use.
type Reader struct {
	js      jetstream.JetStream
	control jetstream.JetStream // nil: the buckets' heads can't be told
}

// NewReader returns a reader by the connection of the revocation service, and that of
// the read-only user among the buckets (nil: none). It asks nothing of NATS yet.
func NewReader(nc, control *nats.Conn) (*Reader, error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	r := &Reader{js: js}
	if control != nil {
		if r.control, err = jetstream.New(control); err != nil {
			return nil, fmt.Errorf("audit: %w", err)
		}
	}
	return r, nil
}

// Last returns the last page that is there, the zero Stored if none is; and how many
// there have been, which is more if some were cut off.
func (r *Reader) Last(ctx context.Context) (last audit.Stored, pages uint64, err error) {
	s, err := r.js.Stream(ctx, audit.Stream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return last, 0, nil
	}
	if err != nil {
		return last, 0, fmt.Errorf("the audit trail: %w", err)
	}
	pages = s.CachedInfo().State.LastSeq
	m, err := s.GetLastMsgForSubject(ctx, audit.Subject)
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound):
		return last, pages, nil
	case err != nil:
		return last, 0, fmt.Errorf("the end of the audit trail: %w", err)
	}
	return audit.Stored{Number: m.Sequence, At: m.Time.UTC(), Body: m.Data}, max(pages, m.Sequence), nil
}

// Pages calls yield for each page that is there, from one number to another, in order.
// With audit.Endless as the other it goes on with what is appended, until ctx ends; that is no error.
func (r *Reader) Pages(ctx context.Context, from, to uint64, yield func(audit.Stored) error) error {
	follow := to == audit.Endless
	if from > to {
		return nil
	}
	stream, err := r.js.Stream(ctx, audit.Stream)
	if err != nil {
		return fmt.Errorf("the audit trail: %w", err)
	}
	c, err := stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: max(from, 1), InactiveThreshold: 5 * time.Second,
		MaxResetAttempts: 1, // by default it tries for ever, whatever ctx says
	})
	if err != nil {
		return fmt.Errorf("the audit trail: %w", err)
	}
	it, err := c.Messages(jetstream.PullMaxMessagesWithBytesLimit(aheadPages, aheadBytes))
	if err != nil {
		return fmt.Errorf("the audit trail: %w", err)
	}
	defer it.Stop()
	reading, stop := context.WithCancel(ctx)
	defer stop()
	silent := time.AfterFunc(patience, stop)
	defer silent.Stop()
	if follow {
		silent.Stop()
	}
	for {
		m, err := it.Next(jetstream.NextContext(reading))
		switch {
		case err != nil && follow && ctx.Err() != nil:
			return nil
		case err != nil && ctx.Err() == nil && reading.Err() != nil:
			return fmt.Errorf("the audit trail: no page came for %s, and page %d is the last", patience, to)
		case err != nil:
			return fmt.Errorf("the audit trail: %w", err)
		}
		meta, err := m.Metadata()
		if err != nil {
			return fmt.Errorf("the audit trail: %w", err)
		}
		at := meta.Sequence.Stream
		if !follow && at > to {
			return nil
		}
		if err := yield(audit.Stored{Number: at, At: meta.Timestamp.UTC(), Body: m.Data()}); err != nil {
			return err
		}
		if !follow && (at == to || meta.NumPending == 0) {
			return nil
		}
		if !follow {
			silent.Reset(patience)
		}
	}
}

// First returns the number of the first page up to last that was not stored before t.
func (r *Reader) First(ctx context.Context, t time.Time, last uint64) (uint64, error) {
	stream, err := r.js.Stream(ctx, audit.Stream)
	if err != nil {
		return 0, fmt.Errorf("the audit trail: %w", err)
	}
	low, high := uint64(1), last+1
	for low < high {
		mid := low + (high-low)/2
		m, err := stream.GetMsg(ctx, mid)
		switch {
		case errors.Is(err, jetstream.ErrMsgNotFound):
			return 1, nil // some are missing: whoever reads from there on says so
		case err != nil:
			return 0, fmt.Errorf("page %d of the audit trail: %w", mid, err)
		case m.Time.Before(t):
			low = mid + 1
		default:
			high = mid
		}
	}
	return low, nil
}

// Verify reads the whole chain, calls yield for each item in its order (nil: nobody
// wants them), and returns a Broken error at the first page that does not follow from
// the one before.
func Verify(ctx context.Context, nc *nats.Conn, yield func(audit.Item) error) (audit.Summary, error) {
	r, err := NewReader(nc, nil)
	if err != nil {
		return audit.Summary{}, err
	}
	last, pages, err := r.Last(ctx)
	if err != nil {
		return audit.Summary{}, err
	}
	v := audit.NewVerifier(yield)
	err = r.Pages(ctx, 1, last.Number, func(p audit.Stored) error { return v.Page(p.Number, p.Body) })
	if err == nil {
		err = v.End(pages)
	}
	return v.Summary(), err
}
