package httpapi

import (
	"context"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/quash-project/quash/services/issuer"
	"github.com/quash-project/quash/shared/apikey"
	"github.com/quash-project/quash/shared/guard/peer"
	"github.com/quash-project/quash/shared/guard/revoke"
	frame "github.com/quash-project/quash/shared/httpapi"
	"github.com/quash-project/quash/shared/problem"
	"github.com/quash-project/quash/shared/rights"
)

// Key is an API key or client secret, as it is shown.
type Key struct {
	ID           string            `json:"id"`
	Kind         string            `json:"kind" enum:"key,secret"`
	Name         string            `json:"name,omitempty"`
	Labels       map[string]string `json:"labels,omitempty"`
	Owner        string            `json:"owner"`
	ClientID     string            `json:"client_id" doc:"client_id of its tokens: key_ and the id, if it has no client"`
	Scopes       []string          `json:"scopes"`
	Roles        []string          `json:"roles"`
	OwnerRoles   bool              `json:"owner_roles,omitempty" doc:"the roles bound to its owner count too"`
	Audiences    []string          `json:"audiences"`
	Networks     []string          `json:"networks,omitempty" doc:"from which it may be used; none: from everywhere"`
	RateLimit    int               `json:"rate_limit,omitempty" doc:"exchanges a minute, of each replica of the issuer"`
	Imported     bool              `json:"imported,omitempty" doc:"its secret is of another system, and was never known here"`
	State        string            `json:"state" enum:"active,expired,ending,held,revoked"`
	HitBy        []string          `json:"hit_by,omitempty" doc:"the targets by which it is revoked or held"`
	CreatedAt    frame.Time        `json:"created_at"`
	CreatedBy    string            `json:"created_by,omitempty"`
	ExpiresAt    frame.Time        `json:"expires_at"`
	LastUsedAt   *frame.Time       `json:"last_used_at,omitempty" doc:"to the minute, and some minutes late; missing: it was not used"`
	LastUsedFrom string            `json:"last_used_from,omitempty" doc:"the address from which it was used then"`
	WarnedAt     *frame.Time       `json:"warned_at,omitempty" doc:"when it was told last that its end is near"`
	Leaked       *Leak             `json:"leaked,omitempty" doc:"somebody has shown it who should not have it"`
	Previous     string            `json:"previous,omitempty" doc:"the key whose place it takes"`
	Rotation     *KeyRotation      `json:"rotation,omitempty" doc:"another key takes its place"`
	Recipient    string            `json:"recipient,omitempty" doc:"to whom the secret is sealed that takes the place of this one by a schedule, as age1…"`
	ChangedBy    string            `json:"changed_by"`
	ChangedAt    frame.Time        `json:"changed_at"`
	Reason       string            `json:"reason,omitempty"`
}

// Leak is where a key was first seen that should be secret.
type Leak struct {
	At    frame.Time `json:"at"`
	Where string     `json:"where"`
	From  string     `json:"from,omitempty" doc:"the address of who said so"`
}

// Tagged is what its ETag is of: a key that is used meanwhile is still the same.
func (k Key) Tagged() any {
	k.LastUsedAt, k.LastUsedFrom = nil, ""
	if k.Rotation != nil {
		r := *k.Rotation
		r.Uses, r.UsedAt, r.UsedFrom, r.UsedBy, r.NextUsedAt = 0, nil, "", "", nil
		k.Rotation = &r
	}
	return k
}

// NewKey is a key that was made: the only place where its secret stands.
type NewKey struct {
	Key
	Secret string `json:"secret" doc:"shown this once"`
}

func (h *handlers) key(k *issuer.Key) Key {
	out := Key{
		ID: k.ID, Kind: string(k.Kind), Name: k.Name, Labels: k.Labels, Owner: k.Owner, ClientID: k.ClientID(), Scopes: orEmpty(k.Scopes),
		Roles: []string{}, OwnerRoles: k.OwnerRoles, Audiences: orEmpty(k.Audiences), RateLimit: k.RateLimit, Imported: k.Imported, WarnedAt: timeOf(k.Warned),
		CreatedAt: frame.Time(k.Created), CreatedBy: k.Creator, ExpiresAt: frame.Time(k.Expires),
		ChangedBy: k.Meta.Actor, ChangedAt: frame.Time(k.Meta.At), Reason: k.Meta.Reason,
	}
	for _, r := range k.Roles {
		out.Roles = append(out.Roles, r.Name)
	}
	for _, n := range k.Networks {
		out.Networks = append(out.Networks, n.String())
	}
	use := h.s.UseOf(k)
	out.LastUsedAt, out.LastUsedFrom = timeOf(use.At), address(use.From)
	if l := k.Leak; l != nil {
		out.Leaked = &Leak{At: frame.Time(l.At), Where: l.Where, From: address(l.From)}
	}
	out.Previous, out.Rotation = k.Previous(), h.rotation(k)
	if k.Recipient != nil {
		out.Recipient = k.Recipient.Age
	}
	state, by := h.s.KeyStanding(k)
	out.State, out.HitBy = string(state), by
	return out
}

func timeOf(t time.Time) *frame.Time {
	if t.IsZero() {
		return nil
	}
	out := frame.Time(t)
	return &out
}

func address(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// networks reads those from which a key may be used.
func networks(texts []string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, text := range texts {
		n, err := peer.ParseNetwork(text)
		if err != nil {
			return nil, problem.FieldError("networks", "%v", err)
		}
		out = append(out, n)
	}
	return out, nil
}

// shownKey is key, as only wants it.
func (h *handlers) shownKey(k *issuer.Key) (Key, error) { return h.key(k), nil }

// newKey shows a key that was made.
func (h *handlers) newKey(k *issuer.Key, secret apikey.Text) (*newKeyOutput, error) {
	shown := h.key(k)
	tag, err := frame.Tag(shown)
	return &newKeyOutput{ETag: tag, Body: NewKey{shown, secret.Reveal()}}, err
}

// Made implements frame.Secretive.
func (o *newKeyOutput) Made() string {
	return revoke.Target{Kind: revoke.KindKey, ID: o.Body.ID}.String()
}

type createKeyInput struct {
	frame.Idempotent
	Body struct {
		Owner      string            `json:"owner" doc:"the principal for whom the key speaks"`
		ClientID   string            `json:"client_id,omitempty" doc:"the client to which the key belongs; none: it is a client of its own"`
		Name       string            `json:"name,omitempty" doc:"for people"`
		Labels     map[string]string `json:"labels,omitempty" doc:"to find it by: at most 20, of letters, digits and . _ / -, of 63 at most"`
		Scopes     []string          `json:"scopes,omitempty"`
		Roles      []string          `json:"roles,omitempty" doc:"by name"`
		OwnerRoles bool              `json:"owner_roles,omitempty" doc:"the roles bound to its owner count too"`
		Audiences  []string          `json:"audiences,omitempty" doc:"resources that tokens may be for; none: the default only"`
		Networks   []string          `json:"networks,omitempty" doc:"from which it may be used, as 192.0.2.0/24, 2001:db8::/32 or a single address; none: from everywhere"`
		RateLimit  int               `json:"rate_limit,omitempty" doc:"exchanges a minute, of each replica of the issuer; none: no limit"`
		ExpiresIn  string            `json:"expires_in,omitempty" doc:"as in 720h or 30d; 90 days by default and 400 at most, or less by policy"`
		Recipient  string            `json:"recipient,omitempty" maxLength:"200" doc:"an age X25519 recipient, age1…: to whom the secret is sealed that takes the place of this one by a schedule"`
		Reason     string            `json:"reason,omitempty" doc:"why, for the audit"`
	}
}

type (
	newKeyOutput struct {
		ETag string `header:"ETag" doc:"of the key as GET shows it"`
		Body NewKey
	}
	keyOutput = frame.Tagged[Key]
	keyInput  struct {
		frame.IfNoneMatch
		ID string `path:"id" maxLength:"100"`
	}
	endKeyInput struct {
		frame.Idempotent
		frame.IfMatch
		ID     string `path:"id" maxLength:"100"`
		Reason string `query:"reason" doc:"why, for the audit"`
	}
	reasonBody struct {
		Reason string `json:"reason" doc:"why, for the audit"`
	}
	renewKeyInput struct {
		frame.Idempotent
		frame.IfMatch
		ID   string `path:"id" maxLength:"100"`
		Body reasonBody
	}
	disableKeyInput struct {
		frame.Idempotent
		frame.IfMatch
		ID   string `path:"id" maxLength:"100"`
		Body reasonBody
	}
	listKeysInput struct {
		Page
		Owner         string   `query:"owner"`
		ClientID      string   `query:"client_id"`
		Kind          string   `query:"kind" enum:"key,secret,all" default:"key"`
		Label         []string `query:"label" maxItems:"20" doc:"name=value, several with commas: those that have all"`
		State         string   `query:"state" enum:"active,expired,ending,held,revoked"`
		ExpiresWithin string   `query:"expires_within" doc:"as in 168h or 7d: those whose end is no further away"`
		UnusedSince   string   `query:"unused_since" doc:"a time as 2026-01-31T00:00:00Z, or how long ago as 90d: those that were there then and were not used since"`
	}
	listKeysOutput struct{ Body frame.List[Key] }
)

func (h *handlers) keys(a *frame.API) {
	frame.Register(a, op("createKey", http.MethodPost, "/v1/keys", "Make an API key", "keys"), rights.KeysWrite, h.createKey)
	frame.Register(a, op("listKeys", http.MethodGet, "/v1/keys", "List API keys", "keys"), rights.KeysRead, h.listKeys)
	frame.Register(a, op("getKey", http.MethodGet, "/v1/keys/{id}", "Show an API key", "keys"), rights.KeysRead,
		func(ctx context.Context, in *keyInput) (*keyOutput, error) {
			k, err := h.in(ctx).Key(ctx, caller(ctx), in.ID)
			if err != nil {
				return nil, err
			}
			return frame.Show(in.IfNoneMatch, h.key(&k))
		})
	frame.Register(a, op("deleteKey", http.MethodDelete, "/v1/keys/{id}", "End an API key and every token that came from it", "keys"), rights.KeysWrite,
		func(ctx context.Context, in *endKeyInput) (*endedOutput, error) {
			why, err := reason(in.Reason)
			if err != nil {
				return nil, err
			}
			e, err := h.in(ctx).DeleteKey(ctx, caller(ctx), in.ID, why, only(in.IfMatch, h.shownKey))
			if err != nil {
				return nil, err
			}
			return &endedOutput{ended(e)}, nil
		})
	frame.Register(a, op("renewKey", http.MethodPost, "/v1/keys/{id}/renew", "Make a key count as new: what cut it so far does so no more", "keys"), rights.KeysWrite,
		func(ctx context.Context, in *renewKeyInput) (*keyOutput, error) {
			why, err := reason(in.Body.Reason)
			if err != nil {
				return nil, err
			}
			k, err := h.in(ctx).RenewKey(ctx, caller(ctx), in.ID, why, only(in.IfMatch, h.shownKey))
			if err != nil {
				return nil, err
			}
			return frame.TaggedOf(h.key(&k))
		})
	frame.Register(a, op("disableKey", http.MethodPost, "/v1/keys/{id}/disable", "Refuse a key and every token that came from it until it is enabled", "keys"), rights.KeysWrite,
		h.held((*issuer.Service).DisableKey))
	frame.Register(a, op("enableKey", http.MethodPost, "/v1/keys/{id}/enable", "Take a key again that was disabled; what somebody else holds stays held", "keys"), rights.KeysWrite,
		h.held((*issuer.Service).EnableKey))
	h.keyRotation(a)
	h.keyDelivery(a)
	h.keyImport(a)
	frame.Register(a, op("lookup", http.MethodPost, "/v1/lookups", "Tell what a pasted API key or client secret is", "keys"), rights.KeysRead, h.lookup)
}

func (h *handlers) createKey(ctx context.Context, in *createKeyInput) (*newKeyOutput, error) {
	why, err := reason(in.Body.Reason)
	if err != nil {
		return nil, err
	}
	d, err := life("expires_in", in.Body.ExpiresIn)
	if err != nil {
		return nil, err
	}
	from, err := networks(in.Body.Networks)
	if err != nil {
		return nil, err
	}
	k, secret, err := h.in(ctx).CreateKey(ctx, caller(ctx), issuer.NewKey{
		Owner: in.Body.Owner, Client: in.Body.ClientID, Name: in.Body.Name, Labels: in.Body.Labels, Scopes: in.Body.Scopes, Roles: in.Body.Roles,
		OwnerRoles: in.Body.OwnerRoles, Audiences: in.Body.Audiences, Networks: from, RateLimit: in.Body.RateLimit, Life: d, Recipient: in.Body.Recipient, Reason: why,
	})
	if err != nil {
		return nil, err
	}
	return h.newKey(&k, secret)
}

// held is the handler of what holds or releases a key.
func (h *handlers) held(do func(s *issuer.Service, ctx context.Context, c issuer.Caller, id, reason string, only ...issuer.If[issuer.Key]) (issuer.Ended, error)) func(context.Context, *disableKeyInput) (*endedOutput, error) {
	return func(ctx context.Context, in *disableKeyInput) (*endedOutput, error) {
		why, err := reason(in.Body.Reason)
		if err != nil {
			return nil, err
		}
		e, err := do(h.in(ctx), ctx, caller(ctx), in.ID, why, only(in.IfMatch, h.shownKey))
		if err != nil {
			return nil, err
		}
		return &endedOutput{ended(e)}, nil
	}
}

// filter reads which keys are asked for.
func (in *listKeysInput) filter() (issuer.KeyFilter, error) {
	f := issuer.KeyFilter{Owner: in.Owner, Client: in.ClientID, Kind: issuer.KeyKind(in.Kind), State: issuer.State(in.State)}
	if in.Kind == "all" {
		f.Kind = ""
	}
	var err error
	if f.Labels, err = labels(in.Label); err != nil {
		return f, err
	}
	if f.ExpiresWithin, err = life("expires_within", in.ExpiresWithin); err != nil {
		return f, err
	}
	if at, noTime := time.Parse(time.RFC3339, in.UnusedSince); noTime == nil {
		f.UnusedSince = at
	} else if f.UnusedFor, err = life("unused_since", in.UnusedSince); err != nil {
		return f, problem.FieldError("unused_since", "want a time as 2026-01-31T00:00:00Z, or how long ago as 90d or 36h")
	}
	return f, nil
}

// labels reads those that a list is asked for.
func labels(texts []string) (map[string]string, error) {
	var out map[string]string
	for _, text := range texts {
		name, value, _ := strings.Cut(text, "=")
		if err := issuer.CheckLabel(name, value); err != nil {
			return nil, problem.FieldError("label", "%v", err)
		}
		if other, twice := out[name]; twice && other != value {
			return nil, problem.FieldError("label", "%s is wanted with two values: nothing has both", name)
		}
		if out == nil {
			out = map[string]string{}
		}
		out[name] = value
	}
	return out, nil
}

func (h *handlers) listKeys(ctx context.Context, in *listKeysInput) (*listKeysOutput, error) {
	f, err := in.filter()
	if err != nil {
		return nil, err
	}
	keys, err := h.in(ctx).Keys(ctx, caller(ctx), f)
	if err != nil {
		return nil, err
	}
	page, next, err := paginate(h, questionOf(ctx, "keys", f), keys, in.Page, func(k *issuer.Key) string { return sortable(k.Created, k.ID) })
	if err != nil {
		return nil, err
	}
	return &listKeysOutput{frame.ListOf(showAll(page, h.key), next)}, nil
}

// Found is what a pasted secret is.
type Found struct {
	Kind     string `json:"kind" enum:"key,secret,refresh"`
	ID       string `json:"id"`
	Target   string `json:"target" doc:"what to revoke"`
	Known    bool   `json:"known" doc:"there is a record of it"`
	Owner    string `json:"owner,omitempty"`
	ClientID string `json:"client_id,omitempty"`
	// Successors is told of a key that is gone too.
	Successors []string `json:"successors,omitempty" doc:"the keys that have taken its place, the newest last: whoever had this one may have made them"`
}

type (
	lookupInput struct {
		Body struct {
			Secret string `json:"secret" doc:"an API key or client secret"`
		}
	}
	lookupOutput struct{ Body Found }
)

func (h *handlers) lookup(ctx context.Context, in *lookupInput) (*lookupOutput, error) {
	f, err := h.in(ctx).Lookup(ctx, caller(ctx), in.Body.Secret)
	if err != nil {
		return nil, err
	}
	return &lookupOutput{Found{Kind: f.Kind, ID: f.ID, Target: f.Target, Known: f.Known, Owner: f.Owner, ClientID: f.Client, Successors: f.Successors}}, nil
}
