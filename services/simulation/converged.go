package simulation

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// fold is what the log itself says, read apart from the ledger.
func (b *broker) fold() (*revoke.View, uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.expire()
	v := revoke.NewView()
	here := b.each(func(s wire.Stored) {
		for k, st := range s.Message.States(s.Position().Stamp) {
			v.Merge(k, st)
		}
		if e, ok := s.Message.EpochState(); ok {
			v.MergeEpoch(e)
		}
	})
	return v, here
}

// each calls yield for every message, in its place, and returns the epoch. It is called with
// mu held.
func (b *broker) each(yield func(wire.Stored)) (here uint64) {
	for _, m := range b.messages {
		s := b.decode(m)
		if s.Message.Kind != wire.KindEpoch {
			s.Message.Epoch = max(s.Message.Epoch, here)
		}
		here = max(here, s.Message.Epoch)
		yield(s)
	}
	return here
}

// says is what each message says of a target by itself: a cut that ends soon beside another
// one that does not are not one that stays.
func (b *broker) says() map[revoke.Key][]revoke.State {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.expire()
	out := map[revoke.Key][]revoke.State{}
	b.each(func(s wire.Stored) {
		for k, st := range s.Message.States(s.Position().Stamp) {
			if r := s.Message.Recommitted; r != nil && r.Less(st.Released) {
				st.Released = *r // of a hold that is newer it does not speak
			}
			out[k] = append(out[k], st)
		}
	})
	return out
}

// feedText is what a message says.
type feedText struct {
	seq  uint64
	text string
}

// decode decodes a message once. It is called with mu held.
func (b *broker) decode(m stored) wire.Stored {
	name := feedText{m.seq, m.header.Get(wire.Header)}
	s, ok := b.decoded[name]
	if !ok {
		var err error
		if s, err = wire.FromHeader(feedHeader(m)); err != nil {
			panic(err)
		}
		if b.decoded == nil {
			b.decoded = map[feedText]wire.Stored{}
		}
		b.decoded[name] = s
	}
	return s
}

func (s *scenario) stateInLog(k revoke.Key) revoke.State {
	log, _ := s.w.b.fold()
	return log.State(k)
}

// means is what a state comes to, whatever it was made of.
type means struct {
	ended, held bool
	cut         revoke.Stamp
}

func meansOf(s revoke.State, es revoke.Epochs) means {
	return means{s.Ended, es.Clamp(s.Released).Less(s.Held), s.Cut}
}

// converged compares every view with the log's own fold.
func (s *scenario) converged() error {
	log, epoch := s.w.b.fold()
	compare := func(who string, of func(revoke.Key) revoke.State, es revoke.Epochs, exact bool) error {
		if es.Current().Number != epoch {
			return fmt.Errorf("%s is in epoch %d, the log in %d", who, es.Current().Number, epoch)
		}
		for _, f := range s.w.truth.facts {
			k, name := f[0].key, f[0].target
			want, got := meansOf(log.State(k), log.Epochs()), meansOf(of(k), es)
			if want != got && (exact || want.ended && !got.ended || want.held && !got.held || got.cut.Less(want.cut)) {
				return fmt.Errorf("%s has %+v of %s, the log %+v (states %+v and %+v; epochs %+v; %s)", who, got, name, want, of(k), log.State(k), es, factsOf(f))
			}
		}
		return nil
	}
	var errs []error
	for _, r := range s.w.replicas {
		if l, _, _, ok := r.parts(); ok {
			errs = append(errs, compare(r.name(), l.View().State, l.View().Epochs(), true))
		}
	}
	for _, m := range s.w.guards {
		v := m.current().View()
		errs = append(errs, compare(m.name, v.State, v.Epochs(), false)) // it may know what everybody else has lost
	}
	s.w.redis.mu.Lock()
	values := copyOf(s.w.redis.now.values)
	s.w.redis.mu.Unlock()
	meta, err := wire.ParseRedisMeta(values[wire.RedisMetaKey(0)].text)
	if err != nil {
		return err
	}
	errs = append(errs, compare("redis", func(k revoke.Key) revoke.State {
		st, _ := wire.ParseRedisState(values[wire.RedisTargetKey(0, k)].text)
		return st
	}, meta.Epochs, false)) // what it fell back to may be lost everywhere else
	return errors.Join(errs...)
}

// factsOf is what was done to a target, for people.
func factsOf(facts []*fact) string {
	var out []string
	for _, f := range facts {
		out = append(out, fmt.Sprintf("%s asked %s, answered %s as %s", f.op, clock(f.asked), clock(f.acked), f.at))
	}
	return strings.Join(out, "; ")
}

// longLife is less than what a responder's revocation counts for, and more than what an
// issuer's does that ends a record.
const longLife = 30 * 24 * time.Hour

// covers reports whether a state has a fact in it, for as long as the fact counts.
func covers(st revoke.State, f *fact) bool {
	switch {
	case f.op == commit.Release:
		return true
	case f.op == commit.Hold:
		return !st.Held.Less(f.at) || !st.Released.Less(f.at)
	case f.direct && st.Until < f.acked.Add(longLife).Unix():
		return false
	case f.target.Kind.Final():
		return st.Ended
	}
	return !st.Cut.Less(f.at)
}

// nothingLost wants every acknowledged fact in the log that anybody had held.
func (s *scenario) nothingLost() {
	log, _ := s.w.b.fold()
	for _, f := range s.w.truth.all {
		released := f.op == commit.Hold && s.w.truth.mayBeReleased(f, time.Now())
		if f.acked.IsZero() || f.excused || f.over || released {
			continue
		}
		st := log.State(f.key)
		holds := f.op != commit.Hold || log.Epochs().Clamp(st.Released).Less(st.Held)
		if !holds || !covers(st, f) {
			var has []string
			for _, r := range s.w.replicas {
				if l, _, _, ok := r.parts(); ok {
					has = append(has, fmt.Sprintf("%s %+v", r.name(), l.View().State(f.key)))
				}
			}
			s.w.truth.broke("%s of %s, acknowledged at %s as %s, is lost (lost before: %t, held by %v); the log has %+v, epochs %+v; %s", f.op, f.target, clock(f.acked), f.at, f.lost, f.holders, log.State(f.key), log.Epochs(), strings.Join(has, "; "))
		}
	}
}
