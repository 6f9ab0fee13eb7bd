package natstrail

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/quash-project/quash/services/revocation/audit"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/identity"
	"github.com/quash-project/quash/shared/kv"
)

// logSubjects are those of what the audit takes from the log: all but ticks.
var logSubjects = []string{wire.LogEpoch, wire.LogEntry + ">", wire.LogKey + ">", wire.LogJoin + ">", wire.LogOut + ">"}

// lookAgain is how often it is looked whether the trail has come up.
const lookAgain = 25 * time.Millisecond

// head is up to where the trail has to have come.
type head struct {
	js     jetstream.JetStream
	stream string
	made   time.Time
	seq    uint64 // of the newest message that the audit takes; 0: there is none
}

// Await returns the last page once the chain has everything that the sources had when
// it was called: what was committed before that is in the pages up to it. After wait
// the error is audit.Behind.
func (r *Reader) Await(ctx context.Context, wait time.Duration) (audit.Stored, error) {
	last, _, err := r.Last(ctx)
	if err != nil {
		return last, err
	}
	upto, err := last.Upto()
	if err != nil {
		return last, err
	}
	heads, err := r.heads(ctx, upto)
	if err != nil {
		return last, err
	}
	end := time.NewTimer(wait)
	defer end.Stop()
	looked := uint64(0)
	for {
		behind := (*audit.Behind)(nil)
		if looked == 0 || last.Number != looked {
			if upto, err = last.Upto(); err != nil {
				return last, err
			}
			if behind, err = r.lacks(ctx, heads, upto); err != nil {
				return last, err
			}
			if behind == nil {
				return last, nil
			}
			looked = last.Number
		}
		next := time.NewTimer(lookAgain)
		select {
		case <-ctx.Done():
			next.Stop()
			return last, ctx.Err()
		case <-end.C:
			next.Stop()
			behind, err := r.lacks(ctx, heads, upto)
			if err == nil && behind != nil {
				err = behind
			}
			return last, err
		case <-next.C:
		}
		if last, _, err = r.Last(ctx); err != nil {
			return last, err
		}
	}
}

// heads asks every source for its head.
func (r *Reader) heads(ctx context.Context, upto map[string]audit.Place) ([]head, error) {
	log, err := r.headOfLog(ctx, upto[wire.Stream])
	if err != nil {
		return nil, err
	}
	out := []head{log}
	var names []string
	var of []jetstream.JetStream
	for _, bucket := range identity.Beside {
		names, of = append(names, "KV_"+bucket), append(of, r.js)
	}
	if r.control != nil {
		for _, buckets := range identity.Buckets {
			for _, bucket := range buckets {
				names, of = append(names, "KV_"+bucket), append(of, r.control)
			}
		}
	}
	found := make([]*head, len(names))
	g, ctx := errgroup.WithContext(ctx)
	for i, name := range names {
		g.Go(func() (err error) {
			found[i], err = headOfBucket(ctx, of[i], name, upto[name])
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	for _, h := range found {
		if h != nil {
			out = append(out, *h)
		}
	}
	return out, nil
}

func (r *Reader) headOfLog(ctx context.Context, upto audit.Place) (head, error) {
	s, err := r.js.Stream(ctx, wire.Stream)
	if err != nil {
		return head{}, fmt.Errorf("the log: %w", err)
	}
	h := head{js: r.js, stream: wire.Stream, made: s.CachedInfo().Created}
	for _, subject := range logSubjects {
		m, err := s.GetLastMsgForSubject(ctx, subject)
		switch {
		case errors.Is(err, jetstream.ErrMsgNotFound):
		case err != nil:
			return h, fmt.Errorf("the log: %w", err)
		case LeftOut(m.Data):
			from := upto.Sequence + 1
			if !upto.Made.Equal(h.made) || m.Sequence < from {
				from = 1
			}
			seq, err := beforeCanaries(ctx, s, subject, from, m.Sequence)
			if err != nil {
				return h, err
			}
			h.seq = max(h.seq, seq)
		default:
			h.seq = max(h.seq, m.Sequence)
		}
	}
	return h, nil
}

// beforeCanaries returns the newest entry between two places that is of something else; 0:
// there is none. On a quiet system all that the trail has not read are canaries, which end
// within an hour or so.
func beforeCanaries(ctx context.Context, s jetstream.Stream, subject string, from, last uint64) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cfg := jetstream.OrderedConsumerConfig{FilterSubjects: []string{subject}}
	seq, err := lastOf(ctx, s, cfg, from, last, func(m jetstream.Msg, seq uint64) bool { return seq <= last && !LeftOut(m.Data()) })
	if err != nil {
		return 0, fmt.Errorf("the log: %w", err)
	}
	return seq, nil
}

// lastOf looks through what a stream has from a place up to another, and returns the last
// message of which is is true; 0: of none.
func lastOf(ctx context.Context, s jetstream.Stream, cfg jetstream.OrderedConsumerConfig, from, last uint64, is func(m jetstream.Msg, seq uint64) bool) (found uint64, err error) {
	cfg.DeliverPolicy, cfg.OptStartSeq = jetstream.DeliverByStartSequencePolicy, from
	cfg.InactiveThreshold, cfg.MaxResetAttempts = 5*time.Second, 1
	c, err := s.OrderedConsumer(ctx, cfg)
	if err != nil {
		return 0, err
	}
	it, err := c.Messages()
	if err != nil {
		return 0, err
	}
	defer it.Stop()
	for {
		m, err := it.Next(jetstream.NextContext(ctx))
		if err != nil {
			return 0, err
		}
		meta, err := m.Metadata()
		if err != nil {
			return 0, err
		}
		if is(m, meta.Sequence.Stream) {
			found = meta.Sequence.Stream
		}
		if meta.Sequence.Stream >= last || meta.NumPending == 0 {
			return found, nil
		}
	}
}

// headOfBucket is nil where there is no such bucket yet. What the trail has not read is
// looked through: beats are left out, and their number in a bucket is bounded.
func headOfBucket(ctx context.Context, js jetstream.JetStream, name string, upto audit.Place) (_ *head, err error) {
	asked := ctx
	s, err := js.Stream(ctx, name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, nil //nolint:nilnil // nothing to wait for
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	info := s.CachedInfo()
	h := &head{js: js, stream: name, made: info.Created}
	from := upto.Sequence + 1
	if !upto.Made.Equal(h.made) || upto.Sequence > info.State.LastSeq {
		from = 1
	}
	if from > info.State.LastSeq || info.State.Msgs == 0 {
		return h, nil
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	defer func() {
		if err != nil && ctx.Err() != nil && asked.Err() == nil { // too much is unread to look through
			err = &audit.Behind{Source: name, Upto: upto.Sequence, Head: info.State.LastSeq}
		}
	}()
	// The newest may have ended by their own time, and nothing would come.
	switch _, err := s.GetMsg(ctx, from, jetstream.WithGetMsgSubject("$KV.>")); {
	case errors.Is(err, jetstream.ErrMsgNotFound):
		return h, nil
	case err != nil:
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	h.seq, err = lastOf(ctx, s, jetstream.OrderedConsumerConfig{HeadersOnly: true}, from, info.State.LastSeq,
		func(m jetstream.Msg, _ uint64) bool { return taken(m.Subject()) })
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return h, nil
}

// taken reports whether the audit takes what stands under a subject of a bucket.
func taken(subject string) bool {
	_, key, ok := strings.Cut(strings.TrimPrefix(subject, "$KV."), ".")
	return ok && !strings.HasPrefix(key, kv.BeatPrefix)
}

// lacks returns the first source that the trail has not read to its head; nil: none.
func (r *Reader) lacks(ctx context.Context, heads []head, upto map[string]audit.Place) (*audit.Behind, error) {
	for _, h := range heads {
		if h.seq == 0 {
			continue
		}
		at := upto[h.stream]
		reached := at.Made.Equal(h.made) && at.Sequence >= h.seq
		if reached {
			var err error
			if reached, err = h.stands(ctx, at); err != nil {
				return nil, err
			}
		}
		if !reached {
			return &audit.Behind{Source: h.stream, Upto: at.Sequence, Head: h.seq}, nil
		}
	}
	return nil, nil //nolint:nilnil // nothing lacks
}

// stands reports whether a source has at a place what the trail has read there. One that
// went back, and has grown again, is read anew by the follower.
func (h head) stands(ctx context.Context, at audit.Place) (bool, error) {
	s, err := h.js.Stream(ctx, h.stream)
	if err != nil {
		return false, fmt.Errorf("%s: %w", h.stream, err)
	}
	if s.CachedInfo().State.LastSeq < at.Sequence {
		return false, nil
	}
	m, err := s.GetMsg(ctx, at.Sequence)
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound): // it has ended, or a newer revision has replaced it
		return true, nil
	case err != nil:
		return false, fmt.Errorf("%s: %w", h.stream, err)
	}
	return at.Stored.IsZero() || at.Stored.Equal(m.Time), nil
}
