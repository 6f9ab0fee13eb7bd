package rotator

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/signing"
)

// Policy is how long things last.
type Policy struct {
	// Lead is how long a key is published before it signs: those who read the
	// JWKS URL keep its answer for 5 minutes.
	Lead time.Duration
	// KeyLife is how long a key signs before it is rotated by itself.
	KeyLife time.Duration
	// TokenLife is the longest life of a token.
	TokenLife time.Duration
	// Alg is what keys are made with unless a request says otherwise.
	Alg string
}

// Defaults of a Policy.
const (
	DefaultLead    = 6 * time.Minute // max-age of the JWKS, and one minute for the way
	DefaultKeyLife = 90 * 24 * time.Hour
)

// maxKept is how many keys that are gone stay in the record, for people to see.
const maxKept = 20

// Validate tells what can't be meant, all at once.
func (p Policy) Validate() error {
	var errs []error
	if p.Lead < 0 {
		errs = append(errs, fmt.Errorf("lead %s: want 0 or more", p.Lead))
	}
	if p.TokenLife <= 0 || p.TokenLife > wire.MaxTokenLife {
		errs = append(errs, fmt.Errorf("token_life %s: want more than 0 and at most %s", p.TokenLife, wire.MaxTokenLife))
	}
	if p.KeyLife < 10*(p.TokenLife+p.Lead) || p.birthToEnd() > wire.MaxCredentialLife {
		errs = append(errs, fmt.Errorf("key_life %s: want at least ten times token_life and lead, and at most %s",
			p.KeyLife, (wire.MaxCredentialLife-p.TokenLife-wire.Slack)/2))
	}
	if err := signing.CheckAlg(p.Alg); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// birthToEnd is the whole life of a key: it is the next one for as long as its
// predecessor signs, then signs as long itself, then its last token lives on.
func (p Policy) birthToEnd() time.Duration { return 2*p.KeyLife + p.TokenLife + wire.Slack }

// rotateAt is when a key that signs is rotated by itself: well before the
// issuers stop using it, which is one token life before its end.
func (p Policy) rotateAt(k *signing.Key) time.Time {
	at := time.UnixMilli(k.SigningAt).Add(p.KeyLife)
	latest := k.EndTime().Add(-p.TokenLife - wire.Slack - p.Lead - p.KeyLife/20)
	if latest.Before(at) {
		return latest
	}
	return at
}

// goneAt is when the last token of a retiring key has expired: an issuer that
// has not seen that another key signs answers 503 past its limit.
func (p Policy) goneAt(k *signing.Key) time.Time {
	return time.UnixMilli(k.Sent.At).Add(wire.MaxLimit + p.TokenLife + wire.Slack)
}

// Facts are what the machine is told beside the record.
type Facts struct {
	Now   time.Time
	Epoch uint64                // the newest history of the log that is known, 0 for none
	Ended func(kid string) bool // whether the log has the key's target ended
	Open  []Rotation            // of this tenant, not finished
}

// Action is what a Step does.
type Action uint8

// The actions.
const (
	nothing Action = iota
	Begin          // create the rotation Request, which nobody asked for
	Make           // make a key with Alg
	Send           // commit the message that says State of KeyID
	End            // commit the entry that ends the target of KeyID
	Delay          // note in Rotation that it waits until Until
	Promote        // let KeyID sign, for Rotation
	Finish         // note in Rotation that issuers sign with KeyID
	Move           // put KeyID into State
	Forget         // remove KeyID from the record
)

var actionNames = [...]string{"nothing", "begin", "make", "send", "end", "delay", "promote", "finish", "move", "forget"}

func (a Action) String() string { return actionNames[a] }

// Step is one thing to do. Each can be done twice, and by two replicas at once.
type Step struct {
	Action   Action
	KeyID    string
	State    string
	Alg      string
	Until    time.Time
	Confirm  bool // of Promote: only if every guard has the key
	Rotation Rotation
	Request  Request
}

// Todo returns what is to be done now, most urgent first, and when to ask again
// if nothing else happens. It is a pure function.
func (p Policy) Todo(set *signing.Set, f Facts) (steps []Step, again time.Time) {
	again = f.Now.Add(time.Hour)
	if steps = p.messages(set, f); len(steps) > 0 {
		// What has been decided is told before anything else is decided.
		return steps, again
	}
	at := func(t time.Time) bool { // due, or remembered
		if t.After(f.Now) {
			if t.Before(again) {
				again = t
			}
			return false
		}
		return true
	}
	steps = append(steps, p.ended(set, f)...)
	steps = append(steps, p.rotate(set, f, at)...)
	steps = append(steps, p.maintain(set, f, at)...)
	for _, r := range f.Open {
		if k := decided(set, &r); k != nil {
			steps = append(steps, Step{Action: Finish, KeyID: k.ID, Rotation: r})
		}
	}
	return steps, again
}

// messages are the decisions that the log has not been told. The order matters:
// the new key signs before the old one is taken away, so that no issuer is ever
// without; and the entry that ends a key comes before the message, because the
// entry is what every reader refuses by.
func (p Policy) messages(set *signing.Set, f Facts) (steps []Step) {
	untold := func(states ...string) {
		for _, state := range states {
			for i := range set.Keys {
				k := &set.Keys[i]
				switch {
				case k.State != state || k.EndTime().Before(f.Now):
				case state == signing.Revoked && k.EndedBy == nil:
					steps = append(steps, Step{Action: End, KeyID: k.ID})
				case state == signing.Planned:
					steps = append(steps, Step{Action: Send, KeyID: k.ID, State: signing.Published})
				case !k.Told():
					steps = append(steps, Step{Action: Send, KeyID: k.ID, State: state})
				case state != signing.Gone && k.Sent.Epoch < f.Epoch:
					// A new history of the log: it may lack what the old one had.
					steps = append(steps, Step{Action: Send, KeyID: k.ID, State: state})
				}
			}
		}
	}
	untold(signing.Signing, signing.Revoked, signing.Retiring, signing.Published, signing.Planned, signing.Gone)
	return steps
}

// ended draws the consequence when somebody has revoked a key that does not
// sign by its target; for the one that does see maintain.
func (p Policy) ended(set *signing.Set, f Facts) (steps []Step) {
	for i := range set.Keys {
		k := &set.Keys[i]
		if (k.State == signing.Published || k.State == signing.Retiring) && f.Ended(k.ID) {
			steps = append(steps, Step{Action: Move, KeyID: k.ID, State: signing.Revoked})
		}
	}
	return steps
}

// rotate works on the most urgent rotation that is not decided yet.
func (p Policy) rotate(set *signing.Set, f Facts, at func(time.Time) bool) []Step {
	r := undecided(set, f.Open)
	if r == nil {
		return nil
	}
	alg := p.alg(set)
	if r.Alg != "" {
		alg = r.Alg
	}
	next := p.next(set, f, alg)
	if next == nil {
		return p.replace(set, alg)
	}
	lead := time.UnixMilli(next.PublishedAt).Add(p.Lead)
	if !r.Emergency && !first(set) && !at(lead) {
		return []Step{{Action: Delay, Rotation: *r, Until: lead}}
	}
	return []Step{{Action: Promote, KeyID: next.ID, Rotation: *r, Confirm: !r.Emergency}}
}

// maintain keeps one key signing and one next to it, and clears away the old.
func (p Policy) maintain(set *signing.Set, f Facts, at func(time.Time) bool) (steps []Step) {
	begin := func(key, replaces, reason string, emergency bool) {
		steps = append(steps, Step{Action: Begin, Request: Request{
			Key: key, Tenant: set.Tenant, Actor: automatic, Kind: KindSigningKey, Reason: reason, Emergency: emergency,
			replaces: replaces,
		}})
	}
	open := undecided(set, f.Open)
	switch k := set.In(signing.Signing); {
	case k == nil && open == nil:
		begin(firstKey(set), noKey, "there is no key that signs", false)
	case k == nil:
	case f.Ended(k.ID) && (open == nil || !open.Emergency):
		begin("ended-"+k.ID, k.ID, "the target of the key that signs was revoked", true)
	case open == nil && at(p.rotateAt(k)):
		begin("old-"+k.ID, k.ID, "the key that signs has reached its age", false)
	}
	if open == nil && p.next(set, f, p.alg(set)) == nil && set.In(signing.Signing) != nil {
		steps = append(steps, p.replace(set, p.alg(set))...)
	}
	kept := 0
	for i := len(set.Keys) - 1; i >= 0; i-- {
		k := &set.Keys[i]
		switch {
		case k.State == signing.Retiring && at(p.goneAt(k)):
			steps = append(steps, Step{Action: Move, KeyID: k.ID, State: signing.Gone})
		case waitedFor(f.Open, k):
			// Forgotten now, a rotation would look undecided.
		case k.State != signing.Signing && k.EndTime().Add(wire.Slack).Before(f.Now):
			steps = append(steps, Step{Action: Forget, KeyID: k.ID})
		case k.State == signing.Gone:
			if kept++; kept > maxKept {
				steps = append(steps, Step{Action: Forget, KeyID: k.ID})
			}
		}
	}
	return steps
}

// firstKey is the idempotency key of a tenant's first rotation.
func firstKey(set *signing.Set) string {
	if set.CreatedAt == 0 {
		return fmt.Sprintf("first-%d", set.Born)
	}
	return fmt.Sprintf("first-%d-%d", set.CreatedAt, set.Born)
}

// next returns the key that can sign next, nil if one has to be made.
func (p Policy) next(set *signing.Set, f Facts, alg string) *signing.Key {
	k := set.In(signing.Published)
	if k == nil || k.Alg != alg || f.Ended(k.ID) || k.EndTime().Add(-p.TokenLife-wire.Slack-p.KeyLife/10).Before(f.Now) {
		return nil
	}
	return k
}

// replace makes a next key; one that is published and can't be used never
// signed, so it is gone at once.
func (p Policy) replace(set *signing.Set, alg string) (steps []Step) {
	if k := set.In(signing.Published); k != nil {
		return []Step{{Action: Move, KeyID: k.ID, State: signing.Gone}}
	}
	return []Step{{Action: Make, Alg: alg}}
}

func (p Policy) alg(set *signing.Set) string {
	if set.Alg != "" {
		return set.Alg
	}
	return p.Alg
}

// undecided returns the most urgent rotation of which it is not decided which key signs.
func undecided(set *signing.Set, open []Rotation) *Rotation {
	for i := range open {
		if decided(set, &open[i]) == nil {
			return &open[i]
		}
	}
	return nil
}

// decided returns the key that signs by a rotation: the one that was promoted for it or, if
// what it was to replace has been replaced otherwise, the one that signs now. A set that was
// read too early shows neither.
func decided(set *signing.Set, r *Rotation) *signing.Key {
	for i := range set.Keys {
		if set.Keys[i].Rotation == r.ID {
			return &set.Keys[i]
		}
	}
	switch replaced := set.Find(r.Replaces); {
	case r.Replaces == noKey, replaced != nil && replaced.StoppedAt != 0:
		return set.In(signing.Signing)
	}
	return nil
}

// first reports whether no key has ever signed: then there is nobody to be
// prepared, and nothing to wait for.
func first(set *signing.Set) bool {
	for i := range set.Keys {
		if set.Keys[i].SigningAt != 0 {
			return false
		}
	}
	return true
}

func waitedFor(open []Rotation, k *signing.Key) bool {
	return slices.ContainsFunc(open, func(r Rotation) bool { return r.ID == k.Rotation || r.Replaces == k.ID })
}
