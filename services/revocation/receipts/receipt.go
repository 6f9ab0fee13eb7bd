package receipts

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/quash-project/quash/services/revocation"
	"github.com/quash-project/quash/services/revocation/fleet"
	"github.com/quash-project/quash/services/revocation/ledger"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// Life is how long a receipt is kept at least.
const Life = 400 * 24 * time.Hour

// Receipt is the record of one entry. Times are Unix milliseconds.
type Receipt struct {
	ID      string   `json:"id"`
	Message string   `json:"message"` // id of the entry's message: tells it from another under the same id
	Tenant  string   `json:"tenant"`
	Op      string   `json:"op"` // revoke, hold or release
	Issuer  string   `json:"issuer,omitempty"`
	Targets []string `json:"targets"`
	Reason  string   `json:"reason"`
	Code    string   `json:"code,omitempty"` // the reason in a word
	Actor   string   `json:"actor"`
	// ApprovedBy is the second person, where there was one; BreakGlass: none was waited for.
	ApprovedBy string `json:"approved_by,omitempty"`
	BreakGlass bool   `json:"break_glass,omitempty"`
	EndsAt     int64  `json:"ends_at,omitempty"` // of a hold for a time
	Then       string `json:"then,omitempty"`
	// Incident is under which it was done; empty: none.
	Incident string `json:"incident,omitempty"`

	CommittedAt int64  `json:"committed_at"`
	Epoch       uint64 `json:"epoch"`
	Sequence    uint64 `json:"sequence"`
	KeepUntil   int64  `json:"keep_until"`

	Confirmed   []Confirmed   `json:"confirmed"`
	Unconfirmed []Unconfirmed `json:"unconfirmed"`
	Out         []Out         `json:"out"`
	Redis       *Redis        `json:"redis,omitempty"`
	Complete    bool          `json:"complete"`

	JudgedAt    int64  `json:"judged_at,omitempty"` // 0: nobody has yet
	JudgedEpoch uint64 `json:"judged_epoch,omitempty"`
}

// Confirmed is a guard that has applied the entry, and when a service heard so.
type Confirmed struct {
	Name     string `json:"name"`
	Instance string `json:"instance"`
	At       int64  `json:"at"`
}

// Unconfirmed is a guard that was not known to have applied it at JudgedAt.
type Unconfirmed struct {
	Name     string `json:"name"`
	Instance string `json:"instance"`
	FencedBy int64  `json:"fenced_by,omitempty"`
	Fenced   bool   `json:"fenced,omitempty"` // that moment had passed
	Open     bool   `json:"open,omitempty"`
	// Former is the epoch in which it was last known, if that has ended without a word
	// from it: 0 for a guard that is known now.
	Former uint64 `json:"former,omitempty"`
}

// Out is a guard that had not confirmed, and was no member of the fleet any more
// when it was judged at At: it accepts nothing until it joins again.
type Out struct {
	Name     string `json:"name"`
	Instance string `json:"instance"`
	At       int64  `json:"at"`
}

// Redis is the Redis view, which counts as one reader.
type Redis struct {
	AppliedAt int64 `json:"applied_at,omitempty"` // 0: not yet
	FencedBy  int64 `json:"fenced_by"`
}

// Running is how many requests a guard has told of that go on although the entry refuses
// what they were admitted with. It is kept beside the receipt, and decides nothing of it.
type Running struct {
	Name     string
	Instance string
	Count    uint64
	At       int64 // when this was heard
}

// At is where the entry stands.
func (r *Receipt) At() revoke.Stamp { return revoke.Stamp{Epoch: r.Epoch, Seq: r.Sequence} }

// entry is what the fleet is asked about.
func (r *Receipt) entry() fleet.Entry {
	return fleet.Entry{At: r.At(), CommittedAt: time.UnixMilli(r.CommittedAt)}
}

// needsOne reports whether an entry is one that somebody asked for. What a new
// epoch commits again has the receipt of what was lost.
func needsOne(ev ledger.Event) bool {
	return ev.Data.Tenant != "" && ev.Data.Entry != "" && !ev.Data.Canary()
}

// begin returns the receipt of an entry of which nothing is known yet.
func begin(ev ledger.Event, s wire.Stored) Receipt {
	h := revocation.Happening{Event: ev}
	r := Receipt{
		ID: ev.Data.Entry, Message: s.Message.ID, Tenant: ev.Data.Tenant, Op: ev.Data.Op, Issuer: h.Issuer(), Targets: h.Targets(),
		Reason: ev.Data.Reason, Code: ev.Data.Code, Actor: ev.Data.Actor,
		ApprovedBy: ev.Data.ApprovedBy, BreakGlass: ev.Data.BreakGlass, EndsAt: s.Message.HoldEnd, Then: s.Message.Then, Incident: ev.Data.Incident,
		CommittedAt: s.Message.At, Epoch: s.Message.Epoch, Sequence: s.Sequence,
		Confirmed: []Confirmed{}, Unconfirmed: []Unconfirmed{}, Out: []Out{},
	}
	lives := time.Unix(s.Message.Until, 0).Add(wire.Slack)
	if least := time.UnixMilli(r.CommittedAt).Add(Life); lives.Before(least) {
		lives = least
	}
	r.KeepUntil = lives.UnixMilli()
	return r
}

// With returns the receipt after another judgement of the same entry, made at now.
// It is commutative as far as it can be: what is proved stays, from whichever
// replica it came; what is not is as the newest epoch has it.
func (r Receipt) With(c fleet.Confirmation, now time.Time) Receipt {
	if r.Complete || !c.Whole() || c.Epoch < r.JudgedEpoch {
		return r
	}
	next := r
	next.JudgedAt, next.JudgedEpoch, next.Complete = now.UnixMilli(), c.Epoch, c.Complete
	next.Confirmed = confirmedBy(r.Confirmed, c.Confirmed)
	has := map[string]bool{}
	for _, x := range next.Confirmed {
		has[x.Instance] = true
	}
	next.Unconfirmed = []Unconfirmed{}
	for _, u := range c.Unconfirmed {
		if !has[u.Instance] {
			has[u.Instance] = true
			next.Unconfirmed = append(next.Unconfirmed, Unconfirmed{u.Name, u.Instance, millis(u.FencedBy), u.Fenced, u.Open, 0})
		}
	}
	next.Out = []Out{}
	for _, o := range r.Out {
		if !has[o.Instance] {
			has[o.Instance] = true
			next.Out = append(next.Out, o)
		}
	}
	for _, u := range r.Unconfirmed {
		switch {
		case has[u.Instance]:
		case r.JudgedEpoch == c.Epoch && u.Former == 0:
			next.Out = append(next.Out, Out{u.Name, u.Instance, next.JudgedAt})
		default:
			u = u.carried(r.JudgedEpoch, c.Settled, now)
			next.Unconfirmed = append(next.Unconfirmed, u)
			next.Complete = next.Complete && u.Fenced
		}
	}
	if c.Redis != nil {
		view := Redis{AppliedAt: millis(c.Redis.AppliedAt), FencedBy: c.Redis.FencedBy.UnixMilli()}
		if r.Redis != nil && r.Redis.AppliedAt != 0 && (view.AppliedAt == 0 || r.Redis.AppliedAt < view.AppliedAt) {
			view.AppliedAt = r.Redis.AppliedAt
		}
		next.Redis = &view
	}
	return next
}

// carried is a guard of a former epoch that this one does not know. In a new epoch
// nobody is known until they join again: who is missing there is not out, but bounded
// by the largest limit. Nothing bounds an open one.
func (u Unconfirmed) carried(epoch uint64, settled, now time.Time) Unconfirmed {
	u.Former = cmp.Or(u.Former, epoch)
	if !u.Open {
		u.FencedBy = max(u.FencedBy, settled.UnixMilli())
		u.Fenced = now.UnixMilli() >= u.FencedBy
	}
	return u
}

// confirmedBy joins two lists. Of a guard in both the earlier time counts: it had
// the entry then.
func confirmedBy(known []Confirmed, heard []fleet.Confirmed) []Confirmed {
	at := make(map[string]int, len(known)+len(heard))
	out := make([]Confirmed, 0, len(known)+len(heard))
	add := func(c Confirmed) {
		i, ok := at[c.Instance]
		if !ok {
			at[c.Instance] = len(out)
			out = append(out, c)
			return
		}
		out[i].At = min(out[i].At, c.At)
	}
	for _, c := range known {
		add(c)
	}
	for _, c := range heard {
		add(Confirmed{c.Name, c.Instance, c.At.UnixMilli()})
	}
	slices.SortFunc(out, func(a, b Confirmed) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Instance, b.Instance))
	})
	return out
}

// provesMore reports whether next has a proof that r lacks, so that it is worth
// writing: there are at most as many of these as guards and some.
func (r *Receipt) provesMore(next *Receipt) bool {
	return next.Complete != r.Complete || len(next.Confirmed) > len(r.Confirmed) || len(next.Out) > len(r.Out) ||
		next.JudgedEpoch > r.JudgedEpoch || next.Redis != nil && next.Redis.AppliedAt != 0 && (r.Redis == nil || r.Redis.AppliedAt == 0)
}

func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}
