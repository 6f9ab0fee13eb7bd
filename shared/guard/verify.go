package guard

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/quash-project/quash/shared/guard/keyform"
	"github.com/quash-project/quash/shared/guard/keys"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/token"
)

// verified is a token whose signature was proved. All of it follows from the
// token's text and its issuer's configuration, so it can be kept; whatever can
// change is asked anew for each request.
type verified struct {
	Claims
	issuer  *issuer
	key     *keys.Key
	targets []revoke.Key // those of own ids first, in the order of ids, then via
	ids     []Target
	expires int64 // Unix seconds
	issued  int64
	notYet  int64 // nbf; 0: none

	seenIn atomic.Int64 // the hour in which it was accepted last; see seen.Memory
}

// fault is a check that failed.
type fault struct {
	outcome Outcome
	status  int
	code    string
	check   string
	reason  string
	retry   time.Duration // of Unavailable; 0: a second
}

// bad is a fault of the token; the reason may hold nothing of its text but ids
// that a person needs to find out.
func bad(check, reason string) *fault {
	return &fault{Deny, http.StatusUnauthorized, ErrorInvalidToken, check, reason, 0}
}

// unable is a fault of the guard.
func unable(check, reason string) *fault {
	return &fault{Unavailable, http.StatusServiceUnavailable, "", check, reason, 0}
}

func (f *fault) decision() Decision {
	d := Decision{Outcome: f.outcome, Status: f.status, Error: f.code, Check: f.check, Reason: f.reason}
	if f.outcome == Unavailable {
		d.RetryAfter = max(f.retry, time.Second)
	}
	return d
}

// verify decodes a token and proves its signature.
func (g *Guard) verify(ctx context.Context, text string, now time.Time) (*verified, *fault) {
	t, err := token.Decode(text)
	if err != nil {
		return nil, misformed(text, err)
	}
	iss, f := g.issuerOf(t)
	if f != nil {
		return nil, f
	}
	v, f := iss.claims(t, now)
	if f != nil {
		return nil, f
	}
	if v.key, f = g.keyOf(ctx, iss, t); f != nil {
		return nil, f
	}
	return v, signature(v.key, t)
}

// misformed says what is wrong with a text that is no token.
func misformed(text string, err error) *fault {
	if kind, e := keyform.Parse(text); e == nil {
		return bad(CheckForm, "a secret of the kind "+kind.String()+" was sent where an access token belongs: exchange an API key for one at the issuer")
	}
	return bad(CheckForm, err.Error())
}

func (g *Guard) issuerOf(t *token.Token) (*issuer, *fault) {
	iss := g.issuers[t.Issuer]
	for i := 0; iss == nil && i < len(g.order); i++ {
		of := g.order[i].tenants
		if of == nil {
			continue
		}
		var below bool
		if iss, below = of.issuer(t.Issuer); below && iss == nil {
			// The tenant may stand in that part of the log that was not read yet.
			if f := g.behind(); f != nil {
				return nil, f
			}
		}
	}
	if iss == nil {
		return nil, bad(CheckIssuer, "the token's issuer is not one whose tokens are taken here")
	}
	return iss, nil
}

func (g *Guard) keyOf(ctx context.Context, iss *issuer, t *token.Token) (*keys.Key, *fault) {
	k, err := iss.lookup(ctx, t.KeyID)
	switch {
	case err == nil:
		return k, nil
	case errors.Is(err, keys.ErrUnavailable):
		return nil, unable(CheckKey, err.Error())
	}
	if iss.set != nil {
		// The key may stand in that part of the log that was not read yet. Past
		// that, no token is signed before its key is known here (promise 7).
		if f := g.behind(); f != nil {
			return nil, f
		}
	}
	return nil, bad(CheckKey, "the token is signed with a key that its issuer does not have")
}

// behind says why something that is not in the view may be there all the same.
func (g *Guard) behind() *fault {
	r := g.Reader()
	if r == nil {
		return unable(CheckView, "the guard is not running")
	}
	staleness, err := r.Check()
	if err != nil {
		return unable(CheckView, err.Error())
	}
	if staleness > g.opts.limit {
		return unable(CheckView, g.staleReason(staleness, g.opts.limit))
	}
	return nil
}

func signature(k *keys.Key, t *token.Token) *fault {
	if err := k.Verify(t.Alg, t.Signed, t.Signature); err != nil {
		if errors.Is(err, keys.ErrAlgorithm) {
			return bad(CheckKey, "the token is signed with an algorithm that its key is not for")
		}
		return bad(CheckSignature, "the signature is wrong")
	}
	return nil
}

// claims checks what tokens of this issuer must have, and derives the targets.
func (iss *issuer) claims(t *token.Token, now time.Time) (*verified, *fault) {
	if !slices.Contains(iss.Types, t.Type) {
		return nil, bad(CheckClaims, "the header typ is not that of an access token")
	}
	if !slices.Contains(iss.Algs, t.Alg) {
		return nil, bad(CheckClaims, "the signature algorithm is not one that is taken")
	}
	if t.Confirmation {
		return nil, bad(CheckClaims, "the token is bound to a key of its holder (cnf), which this guard can't check")
	}
	if missing := iss.missing(t); missing != "" {
		return nil, bad(CheckClaims, "the claim "+missing+" is missing")
	}
	if life := t.Expires - t.IssuedAt; life <= 0 || life > int64(iss.MaxLife/time.Second) {
		return nil, bad(CheckClaims, fmt.Sprintf("the token's life, exp - iat, is not between 0 and %s", iss.MaxLife))
	}
	if iss.Own() && t.Tenant != iss.Tenant {
		return nil, bad(CheckClaims, "the token is of another tenant than its issuer")
	}
	v := iss.verified(t)
	if err := v.addTargets(); err != nil {
		return nil, bad(CheckClaims, "an id in the token can't be revoked: "+err.Error())
	}
	v.Claims.verified = v
	return v, nil
}

// missing returns the first claim that must be there and is not.
func (iss *issuer) missing(t *token.Token) string {
	for _, c := range [...]struct {
		name    string
		there   bool
		foreign bool
	}{
		{"sub", t.Subject != "", true},
		{"aud", len(t.Audience) > 0, true},
		{"exp", t.HasExpires, true},
		{"iat", t.HasIssuedAt, true},
		{"jti", t.ID != "", false},
		{"client_id", t.ClientID != "", false},
		{"tenant", t.Tenant != "", false},
		{"rseq", t.HasStamp, false},
		{"via", t.HasVia, false},
	} {
		if !c.there && (c.foreign || iss.Own()) {
			return c.name
		}
	}
	return ""
}

func (iss *issuer) verified(t *token.Token) *verified {
	v := &verified{
		issuer: iss, expires: t.Expires, issued: t.IssuedAt, notYet: t.NotBefore,
		Claims: Claims{
			Issuer: t.Issuer, IssuerName: iss.name, Tenant: iss.Tenant, Subject: t.Subject, ClientID: t.ClientID,
			ID: t.ID, SessionID: t.SessionID, KeyID: t.KeyID, Audience: t.Audience, Scopes: t.Scopes, Roles: t.Roles,
			IssuedAt: time.Unix(t.IssuedAt, 0).UTC(), Expires: time.Unix(t.Expires, 0).UTC(), Raw: t.Raw,
		},
	}
	if t.HasNotBefore {
		v.NotBefore = time.Unix(t.NotBefore, 0).UTC()
	}
	if iss.Own() {
		v.Stamp, v.Via = t.Stamp, t.Via
	} else if v.ClientID == "" {
		v.ClientID = t.AuthorizedParty
	}
	return v
}

// addTargets lists everything whose revocation refuses the token.
func (v *verified) addTargets() error {
	v.ids = make([]Target, 0, 9)
	add := func(kind revoke.Kind, id string) error {
		t, err := revoke.NewTarget(v.Tenant, v.IssuerName, kind, id)
		if err == nil {
			v.ids = append(v.ids, Target{Kind: kind, ID: id, Key: t.Key()})
		}
		return err
	}
	errs := [...]error{
		optional(add, revoke.KindToken, v.ID),
		optional(add, revoke.KindSession, v.SessionID),
		add(revoke.KindPrincipal, v.Subject),
		optional(add, revoke.KindClient, v.ClientID),
		add(revoke.KindSigningKey, v.KeyID),
		nil, nil,
	}
	if v.SessionID != "" {
		errs[5] = add(revoke.KindSignIns, v.Subject)
	}
	if v.ClientID != "" {
		errs[6] = add(revoke.KindGrant, revoke.PairID(v.Subject, v.ClientID))
	}
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	v.ids = append(v.ids,
		Target{Kind: revoke.KindTenant, ID: v.Tenant, Key: v.issuer.tenantKey},
		Target{Kind: revoke.KindIssuer, ID: v.IssuerName, Key: v.issuer.selfKey})
	v.targets = make([]revoke.Key, 0, len(v.ids)+len(v.Via))
	for _, t := range v.ids {
		v.targets = append(v.targets, t.Key)
	}
	v.targets = append(v.targets, v.Via...)
	return nil
}

func optional(add func(revoke.Kind, string) error, kind revoke.Kind, id string) error {
	if id == "" {
		return nil
	}
	return add(kind, id)
}

// target returns what stands at a place in targets.
func (v *verified) target(i int) Target {
	if i < len(v.ids) {
		return v.ids[i]
	}
	return Target{Key: v.targets[i]}
}

// hit returns the place of the first target that hits in this view, -1 for none.
func (v *verified) hit(view *revoke.View) int {
	if v.issuer.Own() {
		if i, hit := view.HitAny(v.targets, v.Stamp); hit {
			return i
		}
		return -1
	}
	issued, skew := v.issued*1000, v.issuer.Skew.Milliseconds()
	for i := range v.targets {
		if view.HitAt(v.targets[i], issued, skew) {
			return i
		}
	}
	return -1
}

// timely checks the clock's part. A token of a clock far ahead would escape cuts
// by iat, so a foreign one from the future is refused.
func (v *verified) timely(now time.Time) *fault {
	n, skew := now.Unix(), int64(v.issuer.Skew/time.Second)
	switch {
	case n >= v.expires:
		return bad(CheckTime, "the token has expired")
	case v.notYet > n+skew:
		return bad(CheckTime, "the token is not good yet (nbf)")
	case !v.issuer.Own() && v.issued > n+skew:
		return bad(CheckTime, "the token comes from the future: its issuer's clock, or this one's, is wrong")
	}
	return nil
}

// keyed checks that the key may be used now.
func (v *verified) keyed(k *keys.Key, now time.Time) *fault {
	if err := k.Usable(now); err != nil {
		return bad(CheckKey, "the token's signing key can't be used: "+err.Error())
	}
	return nil
}

func (v *verified) meant(req *Requirement) *fault {
	if req.AnyAudience {
		return nil
	}
	want := req.Audience
	if len(want) == 0 {
		want = v.issuer.Audience
	}
	if !v.HasAudience(want...) {
		return bad(CheckAudience, "the token is not meant for this resource")
	}
	return nil
}

// may checks what the token gives, in the order of the checks.
func (v *verified) may(req *Requirement) *fault {
	scopes := words{list: req.Scopes}
	if f := scopes.check(&v.Claims, nil); f != nil {
		return f
	}
	var f *fault
	if req.Where != nil {
		f = req.Where.check(&v.Claims, req.Request)
	}
	if len(req.AnyRole) > 0 && (f == nil || f.check != CheckScope) {
		roles := words{role: true, any: true, list: req.AnyRole}
		if lacks := roles.check(&v.Claims, nil); lacks != nil {
			f = lacks
		}
	}
	return f
}
