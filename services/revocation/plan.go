package revocation

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"slices"
	"time"

	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/hits"
	"github.com/quash-project/quash/shared/problem"
)

// planLife is for how long what was shown can be held against what is committed.
const planLife = 15 * time.Minute

// planIDLen is how long the id of a plan is; see wire.NewID.
const planIDLen = 22

// Plan is what a preview has shown, for the commit that goes by it. It names no target and
// no record.
type Plan struct {
	Tenant  string      `json:"tenant"`
	Op      commit.Op   `json:"op"`
	ForMS   int64       `json:"for_ms,omitempty"`
	Then    string      `json:"then,omitempty"` // as thenOf says
	Targets string      `json:"targets"`        // digest of their sorted keys
	At      int64       `json:"at"`             // Unix milliseconds
	Hits    hits.Answer `json:"hits"`
}

// Plans keeps plans for all replicas, for planLife at least. Errors are problem.Errors.
type Plans interface {
	Keep(ctx context.Context, id string, p Plan) error
	// Plan returns one of a tenant; problem.NotFound if there is no such.
	Plan(ctx context.Context, tenant, id string) (Plan, error)
}

func planOf(req commit.Request, a hits.Answer, now time.Time) Plan {
	a.ByClient, a.Unknown = nil, nil // for people
	return Plan{Tenant: req.Tenant, Op: req.Op, ForMS: req.ForMS, Then: thenOf(req), Targets: digestOf(req), At: now.UnixMilli(), Hits: a}
}

// thenOf is what comes at the end of a hold that has one.
func thenOf(req commit.Request) string {
	if req.ForMS == 0 {
		return ""
	}
	return cmp.Or(req.Then, wire.ThenRelease)
}

// digestOf is the same for the same targets in any order.
func digestOf(req commit.Request) string {
	keys := make([]revoke.Key, 0, len(req.Targets))
	for _, t := range req.Targets {
		keys = append(keys, keyOf(req.Tenant, t))
	}
	slices.SortFunc(keys, func(a, b revoke.Key) int { return bytes.Compare(a[:], b[:]) })
	h := sha256.New()
	for _, k := range slices.Compact(keys) {
		h.Write(k[:])
	}
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

// keep stores a plan under a random id: who has not been given it can't guess it.
func (s *Service) keep(ctx context.Context, p Plan) (string, error) {
	id, err := wire.NewID(s.Rand)
	if err != nil {
		return "", err
	}
	return id, s.Plans.Keep(ctx, id, p)
}

// asPlanned refuses a commit that is not the one that was shown, or hits more than that. A
// request that was committed before is answered as then, whatever has become of its plan.
func (s *Service) asPlanned(ctx context.Context, who Caller, id string, req commit.Request) error {
	if id == "" {
		return nil
	}
	err := s.matches(ctx, id, req)
	if err == nil {
		return nil
	}
	if ready := s.Ledger.Ready(); ready != nil {
		return ready
	}
	if before, asked := s.Ledger.Asked(ctx, req.Tenant, who.service(), req.Key); asked == nil && before {
		return nil
	}
	return err
}

func (s *Service) matches(ctx context.Context, id string, req commit.Request) error {
	const again = "; ask for a preview again, and commit by its plan"
	refuse := func(format string, args ...any) error {
		e := problem.New(problem.Conflict, format+again, args...)
		e.Field = "plan"
		return e
	}
	if len(id) != planIDLen || !base64url(id) {
		return problem.FieldError("plan", "want the plan of a preview, which has %d characters of base64url", planIDLen)
	}
	p, err := s.Plans.Plan(ctx, req.Tenant, id)
	switch age := s.Now().Sub(time.UnixMilli(p.At)); {
	case err != nil && problem.KindOf(err) == problem.NotFound:
		return refuse("there is no such plan, or it is long over")
	case err != nil:
		return err
	case age > planLife:
		return refuse("the plan has expired: it was made %s ago, and is good for %s", age.Round(time.Second), planLife)
	case p.Op != req.Op:
		return refuse("the plan is that of a %s, not of a %s", p.Op, req.Op)
	case p.ForMS != req.ForMS || p.Then != thenOf(req):
		return refuse("the plan is that of a hold %s, not of one %s", ending(p.ForMS, p.Then), ending(req.ForMS, thenOf(req)))
	case p.Targets != digestOf(req):
		return refuse("the plan is that of other targets")
	}
	now, err := s.hits(ctx, req)
	if err != nil {
		return err
	}
	if now.Boxes.Grown(&p.Hits.Boxes) {
		return refuse("what it would hit has grown since it was shown: %s then, %s now", counted(p.Hits), counted(now))
	}
	if now.LastAdmin && !p.Hits.LastAdmin {
		return refuse("it would cut off the last admin of the tenant, as was not so when it was shown")
	}
	return nil
}

// ending says how a hold ends.
func ending(forMS int64, then string) string {
	if forMS == 0 {
		return "until released"
	}
	return fmt.Sprintf("for %s, then %s", time.Duration(forMS)*time.Millisecond, then)
}

// counted says how much is hit.
func counted(a hits.Answer) string {
	return fmt.Sprintf("%d API keys, %d client secrets, %d clients, %d bindings, and %d keys that lose a role", a.Keys, a.Secrets, a.Clients, a.Bindings, a.Narrowed)
}
