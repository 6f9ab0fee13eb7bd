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
func Register(a *frame.API, pages frame.Pages, s *revocation.Service, feed *revocation.Feed, redis Redis) {
	h := &handlers{s: s, feed: feed, redis: redis, pages: pages}
	h.revocations(a)
	h.pending(a)
	h.previews(a)
	h.fleet(a)
	h.epochs(a)
	h.decisions(a)
	h.watching(a)
}

type handlers struct {
	s     *revocation.Service
	feed  *revocation.Feed
	redis Redis
	pages frame.Pages
}

func caller(ctx context.Context) revocation.Caller {
	c := frame.CallerOf(ctx)
	return revocation.Caller{Actor: c.Actor(), ID: c.Subject + "\x1f" + c.Client, Tenant: c.Tenant, Subject: c.Subject, Targets: c.Targets, Request: frame.RequestID(ctx)}
}

// Confirmed is a guard that has applied the entry.
type Confirmed struct {
	Name     string     `json:"name" doc:"of the resource server; empty for a tenant other than the installation's own"`
	Instance string     `json:"instance"`
	At       frame.Time `json:"at" doc:"when the service heard so"`
}

// Unconfirmed is a guard that is not known to have applied it.
type Unconfirmed struct {
	Name     string      `json:"name" doc:"of the resource server; empty for a tenant other than the installation's own"`
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
	Code        string        `json:"code,omitempty" doc:"the reason in a word"`
	Actor       string        `json:"actor"`
	Incident    string        `json:"incident,omitempty" doc:"under which it was done"`
	NotGathered string        `json:"not_gathered,omitempty" doc:"in the answer to what names an incident: why it is not known to be in its notebook. It is committed all the same"`
	ApprovedBy  string        `json:"approved_by,omitempty" doc:"the second person, where there was one"`
	BreakGlass  bool          `json:"break_glass,omitempty" doc:"no second person was waited for, or the break-glass identity did it"`
	Confirmed   []Confirmed   `json:"confirmed"`
	Unconfirmed []Unconfirmed `json:"unconfirmed"`
	Redis       *RedisView    `json:"redis" doc:"null where there is no Redis view"`
	Complete    bool          `json:"complete" doc:"every guard is confirmed, out or past its fencing moment, none is open, and the Redis view has applied it"`
}

// TransformSchema is for huma.
func (Entry) TransformSchema(r huma.Registry, s *huma.Schema) *huma.Schema {
	return frame.OrNull(r, s, "redis")
}

// EntryOf writes an entry as the API does.
func EntryOf(e revocation.Entry) Entry {
	out := Entry{
		ID: e.ID, Epoch: e.At.Epoch, Sequence: e.At.Seq, CommittedAt: frame.Time(e.CommittedAt), Op: e.Op,
		Issuer: e.Issuer, Targets: e.Targets, Reason: e.Reason, Code: e.Code, Actor: e.Actor, Complete: e.Complete, Incident: e.Incident, NotGathered: e.NotGathered,
		ApprovedBy: e.ApprovedBy, BreakGlass: e.BreakGlass,
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

// EntryFor writes an entry as the caller may see it. Guards serve all tenants, so that their
// names are nothing that one tenant should learn: they can tell of others.
func EntryFor(who frame.Caller, home string, e revocation.Entry) Entry {
	out := EntryOf(e)
	if who.Tenant == home {
		return out
	}
	for i := range out.Confirmed {
		out.Confirmed[i].Name = ""
	}
	for i := range out.Unconfirmed {
		out.Unconfirmed[i].Name = ""
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
	Key  string `header:"Idempotency-Key" maxLength:"512" doc:"the same key of the same caller, the same revocation, for as long as its entry lives in the log (an hour at least): repeat with it when the outcome is unknown. Another request under it is refused (409)"`
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
	Of      string   `json:"of,omitempty" maxLength:"100" doc:"of a release: the id of the hold that it ends, and newer holds of the targets stay; by default whatever holds them ends"`
	Issuer  string   `json:"issuer,omitempty" doc:"short name; your tenant's own by default"`
	Tenant  string   `json:"tenant,omitempty" doc:"your own, by default"`
	Code    string   `json:"code,omitempty" enum:"unspecified,keyCompromise,affiliationChanged,superseded,cessationOfOperation,privilegeWithdrawn,credential-compromise,account-disabled,account-purged,hijacking,session-revoked,credential-change,device-compliance-change,assurance-level-change,risk-level-change" doc:"why, in a word of RFC 5280, RISC or CAEP"`
	Plan    string   `json:"plan,omitempty" maxLength:"100" doc:"of a preview: refused (409) when this is not what was shown, or would hit more"`
	// Incident stands in the entry itself.
	Incident string `json:"incident,omitempty" maxLength:"100" doc:"under which it is done: an open one of your tenant. Where the notebooks can't be read it is committed all the same"`

	BreakGlass bool       `json:"break_glass,omitempty" doc:"of a revocation or hold: cut at once where a second person would have to agree. It is loud: in the receipt, the audit, the log and the metrics"`
	Whole      *WholePart `json:"whole,omitempty" doc:"of what this is a part, if it is more than one request"`
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
	frame.Register(a, answers(a, frame.Timeout(bulk, revocation.MaxWait+frame.Deadline)), rights.Revoke, h.commit)
	find := huma.Operation{
		OperationID: "getRevocation", Method: http.MethodGet, Path: "/v1/revocations/{id}", Tags: []string{"revocations"},
		Summary: "How far a revocation has come", Errors: []int{http.StatusNotFound},
	}
	frame.Register(a, frame.Timeout(find, revocation.MaxWait+frame.Deadline), rights.Revoke+"|"+rights.AuditRead, h.find)
}

// Request is what a committer asks for; it is checked by what it becomes.
func (c Commit) Request(key string) (revocation.Request, error) {
	r := revocation.Request{
		Op: commit.Op(c.Op), Targets: c.Targets, Reason: c.Reason, Code: c.Code, Then: c.Then, Plan: c.Plan, Incident: c.Incident,
		Issuer: c.Issuer, Tenant: c.Tenant, Key: key, BreakGlass: c.BreakGlass, Of: c.Of,
	}
	if c.Whole != nil {
		r.Whole = revocation.Whole{ID: c.Whole.ID, Targets: c.Whole.Targets}
		if err := revoke.CheckID("whole.id", c.Whole.ID); err != nil {
			return r, problem.FieldError("whole.id", "%v", err)
		}
		if err := problem.NoSecret("whole.id", c.Whole.ID); err != nil {
			return r, err
		}
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

func (h *handlers) commit(ctx context.Context, in *revokeInput) (*committed, error) {
	d, err := wait(in.Wait)
	if err != nil {
		return nil, err
	}
	r, err := in.Body.Request(in.Key)
	if err != nil {
		return nil, err
	}
	e, p, err := h.s.Ask(ctx, caller(ctx), r, d)
	if err != nil {
		return nil, err
	}
	if p != nil {
		return &committed{Status: http.StatusAccepted, Location: "/v1/pending/" + p.ID, Body: PutOff{PendingOf(p, h.s.Now())}}, nil
	}
	status := http.StatusCreated
	if e.Repeated {
		status = http.StatusOK
	}
	return &committed{Status: status, Body: EntryFor(frame.CallerOf(ctx), h.s.Home, e)}, nil
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
	return &entryOutput{Status: http.StatusOK, Body: EntryFor(frame.CallerOf(ctx), h.s.Home, e)}, nil
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
func (Fleet) TransformSchema(r huma.Registry, s *huma.Schema) *huma.Schema {
	return frame.OrNull(r, s, "redis")
}

type (
	fleetInput  struct{ frame.Page }
	fleetOutput struct{ Body Fleet }
)

type outInput struct {
	frame.Idempotent
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
	}, rights.FleetRead, func(ctx context.Context, in *fleetInput) (*fleetOutput, error) {
		if err := h.s.Ledger.Ready(); err != nil {
			return nil, err
		}
		f, err := h.list(ctx, in.Page)
		return &fleetOutput{f}, err
	})
	frame.Register(a, huma.Operation{
		OperationID: "declareOut", Method: http.MethodPost, Path: "/v1/fleet/{instance}/out", Tags: []string{"fleet"},
		Summary: "Declare a guard out: it accepts nothing until it joins again", Errors: []int{http.StatusNotFound},
	}, rights.FleetWrite, h.out)
}

func (h *handlers) list(ctx context.Context, p frame.Page) (Fleet, error) {
	byName := func(g *fleet.Guard) string { return g.Name + "/" + g.Instance }
	guards, next, err := frame.Paginate(h.pages, frame.QuestionOf(ctx, "fleet", nil), h.s.Fleet.List(), p, byName)
	if err != nil {
		return Fleet{}, err
	}
	items := make([]Guard, 0, len(guards))
	for _, g := range guards {
		items = append(items, guardOf(g))
	}
	f := Fleet{List: frame.ListOf(items, next), Head: place(h.s.Ledger.Head().Stamp)}
	if h.redis != nil {
		r := h.redis()
		f.Redis = &r
	}
	return f, nil
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
