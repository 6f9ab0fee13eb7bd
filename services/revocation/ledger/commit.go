package ledger

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/problem"
	"github.com/quash-project/quash/shared/tracing"
)

// commitPatience bounds a commit, however long its request may wait for other
// things: a leader is replaced in 4 to 8 s, and who commits has to be told soon
// that the log can't.
const commitPatience = 10 * time.Second

// For returns a Committer that commits as the given service or caller, which is
// part of the hash under which an idempotency key is known.
func (l *Ledger) For(service string) commit.Committer { return committer{l, service} }

type committer struct {
	l       *Ledger
	service string
}

func (c committer) Commit(ctx context.Context, r commit.Request) (commit.Answer, error) {
	return c.l.Commit(ctx, r, c.service)
}

// Commit puts one entry into the log and answers after the broker has stored
// and acknowledged it; see commit.Committer for what its errors mean. The same
// key of the same service and tenant gives the first one's answer, and
// problem.Conflict if something else was asked.
//
// A release names the newest hold that was committed before it was asked for, by
// whichever replica. Targets that are not held are left out; when none is, that is
// problem.Conflict, since an entry that does nothing would look like one that does.
func (l *Ledger) Commit(ctx context.Context, r commit.Request, service string) (a commit.Answer, err error) {
	p, err := planOf(r, service)
	if err != nil {
		return commit.Answer{}, err
	}
	ctx, span := tracing.Start(ctx, "commit", trace.SpanKindInternal, attribute.String("quash.op", string(r.Op)), attribute.Int("quash.targets", len(r.Targets)))
	defer func() { endCommit(span, a, err) }()
	return l.commitPlan(ctx, r, p)
}

// commitPlan commits what is known to be in order.
func (l *Ledger) commitPlan(ctx context.Context, r commit.Request, p plan) (commit.Answer, error) {
	if err := l.Ready(); err != nil {
		return commit.Answer{}, err
	}
	if a, ok, err := l.known.answer(&p, l.Epoch(), l.cfg.Now().Unix()); ok {
		return a, err
	}
	ctx, cancel := context.WithTimeout(ctx, commitPatience)
	defer cancel()
	id, err := wire.NewID(l.cfg.Rand)
	if err != nil {
		return commit.Answer{}, err
	}
	now := l.cfg.Now()
	m := p.message(id, now, l.cfg.Foreign)
	if r.Op == commit.Release {
		if done, answer, err := l.resolve(ctx, &p, &m); done || err != nil {
			return answer, err
		}
	}
	body, err := p.event(m, now)
	if err != nil {
		return commit.Answer{}, err
	}
	if limit := l.broker.MaxPayload(); limit > 0 && int64(len(body)) > limit-wire.MaxHeader {
		return commit.Answer{}, problem.New(problem.TooLarge, "the request has %d bytes as an entry, more than the log takes: send fewer targets at once", len(body))
	}
	var none uint64
	return l.commitEntry(ctx, &p, outgoing{
		subject: wire.LogEntry + p.id, message: m, body: body, ttl: ttlOf(m.Until, now), expect: &none,
	})
}

// commitEntry publishes until the outcome is known. The subject takes one
// message only, so that trying again is also how a lost answer is read back.
func (l *Ledger) commitEntry(ctx context.Context, p *plan, o outgoing) (commit.Answer, error) {
	maybe := false // one try may have been stored
	var last error
	for try := 0; ; try++ {
		if try > 0 && !pause(ctx, min(time.Duration(try)*20*time.Millisecond, 500*time.Millisecond)) {
			return commit.Answer{}, outcome(maybe, last, p.req.Key)
		}
		pos, err := l.publish(ctx, o)
		var exists errExists
		switch {
		case err == nil:
			l.ticks.soon()
			a := commit.Answer{ID: p.id, Epoch: pos.Epoch, Sequence: pos.Seq, CommittedAt: o.message.At, Incident: p.req.Incident}
			l.known.keep(p.id, knownEntry{p.digest, a, o.message.Until})
			return a, nil
		case errors.As(err, &exists):
			answer, err := l.repeated(ctx, p, exists.seq, o.message.ID)
			if err == nil || problem.KindOf(err) == problem.Conflict {
				return answer, err
			}
			maybe, last = true, err
		case errors.Is(err, errRefused):
			return commit.Answer{}, problem.Wrap(problem.Invalid, err, "the log does not take this request")
		case errors.Is(err, errNotStored):
			last = err
		default:
			maybe, last = true, err
		}
	}
}

func outcome(maybe bool, cause error, key string) error {
	if !maybe {
		return problem.Wrap(problem.Unavailable, cause, "the log can't commit now; nothing was done, try again")
	}
	e := problem.Wrap(problem.UnknownOutcome, cause, "it may or may not be committed; repeat the request with the same idempotency key")
	e.Key = key
	return e
}

// repeated answers a request whose subject has a message at seq already.
func (l *Ledger) repeated(ctx context.Context, p *plan, seq uint64, own string) (commit.Answer, error) {
	first, err := l.getBySeq(ctx, seq)
	if err != nil {
		return commit.Answer{}, err // gone meanwhile, or not readable now: the caller tries again
	}
	return l.answerOf(p, first, own)
}

func (l *Ledger) answerOf(p *plan, first raw, own string) (commit.Answer, error) {
	e, err := readEvent(first.data)
	if err != nil || first.err != nil {
		return commit.Answer{}, problem.Wrap(problem.Conflict, errors.Join(err, first.err), "the idempotency key was used for something that this version can't read")
	}
	if e.Data.Digest != p.digest {
		return commit.Answer{}, problem.New(problem.Conflict, "the idempotency key was used for another request; use a new one")
	}
	at, err := l.place(first)
	if err != nil {
		return commit.Answer{}, err
	}
	l.sawAck(at, first.stored.Message)
	return commit.Answer{
		ID: p.id, Epoch: at.Epoch, Sequence: at.Seq, CommittedAt: first.stored.Message.At, Repeated: first.stored.Message.ID != own,
		Incident: e.Data.Incident,
	}, nil
}

// place returns the position of a message that was read by itself. An answer that
// comes after a new epoch may be of the log that was before: its sequence has been
// given out again. The other way round the log may have gone back, and this service
// has not heard of the new epoch yet.
func (l *Ledger) place(r raw) (wire.Position, error) {
	s := r.stored
	l.mu.Lock()
	epoch, begins := l.epoch, l.epochSeq
	var it item
	known, has := l.ring.find(s.Sequence)
	if has {
		it = *known
	}
	l.mu.Unlock()
	if has && it.id != s.Message.ID {
		l.wentBack(fmt.Sprintf("another message than was read there stands at %d", s.Sequence))
	}
	switch {
	case r.asked != epoch || l.doubts(epoch):
		return wire.Position{}, problem.New(problem.Unavailable, "a new epoch of the log began, or has to, while message %d was read; try again", r.seq)
	case has:
		return it.position(), nil
	case s.Sequence > begins:
		return placed(s, epoch).Position(), nil
	}
	return s.Position(), nil
}

func readEvent(body []byte) (Event, error) {
	var e Event
	if err := json.Unmarshal(body, &e); err != nil {
		return e, fmt.Errorf("body of an entry: %w", err)
	}
	return e, nil
}

// resolve puts the positions of the newest holds into a release: of all that were
// answered before it was asked for. Another replica may have committed one that
// this view lacks while it knows an older one, which alone would then be released.
// When nothing is held it may be the repetition of a release, whose answer is then
// returned.
func (l *Ledger) resolve(ctx context.Context, p *plan, m *wire.Message) (done bool, a commit.Answer, err error) {
	if err := l.Fresh(ctx); err != nil {
		return true, a, err
	}
	newest, none := latest, error(errNotHeld)
	switch {
	case p.req.Of != "":
		newest, err = l.hold(ctx, p)
		none = errHeldNow
	case p.req.Own:
		newest, none, err = l.ownHold(ctx, p)
	}
	if err != nil {
		return true, a, err
	}
	if m.Release = l.heldOf(p.keys, newest); len(m.Release) > 0 {
		return false, a, nil
	}
	first, err := l.getLast(ctx, wire.LogEntry+p.id)
	switch {
	case err == nil:
		a, err = l.answerOf(p, first, "")
		return true, a, err
	case !errors.Is(err, ErrNoMessage):
		return true, a, problem.Wrap(problem.Unavailable, err, "the log can't be read now; nothing was done, try again")
	}
	return true, a, none
}

// latest is at or after every hold.
var latest = revoke.Stamp{Epoch: math.MaxUint64, Seq: math.MaxUint64}

// hold returns where the hold stands that a release is of.
func (l *Ledger) hold(ctx context.Context, p *plan) (revoke.Stamp, error) {
	missing := problem.FieldError("of", "%.60q is no hold of this tenant, or it has ended with all that it could hit", p.req.Of)
	if b, err := base64.RawURLEncoding.Strict().DecodeString(p.req.Of); err != nil || len(b) != sha256.Size {
		return revoke.Stamp{}, missing
	}
	e, s, err := l.Find(ctx, p.req.Of)
	switch {
	case errors.Is(err, ErrNoMessage):
		return revoke.Stamp{}, missing
	case err != nil:
		return revoke.Stamp{}, problem.Wrap(problem.Unavailable, err, "the log can't be read now; nothing was done, try again")
	case e.Data.Tenant != p.req.Tenant || e.Data.Op != string(commit.Hold):
		return revoke.Stamp{}, missing
	}
	return s.Position().Stamp, nil
}

// heldOf returns which of the keys are held, by no hold after newest, with the position
// that a release has to name.
func (l *Ledger) heldOf(keys []revoke.Key, newest revoke.Stamp) map[revoke.Key]revoke.Stamp {
	epochs := l.view.Epochs()
	out := map[revoke.Key]revoke.Stamp{}
	for _, k := range keys {
		if s := l.view.State(k); epochs.Clamp(s.Released).Less(s.Held) && !newest.Less(s.Held) {
			out[k] = l.released(s.Held)
		}
	}
	return out
}

// released returns what a release names to end a hold. One from a lost part of
// an older history can't be named by its own position, since that counts as the
// last shared one; the beginning of the current history is after it, and before
// every hold that is made in it.
func (l *Ledger) released(held revoke.Stamp) revoke.Stamp {
	if l.view.Epochs().Clamp(held) == held {
		return held
	}
	return l.epochAt()
}

// pause waits and reports whether ctx still allows to go on.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
