package incidents

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/quash-project/quash/services/revocation/receipts"
	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/guard/revoke"
	frame "github.com/quash-project/quash/shared/httpapi"
)

// Bounds of a report.
const (
	maxCuts = 1000
	// maxSigned is how many bytes of receipts stand in it as a whole. The others are named.
	maxSigned = 4 << 20
	// maxForward is how many receipts that are not complete are brought forward for it.
	maxForward = 50
	// reportWait is how long a report waits for what was committed before it.
	reportWait = 5 * time.Second
	maxHolds   = 1000
)

// Report is all that is known of an incident, in one document.
type Report struct {
	Installation string        `json:"installation"`
	MadeAt       frame.Time    `json:"made_at"`
	ID           string        `json:"id"`
	Tenant       string        `json:"tenant"`
	Title        string        `json:"title"`
	Severity     string        `json:"severity"`
	State        string        `json:"state" enum:"open,closed"`
	OpenedAt     frame.Time    `json:"opened_at"`
	OpenedBy     string        `json:"opened_by"`
	ClosedAt     *frame.Time   `json:"closed_at,omitempty"`
	ClosedBy     string        `json:"closed_by,omitempty"`
	CloseReason  string        `json:"close_reason,omitempty"`
	Timeline     []Event       `json:"timeline" doc:"all of the following in the order of time"`
	Plans        []ToldPlan    `json:"plans"`
	Cuts         []Cut         `json:"cuts" doc:"what was revoked, held and released, oldest first"`
	MoreCuts     int           `json:"more_cuts,omitempty" doc:"how many older ones are left out; quash audit search --incident has them"`
	Whole        bool          `json:"whole" doc:"nothing is missing that had been committed before; false: the log, or the list of receipts, could not be asked in time"`
	Holds        []RunningHold `json:"holds" doc:"what was held under it, and is now"`
	Notes        []ToldNote    `json:"notes"`
}

// Event is one line of the timeline.
type Event struct {
	At    frame.Time `json:"at"`
	Kind  string     `json:"kind" enum:"opened,plan,cut,effect,note,closed"`
	Actor string     `json:"actor,omitempty"`
	Text  string     `json:"text"`
	ID    string     `json:"id,omitempty" doc:"of the plan or receipt"`
}

// ToldNote is a note as it is told.
type ToldNote struct {
	At    frame.Time `json:"at"`
	Actor string     `json:"actor"`
	Text  string     `json:"text"`
}

// ToldPlan is a plan as it is told.
type ToldPlan struct {
	At      frame.Time `json:"at"`
	Actor   string     `json:"actor"`
	ID      string     `json:"id"`
	Op      string     `json:"op" enum:"revoke,hold"`
	Target  string     `json:"target" doc:"the first"`
	Targets int        `json:"targets" doc:"how many there are"`
	Hits    string     `json:"hits" doc:"what it would have hit, in words"`
}

// Cut is a revocation, hold or release.
type Cut struct {
	ID          string      `json:"id" doc:"of its receipt"`
	CommittedAt frame.Time  `json:"committed_at"`
	Op          string      `json:"op" enum:"revoke,hold,release"`
	Target      string      `json:"target" doc:"the first"`
	Targets     int         `json:"targets" doc:"how many there are"`
	Actor       string      `json:"actor"`
	Reason      string      `json:"reason"`
	Code        string      `json:"code,omitempty"`
	Complete    bool        `json:"complete" doc:"it has taken effect everywhere"`
	EffectAt    *frame.Time `json:"effect_at,omitempty" doc:"of a complete one: since when"`
	Confirmed   int         `json:"confirmed" doc:"how many servers have confirmed"`
	Unconfirmed int         `json:"unconfirmed" doc:"how many have not"`
	// Receipt and JWS are missing where there were too many.
	Receipt *receipts.Document `json:"receipt,omitempty" doc:"missing where the report would be too long: GET /v1/receipts/{id} has it"`
	JWS     string             `json:"jws,omitempty" doc:"the receipt, signed: quash receipt verify takes it, without asking anybody"`
}

// RunningHold is a hold that has not ended.
type RunningHold struct {
	ID     string      `json:"id" doc:"of its receipt"`
	Target string      `json:"target"`
	Issuer string      `json:"issuer,omitempty"`
	EndsAt *frame.Time `json:"ends_at,omitempty" doc:"missing: it is held until somebody releases it"`
	Then   string      `json:"then,omitempty" doc:"what comes at that end: release or revoke"`
}

// State says whether a notebook is open or closed.
func (x *Incident) State() string {
	if x.Closed != nil {
		return "closed"
	}
	return "open"
}

// Report makes the report of an incident of the tenant; names: with those of guards.
func (b *Books) Report(ctx context.Context, tenant, id, installation string, names bool) (Report, error) {
	x, err := b.Find(ctx, tenant, id)
	if err != nil {
		return Report{}, err
	}
	r := Report{
		Installation: installation, MadeAt: frame.Time(b.cfg.Now()), ID: x.ID, Tenant: x.Tenant, Title: x.Title, Severity: x.Severity,
		State: x.State(), OpenedAt: frame.Time(x.Opened.At), OpenedBy: x.Opened.Actor,
		Plans: []ToldPlan{}, Cuts: []Cut{}, Holds: []RunningHold{}, Notes: []ToldNote{},
	}
	if c := x.Closed; c != nil {
		at := frame.Time(c.At)
		r.ClosedAt, r.ClosedBy, r.CloseReason = &at, c.Actor, c.Reason
	}
	for _, n := range x.Notes {
		r.Notes = append(r.Notes, ToldNote{frame.Time(n.At), n.Actor, n.Text})
	}
	for _, p := range x.Plans {
		r.Plans = append(r.Plans, ToldPlan{frame.Time(p.At), p.Actor, p.ID, p.Op, p.Target, p.Targets, p.Hits})
	}
	list, err := b.cuts(ctx, tenant, id, &r)
	if err != nil {
		return Report{}, err
	}
	if err := b.tellCuts(ctx, list, installation, names, &r); err != nil {
		return Report{}, err
	}
	r.Holds = b.running(list)
	r.Timeline = r.timeline()
	return r, nil
}

// cuts returns the receipts of an incident, as they are by now.
func (b *Books) cuts(ctx context.Context, tenant, id string, r *Report) ([]receipts.Receipt, error) {
	// What was committed before, by whichever replica, has been applied here then.
	fresh, cancel := context.WithTimeout(ctx, reportWait)
	defer cancel()
	applied := b.cfg.Ledger.Ready() == nil && b.cfg.Ledger.Fresh(fresh) == nil
	g := b.cfg.Receipts.Under(ctx, tenant, id, maxCuts, reportWait)
	r.Whole, r.MoreCuts = g.Whole && applied, g.More
	list, err := b.cfg.Receipts.Read(ctx, g.List)
	if err != nil {
		return nil, err
	}
	forward := 0
	for i := range list {
		if list[i].Complete || forward == maxForward {
			continue
		}
		forward++
		if now, err := b.cfg.Receipts.Find(ctx, tenant, list[i].ID, 0); err == nil {
			list[i] = now // otherwise it is told as it was written last
		}
	}
	return list, nil
}

func (b *Books) tellCuts(ctx context.Context, list []receipts.Receipt, installation string, names bool, r *Report) error {
	signed := 0
	for i := range list {
		d := list[i].Tell(names)
		c := Cut{
			ID: d.ID, CommittedAt: d.CommittedAt, Op: d.Op, Targets: len(d.Targets), Actor: d.Actor, Reason: d.Reason, Code: d.Code,
			Complete: d.Complete, EffectAt: effectAt(d), Confirmed: len(d.Confirmed), Unconfirmed: len(d.Unconfirmed),
		}
		if len(d.Targets) > 0 {
			c.Target = d.Targets[0]
		}
		payload, err := d.Payload(installation, b.cfg.Now())
		if err != nil {
			return err
		}
		if signed += len(payload); signed <= maxSigned {
			if c.JWS, err = b.cfg.Receipts.Keys.Sign(ctx, receipts.Type, payload); err != nil {
				return err
			}
			c.Receipt = &d
		}
		r.Cuts = append(r.Cuts, c)
	}
	return nil
}

// effectAt returns since when a complete receipt is: the last that its parts say.
func effectAt(d receipts.Document) *frame.Time {
	if !d.Complete {
		return nil
	}
	last := time.Time(d.CommittedAt)
	see := func(t *frame.Time) {
		if t != nil && time.Time(*t).After(last) {
			last = time.Time(*t)
		}
	}
	for _, c := range d.Confirmed {
		see(&c.At)
	}
	for _, u := range d.Unconfirmed {
		see(u.FencedBy)
	}
	for _, o := range d.Out {
		see(&o.At)
	}
	if d.Redis != nil {
		see(d.Redis.AppliedAt)
	}
	at := frame.Time(last)
	return &at
}

// running returns what was held and still is, by the view of this replica.
func (b *Books) running(list []receipts.Receipt) []RunningHold {
	out := []RunningHold{}
	view := b.cfg.Ledger.View()
	epochs := view.Epochs()
	seen := map[revoke.Key]bool{}
	for _, r := range slices.Backward(list) {
		if r.Op != string(commit.Hold) {
			continue
		}
		for _, text := range r.Targets {
			key, err := keyOfTarget(r.Tenant, r.Issuer, text)
			if err != nil || seen[key] || len(out) == maxHolds {
				continue
			}
			seen[key] = true
			if s := view.State(key); epochs.Clamp(s.Released).Less(s.Held) {
				h := RunningHold{ID: r.ID, Target: text, Issuer: r.Issuer, Then: r.Then}
				if r.EndsAt != 0 {
					at := frame.Millis(r.EndsAt)
					h.EndsAt = &at
				}
				out = append(out, h)
			}
		}
	}
	return out
}

// keyOfTarget reads a target as a receipt names it.
func keyOfTarget(tenant, issuer, text string) (revoke.Key, error) {
	if k, err := revoke.ParseKey(text); err == nil {
		return k, nil
	}
	t, err := revoke.ParseTarget(tenant, cmp.Or(issuer, revoke.Own), text)
	return t.Key(), err
}

var past = map[string]string{"revoke": "revoked", "hold": "held", "release": "released"}

// timeline puts all in the order of time. What has the same time stays in the order in which
// it can only have come.
func (r *Report) timeline() []Event {
	all := []Event{{At: r.OpenedAt, Kind: "opened", Actor: r.OpenedBy, Text: "opened the incident: " + r.Title}}
	for _, p := range r.Plans {
		all = append(all, Event{p.At, "plan", p.Actor, "was shown what a " + p.Op + " of " + several(p.Target, p.Targets) + " would hit: " + p.Hits, p.ID})
	}
	for _, c := range r.Cuts {
		all = append(all, Event{c.CommittedAt, "cut", c.Actor, past[c.Op] + " " + several(c.Target, c.Targets) + ": " + c.Reason, c.ID})
		if c.EffectAt != nil {
			all = append(all, Event{*c.EffectAt, "effect", "", "everywhere in effect: " + c.Op + " of " + several(c.Target, c.Targets), c.ID})
		}
	}
	for i, n := range r.Notes {
		all = append(all, Event{At: n.At, Kind: "note", Actor: n.Actor, Text: fmt.Sprintf("wrote note %d: %s", i+1, firstLine(n.Text))})
	}
	if r.ClosedAt != nil {
		all = append(all, Event{At: *r.ClosedAt, Kind: "closed", Actor: r.ClosedBy, Text: "closed the incident: " + r.CloseReason})
	}
	slices.SortStableFunc(all, func(a, b Event) int { return time.Time(a.At).Compare(time.Time(b.At)) })
	return all
}

func several(target string, n int) string {
	if n > 1 {
		return fmt.Sprintf("%s and %d more", target, n-1)
	}
	return target
}

// maxLine is how much of a note stands in the timeline.
const maxLine = 120

func firstLine(text string) string {
	line, _, more := strings.Cut(strings.TrimSpace(text), "\n")
	if r := []rune(line); len(r) > maxLine {
		line, more = string(r[:maxLine]), true
	}
	if more {
		line += " …"
	}
	return line
}
