// Package httpapi is the revocation service's HTTP API: revocations, the fleet,
// decisions, and the live feed.
package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/quash-project/quash/services/revocation"
	"github.com/quash-project/quash/services/revocation/fleet"
	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/guard/revoke"
	frame "github.com/quash-project/quash/shared/httpapi"
	"github.com/quash-project/quash/shared/problem"
	"github.com/quash-project/quash/shared/rights"
)

// Redis is what is known of the Redis view; nil where there is none.
type Redis func() RedisStatus

// Register adds the operations to an API.
func Register(a *frame.API, s *revocation.Service, feed *revocation.Feed, redis Redis) {
	h := &handlers{s: s, feed: feed, redis: redis}
	h.revocations(a)
	h.fleet(a)
	h.epochs(a)
	h.decisions(a)
	h.watching(a)
}

type handlers struct {
	s     *revocation.Service
	feed  *revocation.Feed
	redis Redis
}

func caller(ctx context.Context) revocation.Caller {
	c := frame.CallerOf(ctx)
	return revocation.Caller{Actor: c.Actor(), ID: c.Subject + "\x1f" + c.Client, Tenant: c.Tenant}
}

// Confirmed is a guard that has applied the entry.
type Confirmed struct {
	Name     string     `json:"name"`
	Instance string     `json:"instance"`
	At       frame.Time `json:"at" doc:"when the service heard so"`
}

// Unconfirmed is a guard that is not known to have applied it.
type Unconfirmed struct {
	Name     string      `json:"name"`
	Instance string      `json:"instance"`
	FencedBy *frame.Time `json:"fenced_by,omitempty" doc:"from when it refuses by itself, by the clock of the service that answers"`
	Open     bool        `json:"open,omitempty" doc:"it allows past its limit: nothing bounds it"`
}

// RedisView is the Redis view, which counts as one reader.
type RedisView struct {
	AppliedAt *frame.Time `json:"applied_at,omitempty" doc:"missing until it has applied the entry"`
	FencedBy  frame.Time  `json:"fenced_by" doc:"from when no reader takes an older view for complete"`
}

// Entry is a committed entry and how far it has come.
type Entry struct {
	ID          string        `json:"id"`
	Epoch       uint64        `json:"epoch"`
	Sequence    uint64        `json:"sequence"`
	CommittedAt frame.Time    `json:"committed_at"`
	Op          string        `json:"op" enum:"revoke,hold,release"`
	Issuer      string        `json:"issuer,omitempty" doc:"of the targets, if it is not your tenant's own"`
	Targets     []string      `json:"targets"`
	Reason      string        `json:"reason"`
	Actor       string        `json:"actor"`
	Confirmed   []Confirmed   `json:"confirmed"`
	Unconfirmed []Unconfirmed `json:"unconfirmed"`
	Redis       *RedisView    `json:"redis" doc:"null where there is no Redis view"`
	Complete    bool          `json:"complete" doc:"every guard is confirmed, out or past its fencing moment, none is open, and the Redis view has applied it"`
}

// TransformSchema is for huma.
func (Entry) TransformSchema(_ huma.Registry, s *huma.Schema) *huma.Schema {
	return frame.OrNull(s, "redis")
}

// EntryOf writes an entry as the API does.
func EntryOf(e revocation.Entry) Entry {
	out := Entry{
		ID: e.ID, Epoch: e.At.Epoch, Sequence: e.At.Seq, CommittedAt: frame.Time(e.CommittedAt), Op: e.Op,
		Issuer: e.Issuer, Targets: e.Targets, Reason: e.Reason, Actor: e.Actor, Complete: e.Complete,
		Confirmed: make([]Confirmed, 0, len(e.Confirmed)), Unconfirmed: make([]Unconfirmed, 0, len(e.Unconfirmed)),
	}
	for _, c := range e.Confirmed {
		out.Confirmed = append(out.Confirmed, Confirmed{Name: c.Name, Instance: c.Instance, At: frame.Time(c.At)})
	}
	for _, u := range e.Unconfirmed {
		out.Unconfirmed = append(out.Unconfirmed, Unconfirmed{Name: u.Name, Instance: u.Instance, FencedBy: instant(u.FencedBy), Open: u.Open})
	}
	if r := e.Confirmation.Redis; r != nil {
		out.Redis = &RedisView{AppliedAt: instant(r.AppliedAt), FencedBy: frame.Time(r.FencedBy)}
	}
	return out
}

// instant is nil for no time.
func instant(t time.Time) *frame.Time {
	if t.IsZero() {
		return nil
	}
	out := frame.Time(t)
	return &out
}

type revokeInput struct {
	Key  string `header:"Idempotency-Key" maxLength:"512" doc:"the same key, the same revocation: repeat with it when the outcome is unknown"`
	Wait string `query:"wait" doc:"wait so long for confirmations, as in 5s; 1m at most"`
	Body Commit
}

// Commit is the body of a revocation.
type Commit struct {
	Op      string   `json:"op" enum:"revoke,hold,release"`
	Targets []string `json:"targets" minItems:"1" maxItems:"1000" doc:"kind:id; roles by their id"`
	Reason  string   `json:"reason" doc:"why, for the audit"`
	For     string   `json:"for,omitempty" doc:"of a hold: its end, as in 2h"`
	Then    string   `json:"then,omitempty" doc:"what comes at the end of a hold: release (default) or revoke"`
	Issuer  string   `json:"issuer,omitempty" doc:"short name; your tenant's own by default"`
	Tenant  string   `json:"tenant,omitempty" doc:"your own, by default"`
}

type entryOutput struct {
	Status int
	Body   Entry
}

type findInput struct {
	ID   string `path:"id" maxLength:"100"`
	Wait string `query:"wait" doc:"wait so long for confirmations, as in 5s; 1m at most"`
}

func (h *handlers) revocations(a *frame.API) {
	bulk := huma.Operation{
		OperationID: "commitRevocation", Method: http.MethodPost, Path: "/v1/revocations", Tags: []string{"revocations"},
		Summary: "Revoke, hold or release up to 1,000 targets; answered when it is durable", DefaultStatus: http.StatusCreated,
		MaxBodyBytes: frame.MaxBulkBody, Errors: []int{http.StatusConflict},
	}
	// 200: this request had been answered before.
	bulk = frame.Also(frame.Timeout(bulk, revocation.MaxWait+frame.Deadline), http.StatusOK)
	frame.Register(a, bulk, rights.Revoke, h.commit)
	find := huma.Operation{
		OperationID: "getRevocation", Method: http.MethodGet, Path: "/v1/revocations/{id}", Tags: []string{"revocations"},
		Summary: "How far a revocation has come", Errors: []int{http.StatusNotFound},
	}
	frame.Register(a, frame.Timeout(find, revocation.MaxWait+frame.Deadline), rights.Revoke+"|"+rights.AuditRead, h.find)
}

// Request is what a committer asks for; it is checked by what it becomes.
func (c Commit) Request(key string) (revocation.Request, error) {
	r := revocation.Request{
		Op: commit.Op(c.Op), Targets: c.Targets, Reason: c.Reason, Then: c.Then,
		Issuer: c.Issuer, Tenant: c.Tenant, Key: key,
	}
	if c.For != "" {
		d, err := time.ParseDuration(c.For)
		if err != nil || d <= 0 {
			return r, problem.FieldError("for", "want a positive duration as in 2h or 90m")
		}
		r.For = d
	}
	return r, nil
}

func wait(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 || d > revocation.MaxWait {
		return 0, problem.FieldError("wait", "want a duration up to %s, as in 5s", revocation.MaxWait)
	}
	return d, nil
}

func (h *handlers) commit(ctx context.Context, in *revokeInput) (*entryOutput, error) {
	d, err := wait(in.Wait)
	if err != nil {
		return nil, err
	}
	r, err := in.Body.Request(in.Key)
	if err != nil {
		return nil, err
	}
	e, err := h.s.Commit(ctx, caller(ctx), r, d)
	if err != nil {
		return nil, err
	}
	status := http.StatusCreated
	if e.Repeated {
		status = http.StatusOK
	}
	return &entryOutput{Status: status, Body: EntryOf(e)}, nil
}

func (h *handlers) find(ctx context.Context, in *findInput) (*entryOutput, error) {
	d, err := wait(in.Wait)
	if err != nil {
		return nil, err
	}
	e, err := h.s.Find(ctx, caller(ctx), in.ID, d)
	if err != nil {
		return nil, err
	}
	return &entryOutput{Status: http.StatusOK, Body: EntryOf(e)}, nil
}

// Place is a position in the log.
type Place struct {
	Epoch    uint64 `json:"epoch"`
	Sequence uint64 `json:"sequence"`
}

func place(s revoke.Stamp) Place { return Place{Epoch: s.Epoch, Sequence: s.Seq} }

// Guard is one instance of the fleet.
type Guard struct {
	Name      string      `json:"name"`
	Instance  string      `json:"instance"`
	Limit     string      `json:"limit" doc:"the greatest staleness at which it accepts"`
	Past      string      `json:"past" enum:"deny,redis,allow" doc:"what it does past it"`
	State     string      `json:"state" enum:"joined,fenced,out" doc:"fenced: not heard of for longer than its limit"`
	Epoch     uint64      `json:"epoch"`
	Sequence  uint64      `json:"sequence" doc:"how far it is known to have applied the log"`
	Staleness string      `json:"staleness" doc:"how long ago it was last heard of"`
	JoinedAt  *frame.Time `json:"joined_at,omitempty"`
	LastSeen  *frame.Time `json:"last_seen,omitempty"`
	OutAt     *frame.Time `json:"out_at,omitempty"`
	OutBy     string      `json:"out_by,omitempty" enum:"self,operator,proof"`
}

// RedisStatus is the Redis view as a whole.
type RedisStatus struct {
	Complete bool        `json:"complete"`
	Writing  bool        `json:"writing" doc:"by the replica that answers"`
	Epoch    uint64      `json:"epoch"`
	Sequence uint64      `json:"sequence"`
	SeenAt   *frame.Time `json:"seen_at,omitempty"`
	Reason   string      `json:"reason,omitempty"`
}

// Fleet is everybody who decides.
type Fleet struct {
	frame.List[Guard]
	Redis *RedisStatus `json:"redis" doc:"null where there is no Redis view"`
	Head  Place        `json:"head" doc:"of the log, as this replica has applied it"`
}

// TransformSchema is for huma.
func (Fleet) TransformSchema(_ huma.Registry, s *huma.Schema) *huma.Schema {
	return frame.OrNull(s, "redis")
}

type fleetOutput struct{ Body Fleet }

type outInput struct {
	Instance string `path:"instance" maxLength:"64"`
	Body     struct {
		Reason string `json:"reason,omitempty" doc:"why, for the audit"`
	}
}

type outOutput struct {
	Body struct {
		Instance string `json:"instance"`
		Epoch    uint64 `json:"epoch"`
		Sequence uint64 `json:"sequence"`
	}
}

func (h *handlers) fleet(a *frame.API) {
	frame.Register(a, huma.Operation{
		OperationID: "listFleet", Method: http.MethodGet, Path: "/v1/fleet", Tags: []string{"fleet"},
		Summary: "All guards: where they are, and what bounds them",
	}, rights.FleetRead, func(context.Context, *struct{}) (*fleetOutput, error) {
		if err := h.s.Ledger.Ready(); err != nil {
			return nil, err
		}
		return &fleetOutput{h.list()}, nil
	})
	frame.Register(a, huma.Operation{
		OperationID: "declareOut", Method: http.MethodPost, Path: "/v1/fleet/{instance}/out", Tags: []string{"fleet"},
		Summary: "Declare a guard out: it accepts nothing until it joins again", Errors: []int{http.StatusNotFound},
	}, rights.FleetWrite, h.out)
}

func (h *handlers) list() Fleet {
	guards := h.s.Fleet.List()
	items := make([]Guard, 0, len(guards))
	for _, g := range guards {
		items = append(items, guardOf(g))
	}
	f := Fleet{List: frame.ListOf(items, ""), Head: place(h.s.Ledger.Head().Stamp)}
	if h.redis != nil {
		r := h.redis()
		f.Redis = &r
	}
	return f
}

func guardOf(g fleet.Guard) Guard {
	return Guard{
		Name: g.Name, Instance: g.Instance, Limit: g.Limit.String(), Past: g.Past, State: g.State,
		Epoch: g.At.Epoch, Sequence: g.At.Seq, Staleness: g.Silent.Round(time.Millisecond).String(),
		JoinedAt: instant(g.JoinedAt), LastSeen: instant(g.LastSeen), OutAt: instant(g.OutAt), OutBy: g.OutBy,
	}
}

func (h *handlers) out(ctx context.Context, in *outInput) (*outOutput, error) {
	why := in.Body.Reason
	if why == "" {
		why = "no reason given"
	}
	if err := revoke.CheckID("reason", why); err != nil {
		return nil, problem.FieldError("reason", "%v", err)
	}
	if err := problem.NoSecret("reason", why); err != nil {
		return nil, err
	}
	pos, err := h.s.Out(ctx, caller(ctx), in.Instance, why)
	if err != nil {
		return nil, err
	}
	out := &outOutput{}
	out.Body.Instance, out.Body.Epoch, out.Body.Sequence = in.Instance, pos.Epoch, pos.Seq
	return out, nil
}
