package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/quash-project/quash/services/revocation/proof"
	"github.com/quash-project/quash/services/revocation/receipts"
	"github.com/quash-project/quash/shared/client/api"
	"github.com/quash-project/quash/shared/guard/revoke"
)

// Proved is what one receipt has told of a change.
type Proved struct {
	Asked, At time.Duration
	Confirmed []Who
	Complete  bool
}

// receipt asks for the receipt of a change, and takes its word for how far it has come.
func (r *round) receipt(ctx context.Context, by int, x *Change, id, wait string) (api.Receipt, error) {
	asked := r.w.rec.Now()
	answer, err := r.w.clients[by].GetReceipt(ctx, id, &api.GetReceiptParams{Wait: &wait})
	if err != nil {
		return api.Receipt{}, err
	}
	doc := answer.Value
	e := api.Entry{Complete: doc.Complete}
	p := Proved{Asked: asked, At: r.w.rec.Now(), Complete: doc.Complete}
	for _, c := range doc.Confirmed {
		e.Confirmed = append(e.Confirmed, api.Confirmed{Name: c.Name, Instance: c.Instance})
		p.Confirmed = append(p.Confirmed, Who{Name: c.Name, Instance: c.Instance})
	}
	for _, u := range doc.Unconfirmed {
		e.Unconfirmed = append(e.Unconfirmed, api.Unconfirmed{Name: u.Name, Instance: u.Instance, FencedBy: u.FencedBy})
	}
	told := r.toldOf(x, e)
	r.w.rec.with(func(*History) { x.Told, x.Proved = append(x.Told, told), append(x.Proved, p) })
	r.w.rec.Count(sawReceipt, 1)
	return doc, nil
}

// judged is how many changes of a round have their receipts verified when all is quiet.
const judged = 2

// proofs wants a receipt of what was committed, which says what was asked for and is signed
// by who is known; and a preview that shows what there is to hit.
func (r *round) proofs(ctx context.Context, rng *rand.Rand) ([]Violation, error) {
	keys, err := r.proofKeys(ctx)
	if err != nil {
		return nil, err
	}
	var committed []*Change
	r.w.rec.with(func(h *History) {
		for _, x := range h.Changes {
			if len(x.Answers) > 0 && h.Stored[x.ID] == 1 {
				committed = append(committed, x)
			}
		}
	})
	rng.Shuffle(len(committed), func(i, j int) { committed[i], committed[j] = committed[j], committed[i] })
	var found []Violation
	for _, x := range committed[:min(len(committed), judged)] {
		if err := r.proved(ctx, x, keys); err != nil {
			found = append(found, Violation{promiseReceipt, fmt.Sprintf("%s %s, acknowledged at %s: %v", x.Op, x.Target, x.Answers[0].Where, err)})
		}
	}
	for i := range r.owners[:1] {
		if err := r.shown(ctx, r.owners[i]); err != nil {
			found = append(found, Violation{promisePreview, err.Error()})
		}
	}
	return found, ctx.Err()
}

func (r *round) proofKeys(ctx context.Context) (set proof.KeySet, err error) {
	err = until(ctx, time.Now().Add(quietTime), func() error {
		answer, err := r.w.clients[0].GetReceiptKeys(ctx)
		if err != nil {
			return err
		}
		data, err := json.Marshal(answer.Value)
		if err != nil {
			return err
		}
		return json.Unmarshal(data, &set)
	})
	return set, err
}

func (r *round) proved(ctx context.Context, x *Change, keys proof.KeySet) error {
	a := x.Answers[len(x.Answers)-1]
	var doc api.Receipt
	err := until(ctx, time.Now().Add(quietTime), func() (err error) {
		doc, err = r.receipt(ctx, x.ID%2, x, a.Entry, "0s")
		return err
	})
	if err != nil {
		return fmt.Errorf("its receipt %s can't be had: %w", a.Entry, err)
	}
	s, _, err := receipts.Verify(doc.Jws, keys)
	if err != nil {
		return fmt.Errorf("its receipt %s: %w", a.Entry, err)
	}
	// Where the log went back it may have been committed again, elsewhere.
	at := revoke.Stamp{Epoch: s.Epoch, Seq: s.Sequence}
	if s.ID != a.Entry || s.Op != x.Op || !slices.Contains(s.Targets, x.Target) || s.Reason != reasonOf(x.ID) || at.Less(x.Answers[0].Where) {
		return fmt.Errorf("its receipt says %s %q at %s: %s", s.Op, s.Targets, at, s.Reason)
	}
	return nil
}

// shown compares a preview with the keys of an owner that live when all is quiet. Of
// keys of which the answer was lost nobody here knows, so that there may be more.
func (r *round) shown(ctx context.Context, owner string) error {
	living := map[string]bool{}
	r.w.rec.with(func(h *History) {
		for _, t := range h.Tokens {
			if t.Owner == owner && h.Fold[t.ID] == Allowed {
				living[t.Key] = true
			}
		}
	})
	return until(ctx, time.Now().Add(quietTime), func() error {
		answer, err := r.w.clients[0].PreviewRevocation(ctx, api.PreviewRevocationJSONRequestBody{Op: opRevoke, Targets: []string{"principal:" + owner}})
		if err != nil {
			return err
		}
		if got := answer.Value.APIKeys; got.Count < int64(len(living)) || !got.Exact || answer.Value.Plan == "" {
			return fmt.Errorf("the preview of principal:%s shows %d API keys (exact: %t), and %d live", owner, got.Count, got.Exact, len(living))
		}
		return nil
	})
}

// receipts checks that no receipt takes back what another has proved.
func (c *checker) receipts() {
	for _, x := range c.h.Changes {
		for _, p := range x.Proved {
			for _, later := range x.Proved {
				if later.Asked <= p.At {
					continue
				}
				if p.Complete && !later.Complete && c.back(x) == nil {
					c.broke(promiseProved, "%s %s: its receipt was complete at %s, and not at %s", x.Op, x.Target, at(p.At), at(later.At))
				}
				for _, who := range p.Confirmed {
					if !slices.Contains(later.Confirmed, who) && c.back(x) == nil {
						c.broke(promiseProved, "%s %s: its receipt named %s as confirmed at %s, and not at %s", x.Op, x.Target, who, at(p.At), at(later.At))
					}
				}
			}
		}
	}
}
