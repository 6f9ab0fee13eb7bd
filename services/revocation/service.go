package revocation

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/quash-project/quash/services/revocation/fleet"
	"github.com/quash-project/quash/services/revocation/ledger"
	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/guard"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/problem"
	"github.com/quash-project/quash/shared/tracing"
)

// MaxWait is how long one request may wait for confirmations.
const MaxWait = time.Minute

// Service is safe for concurrent use. Its fields are set once.
type Service struct {
	Ledger *ledger.Ledger
	Fleet  *fleet.Fleet
	Guard  *guard.Guard // explains decisions
	Home   string       // the tenant whose operators run the installation: they see all of it
	Now    func() time.Time
	Rand   io.Reader
	// Records tells what a cut would hit, Plans keeps what was shown of it.
	Records Records
	Plans   Plans
	Tenants Tenants
	// Memories tells which guards have seen what a cut would hit; nil: nobody does.
	Memories Memories
	// Notebooks are where incidents are kept; nil: nowhere.
	Notebooks Notebooks
	// Second says which cuts need a second person, and keeps those that wait for one.
	Second Second
}

// Caller is who asks, as their token says.
type Caller struct {
	Actor  string // for the audit
	ID     string // scope of idempotency keys: subject and client
	Tenant string
	// Subject is the principal, or the client that acts for itself.
	Subject string
	// Targets are the keys of what refuses the caller's own token.
	Targets []revoke.Key
	Request string // the id of the request, for the audit
}

// service is as which the ledger knows the caller's requests.
func (c Caller) service() string { return "caller:" + c.ID }

// Request is one revocation, hold or release.
type Request struct {
	Op      commit.Op
	Targets []string // kind:id
	Reason  string
	Code    string        // the reason in a word; see commit.Codes
	For     time.Duration // of a hold; 0: until released
	Then    string
	Issuer  string // short name; empty: the tenant's own
	Tenant  string // empty: the caller's
	Key     string // idempotency key; empty: a new one
	Of      string // of a release: the id of the hold that it ends; empty: whatever holds them
	Plan    string // what was shown; empty: nothing has to have been
	// Incident is under which it is done; empty: none.
	Incident string
	// BreakGlass says that no second person is waited for.
	BreakGlass bool
	// Whole is what the request is a part of; see Whole.
	Whole Whole
}

// Entry is a committed entry and how far it has come.
type Entry struct {
	ID          string
	At          revoke.Stamp
	CommittedAt time.Time
	Op          string
	Issuer      string // short name of a foreign one; empty: the tenant's own
	Targets     []string
	Reason      string
	Code        string
	Actor       string
	ApprovedBy  string // the second person, where there was one
	BreakGlass  bool   // none was waited for, or the break-glass identity did it
	Repeated    bool   // this request had been answered before
	// Incident is under which it was done; empty: none. NotGathered is why it is not known to
	// be in the notebook of the one that was asked for.
	Incident    string
	NotGathered string
	fleet.Confirmation
}

// Commit commits, and then waits for confirmations up to wait. An error of kind
// problem.UnknownOutcome carries the key to repeat with.
func (s *Service) Commit(ctx context.Context, who Caller, r Request, wait time.Duration) (Entry, error) {
	req, err := s.request(who, r)
	if err != nil {
		return Entry{}, err
	}
	notGathered, err := s.allowed(ctx, who, r.Plan, req)
	if err != nil {
		return Entry{}, err
	}
	return s.commit(ctx, req, who.service(), notGathered, wait)
}

// allowed refuses what is not as its plan has shown, or is under no open incident.
func (s *Service) allowed(ctx context.Context, who Caller, plan string, req commit.Request) (notGathered string, err error) {
	if err := s.asPlanned(ctx, who, plan, req); err != nil {
		return "", err
	}
	return s.mayCommit(ctx, who, req)
}

// commit commits what is checked.
func (s *Service) commit(ctx context.Context, req commit.Request, service, notGathered string, wait time.Duration) (Entry, error) {
	a, err := s.Ledger.Commit(ctx, req, service)
	if err != nil {
		return Entry{}, err
	}
	return s.committed(ctx, req, a, notGathered, wait), nil
}

// committed is what has become of a request, by the answer of the log.
func (s *Service) committed(ctx context.Context, req commit.Request, a commit.Answer, notGathered string, wait time.Duration) Entry {
	e := Entry{
		ID: a.ID, At: a.Stamp(), CommittedAt: time.UnixMilli(a.CommittedAt), Op: string(req.Op),
		Reason: req.Reason, Code: req.Code, Actor: req.Actor, ApprovedBy: req.ApprovedBy, BreakGlass: req.BreakGlass, Repeated: a.Repeated,
	}
	if a.Repeated { // what is in the log is true, whatever is said now
		if ev, _, err := s.Ledger.Find(ctx, a.ID); err == nil {
			e.ApprovedBy, e.BreakGlass = ev.Data.ApprovedBy, ev.Data.BreakGlass
		}
	}
	e.gathered(req.Incident, a, notGathered)
	for _, t := range req.Targets {
		e.Issuer = foreign(t.Issuer)
		e.Targets = append(e.Targets, revoke.Target{Kind: t.Kind, ID: t.ID}.String())
	}
	e.Confirmation = s.confirm(ctx, e, wait)
	return e
}

// request checks what a person wrote.
func (s *Service) request(who Caller, r Request) (commit.Request, error) {
	if r.Tenant != "" && r.Tenant != who.Tenant {
		return commit.Request{}, &problem.Error{Kind: problem.Forbidden, Field: "tenant", Detail: "your token is of another tenant"}
	}
	if r.Issuer != "" {
		if err := revoke.CheckName("issuer", r.Issuer); err != nil {
			return commit.Request{}, problem.FieldError("issuer", "%s", err)
		}
	}
	req := commit.Request{
		Key: r.Key, Tenant: who.Tenant, Op: r.Op, Reason: r.Reason, Code: r.Code, Actor: who.Actor,
		ForMS: r.For.Milliseconds(), Then: r.Then, Of: r.Of, BreakGlass: r.BreakGlass,
		Incident: r.Incident, RequestID: who.Request,
	}
	if r.For > 0 && req.ForMS == 0 {
		req.ForMS = 1
	}
	if req.Key == "" {
		id, err := wire.NewID(s.Rand)
		if err != nil {
			return req, err
		}
		req.Key = id
	}
	if err := problem.NoSecret("reason", r.Reason); err != nil {
		return req, err
	}
	if len(r.Targets) == 0 || len(r.Targets) > wire.MaxTargets {
		return req, problem.FieldError("targets", "%d targets: want 1 to %d", len(r.Targets), wire.MaxTargets)
	}
	for i, text := range r.Targets {
		t, err := parseTarget(who.Tenant, r.Issuer, text)
		if err != nil {
			return req, problem.FieldError(fmt.Sprintf("targets[%d]", i), "%s", err)
		}
		if err := problem.NoSecret(fmt.Sprintf("targets[%d]", i), t.ID); err != nil {
			return req, err
		}
		req.Targets = append(req.Targets, commit.Target{Issuer: t.Issuer, Kind: t.Kind, ID: t.ID})
	}
	return req, nil
}

// parseTarget reads a target; one of kind issuer names its own issuer.
func parseTarget(tenant, issuer, text string) (revoke.Target, error) {
	t, err := revoke.ParseTarget(tenant, issuer, text)
	if err == nil || issuer != "" {
		return t, err
	}
	const prefix = "issuer:"
	if len(text) > len(prefix) && text[:len(prefix)] == prefix {
		return revoke.ParseTarget(tenant, text[len(prefix):], text)
	}
	return t, err
}

// confirm tells who has it. Everybody who can be below the entry is known once
// it was applied here.
func (s *Service) confirm(ctx context.Context, e Entry, wait time.Duration) (c fleet.Confirmation) {
	ctx, span := tracing.Start(ctx, "confirm", trace.SpanKindInternal)
	defer func() { endConfirm(span, c) }()
	if err := s.Ledger.WaitApplied(ctx, e.At); err != nil {
		return fleet.Confirmation{Confirmed: []fleet.Confirmed{}, Unconfirmed: []fleet.Unconfirmed{}}
	}
	return s.Fleet.Wait(ctx, fleet.Entry{At: e.At, CommittedAt: e.CommittedAt}, min(wait, MaxWait))
}

// Find returns a committed entry of the caller's tenant, and waits for
// confirmations up to wait.
func (s *Service) Find(ctx context.Context, who Caller, id string, wait time.Duration) (Entry, error) {
	missing := problem.New(problem.NotFound, "there is no such revocation, or it has ended with all that it could hit")
	if len(id) != 43 || revoke.CheckID("id", id) != nil || !base64url(id) {
		return Entry{}, missing
	}
	if err := s.Ledger.Ready(); err != nil {
		return Entry{}, err
	}
	ev, at, err := s.Ledger.Find(ctx, id)
	switch {
	case errors.Is(err, ledger.ErrNoMessage):
		return Entry{}, missing
	case err != nil:
		return Entry{}, problem.Wrap(problem.Unavailable, err, "the log can't be read now; try again")
	case ev.Data.Tenant != who.Tenant:
		return Entry{}, missing
	}
	if from, err := s.From(ctx, who.Tenant); err != nil {
		return Entry{}, err
	} else if at.Position().Stamp.Less(from) {
		return Entry{}, missing
	}
	e := Entry{
		ID: id, At: at.Position().Stamp, CommittedAt: time.UnixMilli(at.Message.At), Op: ev.Data.Op,
		Reason: ev.Data.Reason, Code: ev.Data.Code, Actor: ev.Data.Actor, Issuer: issuerOf(ev), Targets: readable(ev),
		Incident:   ev.Data.Incident,
		ApprovedBy: ev.Data.ApprovedBy, BreakGlass: ev.Data.BreakGlass,
	}
	e.Confirmation = s.confirm(ctx, e, wait)
	return e, nil
}

func base64url(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
			return false
		}
	}
	return true
}

// issuerOf returns the foreign issuer of an event's targets: a request has one.
func issuerOf(ev ledger.Event) string {
	if len(ev.Data.Targets) == 0 {
		return ""
	}
	return foreign(ev.Data.Targets[0].Issuer)
}

func foreign(issuer string) string {
	if issuer == revoke.Own {
		return ""
	}
	return issuer
}

func readable(ev ledger.Event) []string {
	out := []string{}
	for _, t := range ev.Data.Targets {
		out = append(out, revoke.Target{Kind: t.Kind, ID: t.ID}.String())
	}
	for _, k := range ev.Data.TargetKeys {
		out = append(out, k.String())
	}
	return out
}

// Out declares an instance out by the word of an operator.
func (s *Service) Out(ctx context.Context, who Caller, instance, reason string) (wire.Position, error) {
	if err := s.Ledger.Ready(); err != nil {
		return wire.Position{}, err
	}
	g, ok := s.Fleet.Find(instance)
	if !ok {
		return wire.Position{}, problem.New(problem.NotFound, "there is no guard with this instance; GET /v1/fleet lists them")
	}
	pos, err := s.Ledger.Out(ctx, ledger.OutOrder{Name: g.Name, Instance: instance, By: wire.ByOperator, Actor: who.Actor, Reason: reason})
	if err != nil {
		return pos, problem.Wrap(problem.Unavailable, err, "it may or may not be committed; repeat it, once more does no harm")
	}
	return pos, s.Ledger.WaitApplied(ctx, pos.Stamp)
}
