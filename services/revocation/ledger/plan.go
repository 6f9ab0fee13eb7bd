package ledger

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/problem"
)

// Bounds of a request beside those of the targets.
const (
	maxReason = 1024 // bytes
	maxActor  = revoke.MaxID
	maxFor    = wire.MaxCredentialLife
)

// plan is a checked request on its way into the log.
type plan struct {
	id      string // 43 characters: hash of tenant, service and idempotency key
	service string
	req     commit.Request
	targets []revoke.Target // without repetitions
	keys    []revoke.Key    // of targets, in their order
	digest  string
}

// Check checks a request, and tells by which id its entry will be asked for and by which
// digest a repetition of it is known.
func Check(r commit.Request, service string) (id, digest string, err error) {
	p, err := planOf(r, service)
	return p.id, p.digest, err
}

// planOf checks a request and names what is wrong with it.
func planOf(r commit.Request, service string) (plan, error) {
	p := plan{service: service, req: r}
	if err := revoke.CheckID("idempotency key", r.Key); err != nil {
		return p, problem.FieldError("idempotency_key", "%s", err)
	}
	if err := revoke.CheckName("tenant", r.Tenant); err != nil {
		return p, problem.FieldError("tenant", "%s", err)
	}
	if r.Op != commit.Revoke && r.Op != commit.Hold && r.Op != commit.Release {
		return p, problem.FieldError("op", "%.40q: want revoke, hold or release", string(r.Op))
	}
	if err := checkText("reason", r.Reason, maxReason); err != nil {
		return p, err
	}
	if err := commit.CheckCode(r.Code); err != nil {
		return p, problem.FieldError("code", "%s", err)
	}
	if err := checkText("actor", r.Actor, maxActor); err != nil {
		return p, err
	}
	if err := checkNames(r); err != nil {
		return p, err
	}
	if err := CheckEnd(r); err != nil {
		return p, err
	}
	if r.Of != "" && r.Op != commit.Release {
		return p, problem.FieldError("of", "only a release is of a hold")
	}
	if r.Own && (r.Op != commit.Release || r.Of != "" || len(r.Targets) != 1) {
		return p, problem.FieldError("own", "only a release of one target, and of no other hold, is of the holds of whoever asks")
	}
	if len(r.Targets) == 0 || len(r.Targets) > wire.MaxTargets {
		return p, problem.FieldError("targets", "%d targets: want 1 to %d", len(r.Targets), wire.MaxTargets)
	}
	seen := make(map[revoke.Key]bool, len(r.Targets))
	for i, t := range r.Targets {
		target, err := revoke.NewTarget(r.Tenant, t.Issuer, t.Kind, t.ID)
		if err != nil {
			return p, problem.FieldError(fmt.Sprintf("targets[%d]", i), "%s", err)
		}
		k := target.Key()
		if !seen[k] {
			seen[k] = true
			p.targets, p.keys = append(p.targets, target), append(p.keys, k)
		}
	}
	p.id = hashOf("entry", r.Tenant, service, r.Key)
	p.digest = p.digestOf()
	return p, nil
}

// checkNames checks what a request names for the audit alone.
func checkNames(r commit.Request) error {
	if r.Incident != "" {
		if err := commit.CheckIncident(r.Incident); err != nil {
			return problem.FieldError("incident", "%s", err)
		}
	}
	if err := commit.CheckRequestID(r.RequestID); err != nil {
		return problem.FieldError("request_id", "%s", err)
	}
	return nil
}

func checkText(field, text string, limit int) error {
	switch {
	case text == "":
		return problem.FieldError(field, "is missing")
	case len(text) > limit:
		return problem.FieldError(field, "has %d bytes: %d at most", len(text), limit)
	case !utf8.ValidString(text):
		return problem.FieldError(field, "is not valid UTF-8")
	}
	return nil
}

// CheckEnd checks what a request says of the end of a hold.
func CheckEnd(r commit.Request) error {
	switch {
	case r.ForMS != 0 && r.Op != commit.Hold:
		return problem.FieldError("for", "only a hold has an end; a revocation is final")
	case r.ForMS < 0 || r.ForMS > maxFor.Milliseconds():
		return problem.FieldError("for", "want up to %s", maxFor)
	case r.Then != "" && r.ForMS == 0:
		return problem.FieldError("then", "needs the end of the hold, for")
	case r.Then != "" && r.Then != wire.ThenRelease && r.Then != wire.ThenRevoke:
		return problem.FieldError("then", "%.40q: want release or revoke", r.Then)
	}
	return nil
}

// digestOf is what a repetition is compared by: all that the entry does. Who
// asked is told by the id, and the person is not part of what was asked.
func (p *plan) digestOf() string {
	keys := slices.Clone(p.keys)
	slices.SortFunc(keys, func(a, b revoke.Key) int { return bytes.Compare(a[:], b[:]) })
	var all []byte
	for _, k := range keys {
		all = append(all, k[:]...)
	}
	parts := []string{"request", string(p.req.Op), string(all), p.req.Reason, fmt.Sprint(p.req.ForMS), p.req.Then, fmt.Sprint(p.req.Record)}
	if p.req.Code != "" { // without one the digest is what it was before there were any
		parts = append(parts, p.req.Code)
	}
	if p.req.Of != "" {
		parts = append(parts, "of", p.req.Of)
	}
	if p.req.Own {
		parts = append(parts, "own")
	}
	return hashOf(parts...)
}

// hashOf returns 43 characters of base64url: SHA-256 over the parts, each with
// its length before it.
func hashOf(parts ...string) string {
	var b []byte
	for _, s := range parts {
		b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
		b = append(b, s...)
	}
	sum := sha256.Sum256(b)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// message returns the wire part, without its epoch; releases are added by resolve.
func (p *plan) message(id string, now time.Time, foreign map[string]time.Duration) wire.Message {
	m := wire.Message{Kind: wire.KindEntry, ID: id, At: now.UnixMilli(), Until: p.until(now, foreign)}
	switch p.req.Op {
	case commit.Revoke:
		for i, t := range p.targets {
			if t.Kind.Final() {
				m.End = append(m.End, p.keys[i])
			} else {
				m.Cut = append(m.Cut, p.keys[i])
			}
		}
	case commit.Hold:
		m.Hold = p.keys
		if p.req.ForMS != 0 {
			m.HoldEnd = m.At + p.req.ForMS
			m.Then = p.req.Then
			if m.Then == "" {
				m.Then = wire.ThenRelease
			}
		}
	}
	return m
}

// until returns the Unix seconds after which nothing lives that the entry can
// hit ("Everything ends" in the design).
func (p *plan) until(now time.Time, foreign map[string]time.Duration) int64 {
	var life time.Duration
	for _, t := range p.targets {
		life = max(life, lifeOf(t, p.req.Record, foreign))
	}
	return now.Add(life+releaseMore(string(p.req.Op))).Unix() + 1
}

// releaseMore is what a release lives longer than a hold: it outlives every copy
// of the hold, also one that is committed again just now by a replica that has
// not seen the release.
func releaseMore(op string) time.Duration {
	if op == wire.OpRelease {
		return 24 * time.Hour
	}
	return 0
}

// longestLife is that of an entry about something of which no more is known.
const longestLife = wire.MaxCredentialLife + wire.MaxTokenLife + wire.Slack

// lifeOf is the longest life of what a target can hit, clocks included.
func lifeOf(t revoke.Target, record bool, foreign map[string]time.Duration) time.Duration {
	if t.Issuer != revoke.Own {
		if life, ok := foreign[t.Issuer]; ok {
			return life + wire.Slack
		}
		return longestLife
	}
	// Of a record that is dead by itself only tokens are left; of a token nothing else.
	if record || t.Kind == revoke.KindToken {
		return wire.MaxTokenLife + wire.Slack
	}
	return longestLife
}

// ttlOf is how long the broker keeps the message: until + slack, an hour at least.
func ttlOf(until int64, now time.Time) time.Duration {
	left := time.Unix(until, 0).Sub(now) + wire.Slack
	return max(left.Truncate(time.Second), leastLife)
}

// Event is the body of a message in the log: a CloudEvent, for those with
// rights to the stream.
type Event struct {
	SpecVersion     string    `json:"specversion"`
	ID              string    `json:"id"`
	Source          string    `json:"source"`
	Type            string    `json:"type"`
	Time            string    `json:"time"`
	DataContentType string    `json:"datacontenttype"`
	Data            EventData `json:"data"`
}

// EventData is what happened, to what, by whom and why.
type EventData struct {
	Op      string        `json:"op"`
	Tenant  string        `json:"tenant,omitempty"`
	Service string        `json:"service"`
	Actor   string        `json:"actor"`
	Reason  string        `json:"reason"`
	Code    string        `json:"code,omitempty"` // the reason in a word
	Targets []EventTarget `json:"targets,omitempty"`
	// TargetKeys stand in place of Targets where the ids are not known any more.
	TargetKeys []revoke.Key `json:"target_keys,omitempty"`
	ForMS      int64        `json:"for_ms,omitempty"`
	Then       string       `json:"then,omitempty"`
	Record     bool         `json:"record,omitempty"`
	Name       string       `json:"name,omitempty"`
	Instance   string       `json:"instance,omitempty"`
	KeyID      string       `json:"kid,omitempty"`
	Digest     string       `json:"digest,omitempty"` // of the request, to tell a repetition
	Entry      string       `json:"entry,omitempty"`  // the id under which the entry is asked for
	Incident   string       `json:"incident,omitempty"`
	Request    string       `json:"request,omitempty"`     // the id of the request that led to it
	ApprovedBy string       `json:"approved_by,omitempty"` // the second person, where there was one
	BreakGlass bool         `json:"break_glass,omitempty"` // no second person, or no token, was waited for
}

// Canary reports whether it is about a canary alone, which is of nobody.
func (d *EventData) Canary() bool {
	return len(d.Targets) == 1 && len(d.TargetKeys) == 0 && commit.IsCanary(d.Service, commit.Op(d.Op), []commit.Target{commit.Target(d.Targets[0])})
}

// EventTarget is a target as a person reads it.
type EventTarget struct {
	Issuer string      `json:"issuer"`
	Kind   revoke.Kind `json:"kind"`
	ID     string      `json:"id"`
}

// Source and the types of the events.
const (
	EventSource = "/quash/revocation"
	EventPrefix = "dev.quash.log."
)

func newEvent(m wire.Message, at time.Time, d EventData) ([]byte, error) {
	return json.Marshal(Event{
		SpecVersion: "1.0", ID: m.ID, Source: EventSource, Type: EventPrefix + m.Kind,
		Time: at.UTC().Format("2006-01-02T15:04:05.000Z07:00"), DataContentType: "application/json", Data: d,
	})
}

func (p *plan) event(m wire.Message, now time.Time) ([]byte, error) {
	d := EventData{
		Op: string(p.req.Op), Tenant: p.req.Tenant, Service: p.service, Actor: p.req.Actor, Reason: p.req.Reason, Code: p.req.Code,
		ForMS: p.req.ForMS, Then: m.Then, Record: p.req.Record, Digest: p.digest, Entry: p.id,
		Incident: p.req.Incident, Request: p.req.RequestID,
		ApprovedBy: p.req.ApprovedBy, BreakGlass: p.req.BreakGlass,
		Targets: make([]EventTarget, len(p.targets)),
	}
	for i, t := range p.targets {
		d.Targets[i] = EventTarget{Issuer: t.Issuer, Kind: t.Kind, ID: t.ID}
	}
	return newEvent(m, now, d)
}
