package revocation

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/endings"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/hits"
	"github.com/quash-project/quash/shared/problem"
)

// The states of a Pending. All but the first are final.
const (
	PendingWaits    = "pending"
	PendingApproved = "approved"
	PendingDenied   = "denied"
	PendingExpired  = "expired"
	// PendingOvertaken: whoever asked went past the second person by break-glass.
	PendingOvertaken = "break-glass"
)

// Pending is a cut that waits for a second person, as it is kept. Nothing of what it would do
// changes once it is there.
type Pending struct {
	// ID is that of the entry that it becomes: the log takes one of it, whoever approves it,
	// however often and wherever.
	ID      string          `json:"id"`
	Tenant  string          `json:"tenant"`
	Op      commit.Op       `json:"op"`
	Targets []commit.Target `json:"targets"`
	Reason  string          `json:"reason"`
	Code    string          `json:"code,omitempty"`
	ForMS   int64           `json:"for_ms,omitempty"`
	Then    string          `json:"then,omitempty"`
	// Incident is under which it was asked for, Request the id of the request that did.
	Incident string `json:"incident,omitempty"`
	Request  string `json:"request,omitempty"`
	Why      string `json:"why"` // it needs a second person
	Whole    string `json:"whole,omitempty"`
	// Shown is what its plan has shown; nil: it had none.
	Shown *hits.Answer `json:"shown,omitempty"`

	Key     string `json:"idempotency_key"`
	Digest  string `json:"digest"`
	Asker   string `json:"asker"`
	Subject string `json:"subject"` // the principal of the asker
	Caller  string `json:"caller"`  // see Caller.ID
	// Refusing are the targets that refuse the asker's own token, Stamp is where the log was
	// when it was taken.
	Refusing []revoke.Key `json:"refusing,omitempty"`
	Epoch    uint64       `json:"epoch"`
	Sequence uint64       `json:"sequence"`
	AskedAt  int64        `json:"asked_at"` // Unix milliseconds
	Expires  int64        `json:"expires_at"`

	State     string `json:"state"`
	DecidedBy string `json:"decided_by,omitempty"`
	// DecidedSubject is the principal of who decided.
	DecidedSubject string `json:"decided_subject,omitempty"`
	Decision       string `json:"decision,omitempty"` // why, in a person's words
	DecidedAt      int64  `json:"decided_at,omitempty"`
	// Failed says why what was approved can't be committed at all.
	Failed string `json:"failed,omitempty"`
	// Committed is set once the entry is known to be in the log.
	Committed *commit.Answer `json:"committed,omitempty"`

	Meta endings.Meta `json:"meta"` // who changed it last, for the audit
}

// PendingStore keeps them for all replicas. Errors are problem.Errors.
type PendingStore interface {
	// Create keeps p unless there is one of its id, and returns the one that stands there.
	Create(ctx context.Context, p Pending) (stands Pending, err error)
	// Get returns one of a tenant and its revision; problem.NotFound if there is none.
	Get(ctx context.Context, tenant, id string) (Pending, uint64, error)
	// Update writes over a revision. problem.Conflict: somebody else has.
	Update(ctx context.Context, p Pending, revision uint64) error
	// IDs returns those of a tenant, sorted; of all tenants, as TENANT.ID, for an empty one.
	IDs(ctx context.Context, tenant string) ([]string, error)
}

// StateAt is its state at a time: one that nobody has decided is expired after its end,
// whether or not anybody has written that down.
func (p *Pending) StateAt(now time.Time) string {
	if p.State == PendingWaits && now.UnixMilli() >= p.Expires {
		return PendingExpired
	}
	return p.State
}

// Issuer is the short name of a foreign one, of the targets; empty: the tenant's own.
func (p *Pending) Issuer() string { return foreign(p.Targets[0].Issuer) }

// Readable are the targets as people write them.
func (p *Pending) Readable() []string {
	out := make([]string, 0, len(p.Targets))
	for _, t := range p.Targets {
		out = append(out, revoke.Target{Kind: t.Kind, ID: t.ID}.String())
	}
	return out
}

// request is what was asked for, to the letter.
func (p *Pending) request() commit.Request {
	return commit.Request{
		Key: p.Key, Tenant: p.Tenant, Op: p.Op, Targets: p.Targets, Reason: p.Reason, Code: p.Code, Actor: p.Asker, ForMS: p.ForMS, Then: p.Then,
		Incident: p.Incident, RequestID: p.Request,
	}
}

func (p *Pending) service() string { return Caller{ID: p.Caller}.service() }

// putOff keeps a cut until it is decided.
func (s *Service) putOff(ctx context.Context, who Caller, r Request, req commit.Request, id, digest, why string) (Entry, *Pending, error) {
	if _, err := s.underIncident(ctx, req.Tenant, req.Incident); err != nil {
		return Entry{}, nil, err
	}
	now := s.Now()
	head := s.Ledger.Head()
	p := Pending{
		ID: id, Tenant: req.Tenant, Op: req.Op, Targets: req.Targets, Reason: req.Reason, Code: req.Code, ForMS: req.ForMS, Then: req.Then,
		Incident: req.Incident, Request: req.RequestID, Why: why, Whole: r.Whole.ID, Key: req.Key, Digest: digest, Asker: who.Actor, Subject: who.Subject, Caller: who.ID,
		Refusing: who.Targets, Epoch: head.Epoch, Sequence: head.Seq, AskedAt: now.UnixMilli(), Expires: now.Add(s.Second.Policy.Life).UnixMilli(),
		State: PendingWaits, Meta: endings.Meta{Actor: who.Actor, Reason: "asks for a second person: " + req.Reason, At: now.UTC(), Request: req.RequestID},
	}
	if r.Plan != "" {
		if err := s.matches(ctx, r.Plan, req); err != nil {
			return Entry{}, nil, err
		}
		plan, err := s.Plans.Plan(ctx, req.Tenant, r.Plan)
		if err != nil {
			return Entry{}, nil, err
		}
		p.Shown = &plan.Hits
	}
	stands, err := s.Second.Pending.Create(ctx, p)
	if err != nil {
		return Entry{}, nil, err
	}
	if stands.Digest != digest {
		return Entry{}, nil, errAnother()
	}
	s.Second.Told.Pending(&stands)
	return Entry{}, &stands, nil
}

func errAnother() error {
	return problem.New(problem.Conflict, "the idempotency key was used for another request; use a new one")
}

// askedBefore answers a request that waits, or has waited, as what has become of it. An
// error of one that is not done says that this is not known.
func (s *Service) askedBefore(ctx context.Context, q *question, id, digest string, wait time.Duration) (done bool, e Entry, is *Pending, err error) {
	soon, cancel := q.soon(ctx)
	p, _, err := s.Second.Pending.Get(soon, q.req.Tenant, id)
	cancel()
	switch {
	case err != nil && problem.KindOf(err) == problem.NotFound:
		return false, e, nil, nil
	case err != nil:
		return false, e, nil, q.unanswered(err, "what has become of it")
	case p.Digest != digest:
		return true, e, nil, errAnother()
	}
	switch p.StateAt(s.Now()) {
	case PendingWaits:
		return true, e, &p, nil
	case PendingApproved:
		e, err = s.finish(ctx, p, wait)
		e.Repeated = true
		return true, e, nil, err
	case PendingOvertaken:
		return false, e, nil, nil // the log has it
	}
	return true, e, nil, p.over(s.Now())
}

// over is why one that is not waiting can't be decided, or asked for again.
func (p *Pending) over(now time.Time) error {
	switch p.StateAt(now) {
	case PendingDenied:
		return problem.New(problem.Conflict, "it was denied by %s: %s; to ask again, ask under a new idempotency key", p.DecidedBy, p.Decision)
	case PendingExpired:
		return problem.New(problem.Conflict, "it has expired at %s, and nobody had approved it; to ask again, ask under a new idempotency key", time.UnixMilli(p.Expires).UTC().Format(time.RFC3339))
	case PendingOvertaken:
		return problem.New(problem.Conflict, "whoever asked for it has cut at once, by break-glass")
	case PendingApproved:
		return problem.New(problem.Conflict, "it was approved by %s", p.DecidedBy)
	}
	return nil
}

func errNoPending() error {
	return problem.New(problem.NotFound, "there is no such pending cut; it is forgotten three days after it was asked for")
}

// PendingByID returns one of the caller's tenant.
func (s *Service) PendingByID(ctx context.Context, who Caller, id string) (Pending, error) {
	p, _, err := s.pending(ctx, who.Tenant, id)
	return p, err
}

// PendingFrom is PendingByID for one of many, with what From has said of the tenant.
func (s *Service) PendingFrom(ctx context.Context, who Caller, id string, from revoke.Stamp) (Pending, error) {
	p, _, err := s.pendingFrom(ctx, who.Tenant, id, from)
	return p, err
}

func (s *Service) pending(ctx context.Context, tenant, id string) (Pending, uint64, error) {
	if len(id) != 43 || !base64url(id) {
		return Pending{}, 0, errNoPending()
	}
	from, err := s.From(ctx, tenant)
	if err != nil {
		return Pending{}, 0, err
	}
	return s.pendingFrom(ctx, tenant, id, from)
}

func (s *Service) pendingFrom(ctx context.Context, tenant, id string, from revoke.Stamp) (Pending, uint64, error) {
	p, rev, err := s.Second.Pending.Get(ctx, tenant, id)
	if err != nil && problem.KindOf(err) == problem.NotFound || err == nil && (revoke.Stamp{Epoch: p.Epoch, Seq: p.Sequence}).Less(from) {
		err = errNoPending()
	}
	return p, rev, err
}

// Approve agrees as the second person, and commits: nothing was cut before. Asked again, also
// by another replica or after a crash in the middle, it gives the same entry.
func (s *Service) Approve(ctx context.Context, who Caller, id, reason string, wait time.Duration) (Entry, error) {
	if err := s.Ledger.Ready(); err != nil {
		return Entry{}, err
	}
	p, err := s.approve(ctx, who, id, reason)
	if err != nil && problem.KindOf(err) == problem.Conflict {
		// Another request may have been faster: what stands there now tells.
		p, err = s.approve(ctx, who, id, reason)
	}
	if err != nil {
		return Entry{}, err
	}
	return s.finish(ctx, p, wait)
}

// approve writes down that it is approved, if it may be and is not yet.
func (s *Service) approve(ctx context.Context, who Caller, id, reason string) (Pending, error) {
	p, rev, err := s.pending(ctx, who.Tenant, id)
	if err != nil {
		return p, err
	}
	if err := s.another(ctx, who, &p); err != nil {
		return p, err
	}
	if p.State == PendingApproved && (p.DecidedBy == who.Actor || p.DecidedSubject == who.Subject) {
		return p, nil
	}
	if err := p.over(s.Now()); err != nil {
		return p, err
	}
	if err := s.stillGood(ctx, &p); err != nil {
		return p, err
	}
	return s.decide(ctx, p, rev, who, PendingApproved, reason)
}

// another refuses whoever is not a second person: the asker by another key or client of
// theirs, a client that acts for itself, and who may make no cuts by the issuer's records.
func (s *Service) another(ctx context.Context, who Caller, p *Pending) error {
	refuse := func(format string, args ...any) error { return problem.New(problem.Forbidden, format, args...) }
	if who.Subject == "" || who.Subject == p.Subject {
		return refuse("%s has asked for it: another person has to approve it, and no other key or client of the same one will do", p.Subject)
	}
	a, err := s.approvers(ctx, p.Tenant, who.Subject, p.Subject)
	if err != nil {
		return err
	}
	if !slices.Contains(a.People, who.Subject) {
		return refuse("%s can't be the second person: want one who has an API key with the right to make cuts, and is no client or workload", who.Subject)
	}
	if p.State == PendingWaits && !slices.Contains(a.May, p.Subject) {
		return problem.New(problem.Conflict, "%s, who asked for it, may make no cuts any more: it can only be denied", p.Subject)
	}
	return nil
}

// stillGood refuses what is not any more what was asked for, or who asked.
func (s *Service) stillGood(ctx context.Context, p *Pending) error {
	if err := s.Ledger.Fresh(ctx); err != nil {
		return problem.Wrap(problem.Unavailable, err, "the log can't be read now; nothing was done, try again")
	}
	if _, hit := s.Ledger.View().HitAny(p.Refusing, revoke.Stamp{Epoch: p.Epoch, Seq: p.Sequence}); hit {
		return problem.New(problem.Conflict, "what %s asked for it with was cut or is held meanwhile: it can only be denied", p.Subject)
	}
	if p.Shown == nil {
		return nil
	}
	now, err := s.hits(ctx, p.request())
	switch {
	case err != nil:
		return err
	case now.Boxes.Grown(&p.Shown.Boxes):
		return problem.New(problem.Conflict, "what it would hit has grown since its plan was shown: %s then, %s now; deny it, and have it asked for anew", counted(*p.Shown), counted(now))
	case now.LastAdmin && !p.Shown.LastAdmin:
		return problem.New(problem.Conflict, "it would cut off the last admin of the tenant, as was not so when its plan was shown; deny it, and have it asked for anew")
	}
	return nil
}

// Deny ends it. Whoever asked may take it back so.
func (s *Service) Deny(ctx context.Context, who Caller, id, reason string) (Pending, error) {
	p, rev, err := s.pending(ctx, who.Tenant, id)
	if err != nil {
		return p, err
	}
	if p.State == PendingDenied && (p.DecidedBy == who.Actor || p.DecidedSubject != "" && p.DecidedSubject == who.Subject) && p.Decision == reason {
		return p, nil
	}
	if err := p.over(s.Now()); err != nil {
		return p, err
	}
	return s.decide(ctx, p, rev, who, PendingDenied, reason)
}

// decide writes a decision down: of several that are made at once, one.
func (s *Service) decide(ctx context.Context, p Pending, rev uint64, who Caller, state, reason string) (Pending, error) {
	now := s.Now()
	p.State, p.DecidedBy, p.Decision, p.DecidedAt = state, who.Actor, reason, now.UnixMilli()
	p.DecidedSubject = who.Subject
	p.Meta = endings.Meta{Actor: who.Actor, Reason: strings.TrimSuffix(state+": "+reason, ": "), At: now.UTC(), Request: who.Request}
	if err := s.Second.Pending.Update(ctx, p, rev); err != nil {
		return p, err
	}
	s.Second.Told.Decided(&p)
	return p, nil
}
