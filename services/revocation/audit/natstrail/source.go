package natstrail

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/quash-project/quash/services/revocation/audit"
)

// retryAfter is how long a source that is not there, or can't be read, is left
// alone; checkEvery how often it is looked at whether it is still the same one.
const (
	retryAfter = time.Second
	checkEvery = 30 * time.Second
	// settles is how long a stream that seems to be another one is looked at again: a
	// server that has just started has not read or applied everything when it first
	// answers for it.
	settles = 5 * time.Second
)

// source reads one stream from a place on, and hands on what it finds.
type source struct {
	js   jetstream.JetStream
	name string
	log  *zap.Logger
	// from returns where the chain stands; put hands on a message, or with a nil
	// one that the stream is another one than it was.
	from func() audit.Place
	put  func(ctx context.Context, s *stored, made time.Time) error

	doubted time.Time // since when it seems to be another stream; zero: it does not
}

// run reads until ctx ends.
func (s *source) run(ctx context.Context) {
	told := ""
	for ctx.Err() == nil {
		err := s.read(ctx)
		if err == nil || ctx.Err() != nil {
			continue // looked at again
		}
		if text := err.Error(); text != told && !errors.Is(err, jetstream.ErrStreamNotFound) {
			told = text
			s.log.Warn("the audit waits for a source", zap.String("stream", s.name), zap.Error(err))
		}
		sleep(ctx, retryAfter)
	}
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// read reads for a while, then returns nil so that the stream is looked at again.
func (s *source) read(ctx context.Context) error {
	stream, err := s.js.Stream(ctx, s.name)
	if err != nil {
		return err
	}
	info, from := stream.CachedInfo(), s.from()
	another, err := s.another(info, from)
	if err != nil {
		return err
	}
	if another {
		if err := s.put(ctx, nil, info.Created); err != nil {
			return err
		}
		from = audit.Place{}
	}
	// What was read last is read once more: it shows whether this is still the stream
	// that it was, which may have gone back and have grown past that place since.
	c, err := stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: max(from.Sequence, 1), InactiveThreshold: 2 * checkEvery,
		MaxResetAttempts: 1, // by default it tries for ever, whatever ctx says
	})
	if err != nil {
		return fmt.Errorf("read from %d: %w", from.Sequence, err)
	}
	it, err := c.Messages(jetstream.PullMaxMessages(256))
	if err != nil {
		return fmt.Errorf("read from %d: %w", from.Sequence, err)
	}
	defer it.Stop()
	return s.take(ctx, it, from, info.Created)
}

// another reports whether the stream was made anew or went back. The error says that
// it can't be told yet.
func (s *source) another(info *jetstream.StreamInfo, from audit.Place) (bool, error) {
	if from.Sequence == 0 || info.Created.Equal(from.Made) && info.State.LastSeq >= from.Sequence {
		s.doubted = time.Time{}
		return false, nil
	}
	if s.doubted.IsZero() {
		s.doubted = time.Now()
	}
	if time.Since(s.doubted) < settles {
		return false, fmt.Errorf("it ends at %d, and was read to %d", info.State.LastSeq, from.Sequence)
	}
	s.doubted = time.Time{}
	return true, nil
}

// take hands on what comes, for a while.
func (s *source) take(ctx context.Context, it jetstream.MessagesContext, from audit.Place, made time.Time) error {
	window, cancel := context.WithTimeout(ctx, checkEvery)
	defer cancel()
	consumer := ""
	for {
		msg, err := it.Next(jetstream.NextContext(window))
		if window.Err() != nil {
			return nil //nolint:nilerr // time to look at the stream again
		}
		if err != nil {
			return err
		}
		meta, err := msg.Metadata()
		if err != nil {
			return err
		}
		if consumer == "" {
			consumer = meta.Consumer
		}
		if meta.Consumer != consumer {
			return nil // the server that had it is gone, and what goes on may have another history
		}
		m := &stored{
			source: s.name, sequence: meta.Sequence.Stream, at: meta.Timestamp, subject: msg.Subject(), header: msg.Headers(), body: msg.Data(),
		}
		if m.sequence == from.Sequence {
			if from.Stored.IsZero() || from.Stored.Equal(m.at) {
				continue
			}
			return s.put(ctx, nil, made) // and it is read from its beginning
		}
		if err := s.put(ctx, m, made); err != nil {
			return err
		}
	}
}
