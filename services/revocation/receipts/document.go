package receipts

import (
	"encoding/json"
	"time"

	"github.com/danielgtaylor/huma/v2"

	frame "github.com/quash-project/quash/shared/httpapi"
)

// Type is the typ of a receipt's JWS. No token has it, and no guard takes it.
const Type = "quash-receipt+jwt"

// Version is that of the form of a receipt that is signed.
const Version = 1

// Document is a receipt as it is told.
type Document struct {
	ID          string            `json:"id"`
	Tenant      string            `json:"tenant"`
	Op          string            `json:"op" enum:"revoke,hold,release"`
	Issuer      string            `json:"issuer,omitempty" doc:"of the targets, if it is not the tenant's own"`
	Targets     []string          `json:"targets"`
	Reason      string            `json:"reason"`
	Code        string            `json:"code,omitempty" doc:"the reason in a word"`
	Actor       string            `json:"actor"`
	ApprovedBy  string            `json:"approved_by,omitempty" doc:"the second person, where there was one"`
	BreakGlass  bool              `json:"break_glass,omitempty" doc:"BREAK-GLASS: no second person was waited for, or the break-glass identity did it"`
	EndsAt      *frame.Time       `json:"ends_at,omitempty" doc:"of a hold for a time: its end"`
	Then        string            `json:"then,omitempty" doc:"what comes at that end: release or revoke"`
	Incident    string            `json:"incident,omitempty" doc:"under which it was done"`
	CommittedAt frame.Time        `json:"committed_at"`
	Epoch       uint64            `json:"epoch"`
	Sequence    uint64            `json:"sequence"`
	Confirmed   []ToldConfirmed   `json:"confirmed" doc:"guards that have applied it"`
	Unconfirmed []ToldUnconfirmed `json:"unconfirmed" doc:"guards that were not known to have applied it at judged_at"`
	Out         []ToldOut         `json:"out" doc:"guards that had not confirmed, and have left the fleet since: they accept nothing until they join again"`
	Redis       *ToldRedis        `json:"redis" doc:"the Redis view, which counts as one reader; null where there is none, or nobody has judged yet"`
	Running     []ToldRunning     `json:"running,omitempty" doc:"guards that have told how many requests go on which were admitted with what this refuses. No confirmation depends on it, and complete doesn't: a guard that is not here has had none that it watches, or does not tell"`
	Complete    bool              `json:"complete" doc:"every guard is confirmed, out or past its fencing moment, none is open, and the Redis view has applied it; final"`
	JudgedAt    *frame.Time       `json:"judged_at,omitempty" doc:"when a service found this, by its clock; missing: none has yet"`
	KeptUntil   frame.Time        `json:"kept_until"`
}

// ToldConfirmed is a guard that has applied the entry.
type ToldConfirmed struct {
	Name     string     `json:"name" doc:"of the resource server; empty for a tenant other than the installation's own"`
	Instance string     `json:"instance"`
	At       frame.Time `json:"at" doc:"when a service heard so"`
}

// ToldUnconfirmed is a guard that was not known to have applied it.
type ToldUnconfirmed struct {
	Name     string      `json:"name" doc:"of the resource server; empty for a tenant other than the installation's own"`
	Instance string      `json:"instance"`
	FencedBy *frame.Time `json:"fenced_by,omitempty" doc:"from when it refuses by itself, by the clock of the service that judged"`
	Fenced   bool        `json:"fenced,omitempty" doc:"that moment had passed"`
	Open     bool        `json:"open,omitempty" doc:"it allows past its limit: nothing bounds it"`
}

// ToldOut is a guard that has left the fleet.
type ToldOut struct {
	Name     string     `json:"name" doc:"of the resource server; empty for a tenant other than the installation's own"`
	Instance string     `json:"instance"`
	At       frame.Time `json:"at" doc:"when a service found it gone"`
}

// ToldRunning is a guard at which requests went on.
type ToldRunning struct {
	Name     string     `json:"name" doc:"of the resource server; empty for a tenant other than the installation's own"`
	Instance string     `json:"instance"`
	Count    uint64     `json:"count" doc:"how many there were; 0: none is counted under this entry any more, since they have ended or a later entry hits them too and counts them"`
	At       frame.Time `json:"at" doc:"when a service heard so"`
}

// ToldRedis is the Redis view.
type ToldRedis struct {
	AppliedAt *frame.Time `json:"applied_at,omitempty" doc:"missing until it has applied the entry"`
	FencedBy  frame.Time  `json:"fenced_by" doc:"from when no reader takes an older view for complete"`
}

// TransformSchema is for huma.
func (Document) TransformSchema(r huma.Registry, s *huma.Schema) *huma.Schema {
	return frame.OrNull(r, s, "redis")
}

// Statement is what is signed: a document, by which installation, and when.
type Statement struct {
	Version      int    `json:"quash_receipt"`
	Installation string `json:"installation"` // its issuer's URL; no claim iss, which is that of tokens
	IssuedAt     int64  `json:"iat"`
	Document
}

// Tell returns a receipt as it may be told; names: with those of guards.
func (r *Receipt) Tell(names bool) Document {
	named := func(name string) string {
		if names {
			return name
		}
		return ""
	}
	d := Document{
		ID: r.ID, Tenant: r.Tenant, Op: r.Op, Issuer: r.Issuer, Targets: r.Targets, Reason: r.Reason, Code: r.Code, Actor: r.Actor,
		ApprovedBy: r.ApprovedBy, BreakGlass: r.BreakGlass, EndsAt: moment(r.EndsAt), Then: r.Then, Incident: r.Incident, CommittedAt: frame.Millis(r.CommittedAt), Epoch: r.Epoch, Sequence: r.Sequence,
		Confirmed: make([]ToldConfirmed, 0, len(r.Confirmed)), Unconfirmed: make([]ToldUnconfirmed, 0, len(r.Unconfirmed)), Out: make([]ToldOut, 0, len(r.Out)),
		Complete: r.Complete, JudgedAt: moment(r.JudgedAt), KeptUntil: frame.Millis(r.KeepUntil),
	}
	for _, c := range r.Confirmed {
		d.Confirmed = append(d.Confirmed, ToldConfirmed{named(c.Name), c.Instance, frame.Millis(c.At)})
	}
	for _, u := range r.Unconfirmed {
		d.Unconfirmed = append(d.Unconfirmed, ToldUnconfirmed{named(u.Name), u.Instance, moment(u.FencedBy), u.Fenced, u.Open})
	}
	for _, o := range r.Out {
		d.Out = append(d.Out, ToldOut{named(o.Name), o.Instance, frame.Millis(o.At)})
	}
	if r.Redis != nil {
		d.Redis = &ToldRedis{AppliedAt: moment(r.Redis.AppliedAt), FencedBy: frame.Millis(r.Redis.FencedBy)}
	}
	return d
}

// Runs adds what guards have told of requests that go on; names: with those of guards.
func (d *Document) Runs(list []Running, names bool) {
	for _, r := range list {
		if !names {
			r.Name = ""
		}
		d.Running = append(d.Running, ToldRunning{r.Name, r.Instance, r.Count, frame.Millis(r.At)})
	}
}

func moment(ms int64) *frame.Time {
	if ms == 0 {
		return nil
	}
	t := frame.Millis(ms)
	return &t
}

// Payload returns what is signed of a document at a time.
func (d Document) Payload(installation string, now time.Time) ([]byte, error) {
	return json.Marshal(Statement{Version: Version, Installation: installation, IssuedAt: now.Unix(), Document: d})
}
