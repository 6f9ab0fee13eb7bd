package chaos

import (
	"context"
	crand "crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/quash-project/quash/shared/client"
	"github.com/quash-project/quash/shared/client/api"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/problem"
)

// mint makes a token that everybody looks at from then on.
func (r *round) mint(ctx context.Context, c *client.Client, owner string) (*Token, error) {
	t, err := r.make(ctx, c, owner)
	if err == nil {
		r.add(t)
	}
	return t, err
}

func (r *round) add(t *Token) {
	r.w.rec.with(func(h *History) {
		t.ID = len(h.Tokens) + 1
		h.Tokens = append(h.Tokens, t)
	})
}

// make makes an API key and exchanges it.
func (r *round) make(ctx context.Context, c *client.Client, owner string) (*Token, error) {
	rec := r.w.rec
	t := &Token{Owner: owner, Principal: "principal:" + owner, KeyAsked: rec.Now()}
	made, err := c.CreateKey(ctx, api.CreateKeyJSONRequestBody{Owner: owner, Scopes: []string{"orders:read"}, Reason: "chaos"})
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	key := made.Value
	t.KeyMade, t.Key = rec.Now(), "key:"+key.ID
	raw, err := c.Exchange(ctx, key.Secret, url.Values{})
	if err != nil {
		return nil, fmt.Errorf("exchange: %w", err)
	}
	t.Made = rec.Now()
	var answer struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.Unmarshal(raw, &answer); err != nil {
		return nil, err
	}
	t.Text = answer.AccessToken
	return t, t.read()
}

// read takes what is needed from the token's text.
func (t *Token) read() error {
	parts := strings.Split(t.Text, ".")
	if len(parts) != 3 {
		return errors.New("the token is no JWT")
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return err
	}
	var claims struct {
		ID    string       `json:"jti"`
		Stamp revoke.Stamp `json:"rseq"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		return err
	}
	t.Stamp, t.ItsToken, t.Targets = claims.Stamp, "token:"+claims.ID, map[string]revoke.Key{}
	for _, name := range t.targets() {
		target, err := revoke.ParseTarget("default", "", name)
		if err != nil {
			return err
		}
		t.Targets[name] = target.Key()
	}
	return nil
}

func (r *round) toldOf(x *Change, e api.Entry) Told {
	t := Told{At: r.w.rec.Now(), Fenced: map[Who]time.Duration{}, Complete: e.Complete}
	for _, c := range e.Confirmed {
		t.Confirmed = append(t.Confirmed, Who{Name: c.Name, Instance: c.Instance})
	}
	wrong := false
	r.w.rec.with(func(h *History) { wrong = h.WrongClock || x.wrongClock })
	if wrong {
		return t
	}
	for _, u := range e.Unconfirmed {
		if !u.FencedBy.IsZero() {
			t.Fenced[Who{Name: u.Name, Instance: u.Instance}] = r.w.rec.Wall(u.FencedBy)
		}
	}
	if e.Redis != nil {
		t.Redis = r.w.rec.Wall(e.Redis.FencedBy)
	}
	return t
}

// newChange records one that is about to be asked for.
func (r *round) newChange(op, target string) *Change {
	x := &Change{Op: op, Target: target, Asked: r.w.rec.Now()}
	r.w.rec.with(func(h *History) {
		r.run.changes++
		x.ID = r.run.changes
		h.Changes = append(h.Changes, x)
	})
	return x
}

// change asks for one change, and for some of them twice.
func (r *round) change(ctx context.Context, rng *rand.Rand, op, target string) {
	x := r.newChange(op, target)
	switch {
	case op == opHold && !r.goesBack && !r.clockIsOff && rng.Float64() < 0.3:
		r.holdFor(x, time.Duration(200+rng.IntN(1800))*time.Millisecond)
	case op == opRevoke && rng.Float64() < 0.1:
		for range 100 + rng.IntN(500) {
			x.Beside = append(x.Beside, "token:"+strings.ToLower(crand.Text()))
		}
	}
	first := rng.IntN(2)
	var second sync.WaitGroup
	// In a log that goes back a key may be used for two entries, as documented.
	if !r.goesBack && rng.Float64() < 0.15 {
		second.Go(func() { r.send(ctx, x, 1-first) })
	}
	r.send(ctx, x, first)
	second.Wait()
	for try := 0; try < 3 && !r.goesBack && rng.Float64() < 0.6; try++ {
		r.send(ctx, x, rng.IntN(2))
	}
}

// holdFor has a hold end by itself: then the service releases it, at a moment that nobody
// here is told, and not before.
func (r *round) holdFor(x *Change, d time.Duration) {
	r.w.rec.with(func(h *History) {
		x.For = d
		r.run.changes++
		h.Changes = append(h.Changes, &Change{ID: r.run.changes, Op: opRelease, Target: x.Target, Asked: x.Asked + d - tick, Outcome: Maybe, ends: x})
	})
	r.w.rec.Count(sawTimed, 1)
}

// burst revokes so much together that it is committed in batches, of tokens that
// nobody has.
func (r *round) burst(ctx context.Context) {
	var all sync.WaitGroup
	for range 40 {
		x := r.newChange(opRevoke, "token:"+strings.ToLower(crand.Text()))
		all.Go(func() { r.send(ctx, x, 0) })
	}
	all.Wait()
}

// send sends a change to the replicas, one of them first, and notes the outcome.
func (r *round) send(ctx context.Context, x *Change, by int) {
	body := api.CommitRevocationJSONRequestBody{Op: api.CommitOp(x.Op), Targets: append([]string{x.Target}, x.Beside...), Reason: reasonOf(x.ID)}
	if x.For > 0 {
		body.For = x.For.String()
	}
	answer, err := r.w.clients[by].CommitRevocation(ctx, nil, body, client.IdempotencyKey(fmt.Sprintf("c%x-%d", r.run.o.Seeds[0], x.ID)))
	e := answer.Value
	now := r.w.rec.Now()
	outcome := outcomeOf(err)
	r.w.rec.with(func(*History) {
		if err == nil {
			x.Answers = append(x.Answers, Answer{At: now, Entry: e.ID, Where: revoke.Stamp{Epoch: uint64(e.Epoch), Seq: uint64(e.Sequence)}})
		}
		x.sent(outcome, now)
	})
	if err == nil {
		told := r.toldOf(x, e)
		r.w.rec.with(func(*History) { x.Told = append(x.Told, told) })
	}
	if outcome == Maybe {
		r.w.rec.Count(sawLostAnswer, 1)
	}
}

// sent adds the outcome of one more try under the same key. Done stands for all;
// that nothing was done only if all say so, since one may still be on its way.
func (x *Change) sent(o Outcome, now time.Duration) {
	switch {
	case x.tries == 0 || o == Done:
		x.Outcome = o
	case x.Outcome == Done:
	case x.Outcome != o:
		x.Outcome = Maybe
	}
	x.tries++
	x.Answered = max(x.Answered, now)
}

// outcomeOf reads what an answer says of what was done.
func outcomeOf(err error) Outcome {
	var notSent *client.NotSent
	var refused *client.Refused
	switch {
	case err == nil:
		return Done
	case errors.As(err, &notSent):
		return Nothing
	case errors.As(err, &refused):
		switch refused.Doc.Type {
		case problem.TypeBase + problem.Conflict.Name():
			return Conflict
		case problem.TypeBase + problem.Unavailable.Name():
			return Nothing
		}
	}
	return Maybe
}

// follow asks how far a change has come.
func (r *round) follow(ctx context.Context, rng *rand.Rand) {
	var x *Change
	var id string
	r.w.rec.with(func(h *History) {
		if len(h.Changes) == 0 {
			return
		}
		x = h.Changes[max(0, len(h.Changes)-1-rng.IntN(6))]
		if len(x.Answers) > 0 {
			id = x.Answers[0].Entry
		}
	})
	if id == "" {
		return
	}
	if rng.IntN(2) == 0 {
		doc, err := r.receipt(ctx, rng.IntN(2), x, id, r.run.pace.wait.String())
		if err == nil && doc.Complete {
			r.w.rec.Count(sawComplete, 1)
		}
		return
	}
	answer, err := r.w.clients[rng.IntN(2)].GetRevocation(ctx, id, &api.GetRevocationParams{Wait: new(r.run.pace.wait.String())})
	if err != nil {
		return
	}
	told := r.toldOf(x, answer.Value)
	if told.Complete {
		r.w.rec.Count(sawComplete, 1)
	}
	r.w.rec.with(func(*History) { x.Told = append(x.Told, told) })
}
