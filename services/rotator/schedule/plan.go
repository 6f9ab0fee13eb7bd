package schedule

import (
	"crypto/sha256"
	"encoding/binary"
	"time"

	"github.com/quash-project/quash/shared/problem"
)

// Subject is what a schedule rotates, as far as its age says when.
type Subject struct {
	ID      string
	Since   time.Time // it is in use since
	Expires time.Time
	Next    string // the id of what takes its place, where that is known
}

// Plan is a schedule that was understood: it says when it fires. It is a pure function of
// the record, so that every replica computes the same.
type Plan struct {
	id      string
	anchor  time.Time
	spec    Spec
	target  Target
	clock   *clock // nil: no cron expression says when
	windows windows
}

// NewPlan understands a schedule. The error names the member that is wrong.
func NewPlan(s *Schedule) (*Plan, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	target, err := ParseTarget(s.Rotate)
	if err != nil {
		return nil, err
	}
	loc, err := loadZone(s.TimeZone)
	if err != nil {
		return nil, problem.FieldError("time_zone", "%v", err)
	}
	p := &Plan{id: s.ID, anchor: time.UnixMilli(s.CreatedAt), spec: s.Spec, target: target}
	if s.Cron != "" {
		if p.clock, err = parseClock(s.Cron, loc); err != nil {
			return nil, problem.FieldError("cron", "%v", err)
		}
	}
	var field string
	if p.windows, field, err = parseWindows(s.Windows, s.Freezes, loc); err != nil {
		return nil, problem.FieldError(field, "%v", err)
	}
	return p, nil
}

// Next returns the first firing after a moment. Call it with the At of the one before, not
// with its Due: what a window has moved to its begin is one firing.
//
// sub is looked at where its age says when; fired is what has fired last: the same subject
// fires once.
func (p *Plan) Next(after time.Time, sub Subject, fired *Fired) (Firing, bool) {
	if p.spec.aged() {
		return p.nextByAge(after, sub, fired)
	}
	due, ok := p.due(after)
	if !ok {
		return Firing{}, false
	}
	return p.move(due)
}

// coming is Next by the moments at which firings are, not by those at which they are due: one
// that jitter or windows put off has not been missed.
func (p *Plan) coming(now time.Time, sub Subject, fired *Fired) (Firing, bool) {
	if p.spec.aged() {
		return p.Next(now, sub, fired)
	}
	after := now.Add(-time.Duration(p.spec.Jitter))
	for {
		f, ok := p.Next(after, sub, fired)
		if !ok || f.At > now.UnixMilli() {
			return f, ok
		}
		after = f.due()
	}
}

// due returns the first time after a moment that the schedule names.
func (p *Plan) due(after time.Time) (time.Time, bool) {
	if p.clock != nil {
		t, ok := p.clock.next(after)
		return t.at, ok
	}
	every := time.Duration(p.spec.Every)
	if after.Before(p.anchor) {
		return p.anchor.Add(every), true
	}
	n := after.Sub(p.anchor)/every + 1
	return p.anchor.Add(n * every), true
}

// move returns when what is due fires. Jitter never reaches the next that is due.
func (p *Plan) move(due time.Time) (Firing, bool) {
	t := due
	if jitter := time.Duration(p.spec.Jitter); jitter > 0 {
		if next, ok := p.due(due); ok {
			jitter = min(jitter, next.Sub(due))
		}
		t = t.Add(p.jitter(due.UnixMilli(), "", jitter))
	}
	if !p.windows.none() {
		var ok bool
		if t, ok = p.windows.first(t); !ok {
			return Firing{}, false
		}
	}
	return Firing{Due: due.UnixMilli(), At: ceilMillis(t)}, true
}

// ceilMillis: a window must not be entered before it begins.
func ceilMillis(t time.Time) int64 { return t.Add(time.Millisecond - 1).UnixMilli() }

// jitter is less than most, and the same wherever it is computed.
func (p *Plan) jitter(due int64, subject string, most time.Duration) time.Duration {
	if most < time.Millisecond {
		return 0
	}
	b := binary.BigEndian.AppendUint64([]byte("quash jitter\x00"+p.id+"\x00"+subject+"\x00"), uint64(due))
	sum := sha256.Sum256(b)
	n := binary.BigEndian.Uint64(sum[:8]) % uint64(most/time.Millisecond)
	return time.Duration(n) * time.Millisecond
}

// lookBack is how far before it is due a window is looked for in which something can be
// rotated that must not get older.
const lookBack = 32 * day

// retryFailed is how long what is too old, and could not be rotated, is left alone.
const retryFailed = time.Hour

// nextByAge returns when a subject becomes too old. Jitter and windows move that to before
// it is due, unless nothing is allowed there.
func (p *Plan) nextByAge(after time.Time, sub Subject, fired *Fired) (Firing, bool) {
	again := time.Time{}
	if fired != nil && fired.Subject == sub.ID {
		if again = time.UnixMilli(fired.ClaimedAt).Add(retryFailed); fired.Failed == "" {
			return Firing{}, false
		}
	}
	if sub.ID == "" {
		return Firing{}, false
	}
	due := sub.Since.Add(time.Duration(p.spec.MaxAge))
	if p.spec.BeforeExpiry != 0 {
		due = sub.Expires.Add(-time.Duration(p.spec.BeforeExpiry))
	}
	t := due.Add(-p.jitter(0, sub.ID, time.Duration(p.spec.Jitter)))
	// One that would be too old at once has its successor rotated at once, too, and so on.
	if young := sub.Since.Add(sub.Expires.Sub(sub.Since) / 2); p.spec.BeforeExpiry != 0 && t.Before(young) {
		t = young
	}
	if t.Before(sub.Since) {
		t = sub.Since
	}
	if !p.windows.none() && !p.windows.allows(t) {
		from := t.Add(-lookBack)
		if from.Before(sub.Since) {
			from = sub.Since
		}
		if begin, ok := p.windows.before(from, t); ok {
			t = begin
		}
	}
	if !t.After(after) { // it is too old already
		t = after.Add(time.Millisecond)
	}
	if t.Before(again) {
		t = again
	}
	t, ok := p.windows.first(t)
	return Firing{Due: due.UnixMilli(), At: ceilMillis(t), Subject: sub.ID}, ok
}

// Planned is a firing that is foreseen.
type Planned struct {
	Firing
	// Assumed: it depends on when those before it were done, or on how long a successor lives.
	Assumed bool
	// Why says why it fires at another time than the one that it is due at.
	Why []string
	// Local is At by the clock on the wall, and Does what the firing does.
	Local, Does string
}

// Foresee returns the next n firings after a moment that are not after another one, if that
// is not zero; the first of them as the record has it.
func (p *Plan) Foresee(after, until time.Time, n int, sub Subject, s *Schedule) (out []Planned) {
	fired := s.Last
	if c := s.Claimed; c != nil {
		fired = &Fired{Claim: *c}
	}
	for len(out) < n {
		f, ok := p.Next(after, sub, fired)
		if len(out) == 0 && s.Next != nil && !s.Paused && (s.Next.At > after.UnixMilli() || !p.spec.aged()) {
			f, ok = *s.Next, true
		}
		if !ok || !until.IsZero() && f.AtTime().After(until) {
			break
		}
		out = append(out, Planned{Firing: f, Assumed: p.spec.aged() && len(out) > 0, Why: p.why(f)})
		if at := f.AtTime(); at.After(after) || len(out) > 1 {
			after = at
		}
		if p.spec.aged() {
			life := sub.Expires.Sub(sub.Since)
			sub = Subject{ID: sub.ID + "+", Since: f.AtTime(), Expires: f.AtTime().Add(life)}
		}
	}
	return out
}

// why says what moved a firing.
func (p *Plan) why(f Firing) (out []string) {
	if p.clock != nil {
		if t, ok := p.clock.last(f.due()); ok && t.at.Equal(f.due()) {
			// More than one tick can be this moment; the first of them is before the leap.
			for prev := t; ; {
				wall := p.clock.spec.Prev(prev.wall)
				if wall.IsZero() || !moment(wall, p.clock.loc).Equal(f.due()) {
					t = prev
					break
				}
				prev.wall = wall
			}
			switch {
			case p.clock.leapt(t):
				out = append(out, "the clock leaps over "+t.wall.Format("15:04")+": it fires right after that")
			case p.clock.twice(t):
				out = append(out, "the clock shows "+t.wall.Format("15:04")+" twice: the first counts")
			}
		}
	}
	moved := f.AtTime().Sub(f.due())
	switch {
	case moved == 0:
	case !p.windows.none() && p.spec.Jitter == 0, moved < 0 && -moved > time.Duration(p.spec.Jitter), moved > time.Duration(p.spec.Jitter):
		out = append(out, "moved by "+moved.String()+" to where windows and freezes allow it")
	default:
		out = append(out, "jitter: "+moved.String())
	}
	return out
}
