package chaos

import (
	"context"
	crand "crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/quash-project/quash/services/quash/api"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/problem"
)

// mint makes a token that everybody looks at from then on.
func (r *round) mint(ctx context.Context, c *api.Client, owner string) (*Token, error) {
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
func (r *round) make(ctx context.Context, c *api.Client, owner string) (*Token, error) {
	rec := r.w.rec
	t := &Token{Owner: owner, Principal: "principal:" + owner, KeyAsked: rec.Now()}
	var key struct{ ID, Secret string }
	body := map[string]any{"owner": owner, "scopes": []string{"orders:read"}, "reason": "chaos"}
	if err := c.Do(ctx, api.Call{Method: http.MethodPost, Path: "/v1/keys", Body: body}, &key); err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
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

// entry is what is needed of an answer.
type entry struct {
	ID              string
	Epoch, Sequence uint64
	Confirmed       []Who
	Unconfirmed     []struct {
		Who
		FencedBy *time.Time `json:"fenced_by"`
	}
	Redis *struct {
		FencedBy time.Time `json:"fenced_by"`
	}
	Complete bool
}

func (r *round) toldOf(x *Change, e entry) Told {
	t := Told{At: r.w.rec.Now(), Confirmed: e.Confirmed, Fenced: map[Who]time.Duration{}, Complete: e.Complete}
	wrong := false
	r.w.rec.with(func(h *History) { wrong = h.WrongClock || x.wrongClock })
	if wrong {
		return t
	}
	for _, u := range e.Unconfirmed {
		if u.FencedBy != nil {
			t.Fenced[u.Who] = r.w.rec.Wall(*u.FencedBy)
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
func (r *round) send(ctx context.Context, x *Change, client int) {
	body := map[string]any{"op": x.Op, "targets": []string{x.Target}, "reason": reasonOf(x.ID)}
	var e entry
	err := r.w.clients[client].Do(ctx, api.Call{
		Method: http.MethodPost, Path: "/v1/revocations", Body: body, Key: fmt.Sprintf("c%x-%d", r.run.o.Seeds[0], x.ID),
	}, &e)
	now := r.w.rec.Now()
	outcome := outcomeOf(err)
	r.w.rec.with(func(*History) {
		if err == nil {
			x.Answers = append(x.Answers, Answer{At: now, Entry: e.ID, Where: revoke.Stamp{Epoch: e.Epoch, Seq: e.Sequence}})
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
	var notSent *api.NotSent
	var refused *api.Refused
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
	var e entry
	call := api.Call{Method: http.MethodGet, Path: "/v1/revocations/" + id, Query: url.Values{"wait": {r.run.pace.wait.String()}}}
	if r.w.clients[rng.IntN(2)].Do(ctx, call, &e) != nil {
		return
	}
	told := r.toldOf(x, e)
	if told.Complete {
		r.w.rec.Count(sawComplete, 1)
	}
	r.w.rec.with(func(*History) { x.Told = append(x.Told, told) })
}
