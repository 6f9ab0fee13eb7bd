package audit

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Broken says where a chain breaks.
type Broken struct {
	Number uint64 // of the page
	Why    string
}

func (b *Broken) Error() string {
	return fmt.Sprintf("the audit trail is broken at page %d: %s", b.Number, b.Why)
}

// Summary is what a whole chain has.
type Summary struct {
	Pages, Items uint64
	Last         Digest // of the last page: whoever keeps it can tell a shorter or another chain
}

// Verify reads the whole chain, calls yield for each item in its order (nil:
// nobody wants them), and returns a Broken error at the first page that does not
// follow from the one before.
func Verify(ctx context.Context, nc *nats.Conn, yield func(Item) error) (Summary, error) {
	var sum Summary
	js, err := jetstream.New(nc)
	if err != nil {
		return sum, err
	}
	stream, err := js.Stream(ctx, Stream)
	if err != nil {
		return sum, fmt.Errorf("audit: %w", err)
	}
	v := verifier{upto: map[string]Place{}, yield: yield}
	last := stream.CachedInfo().State.LastSeq
	if last == 0 {
		return sum, nil
	}
	c, err := stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverAllPolicy, InactiveThreshold: 5 * time.Second,
		MaxResetAttempts: 1, // by default it tries for ever, whatever ctx says
	})
	if err != nil {
		return sum, fmt.Errorf("audit: %w", err)
	}
	it, err := c.Messages()
	if err != nil {
		return sum, fmt.Errorf("audit: %w", err)
	}
	defer it.Stop()
	for {
		m, err := it.Next(jetstream.NextContext(ctx))
		if err != nil {
			return v.sum, fmt.Errorf("audit: %w", err)
		}
		meta, err := m.Metadata()
		if err != nil {
			return v.sum, fmt.Errorf("audit: %w", err)
		}
		if err := v.page(meta.Sequence.Stream, m.Data()); err != nil {
			return v.sum, err
		}
		if meta.Sequence.Stream >= last {
			return v.sum, nil
		}
	}
}

type verifier struct {
	sum   Summary
	upto  map[string]Place
	yield func(Item) error
}

func (v *verifier) page(seq uint64, body []byte) error {
	var p Page
	broken := func(format string, args ...any) error { return &Broken{seq, fmt.Sprintf(format, args...)} }
	switch err := json.Unmarshal(body, &p); {
	case err != nil:
		return broken("it can't be read: %s", err)
	case seq != v.sum.Pages+1:
		return broken("page %d is missing", v.sum.Pages+1)
	case p.Number != seq:
		return broken("it says that it is page %d", p.Number)
	case p.Previous != v.sum.Last:
		return broken("it follows a page with the digest %s, and the page before has %s", p.Previous, v.sum.Last)
	}
	for _, it := range p.Items {
		at := v.upto[it.Source]
		switch {
		case it.Type == TypeRestart:
			at = Place{Made: p.Upto[it.Source].Made}
		case it.Sequence <= at.Sequence:
			return broken("it has %d of %s, which was up to %d", it.Sequence, it.Source, at.Sequence)
		default:
			at.Sequence = it.Sequence
		}
		v.upto[it.Source] = at
		v.sum.Items++
		if v.yield != nil {
			if err := v.yield(it); err != nil {
				return err
			}
		}
	}
	for source, at := range p.Upto {
		if at.Sequence < v.upto[source].Sequence {
			return broken("it says that %s stands at %d, and has %d", source, at.Sequence, v.upto[source].Sequence)
		}
		v.upto[source] = at
	}
	v.sum.Pages, v.sum.Last = seq, sha256.Sum256(body)
	return nil
}
