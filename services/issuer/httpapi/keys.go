package httpapi

import (
	"context"
	"net/http"

	"github.com/quash-project/quash/services/issuer"
	frame "github.com/quash-project/quash/shared/httpapi"
	"github.com/quash-project/quash/shared/rights"
)

// Key is an API key or client secret, as it is shown.
type Key struct {
	ID         string     `json:"id"`
	Kind       string     `json:"kind" enum:"key,secret"`
	Name       string     `json:"name,omitempty"`
	Owner      string     `json:"owner"`
	ClientID   string     `json:"client_id" doc:"client_id of its tokens: key_ and the id, if it has no client"`
	Scopes     []string   `json:"scopes"`
	Roles      []string   `json:"roles"`
	OwnerRoles bool       `json:"owner_roles,omitempty" doc:"the roles bound to its owner count too"`
	Audiences  []string   `json:"audiences"`
	State      string     `json:"state" enum:"active,expired,ending,held,revoked"`
	HitBy      []string   `json:"hit_by,omitempty" doc:"the targets by which it is revoked or held"`
	CreatedAt  frame.Time `json:"created_at"`
	ExpiresAt  frame.Time `json:"expires_at"`
	ChangedBy  string     `json:"changed_by"`
	ChangedAt  frame.Time `json:"changed_at"`
	Reason     string     `json:"reason,omitempty"`
}

// NewKey is a key that was made: the only place where its secret stands.
type NewKey struct {
	Key
	Secret string `json:"secret" doc:"shown this once"`
}

func (h *handlers) key(k *issuer.Key) Key {
	out := Key{
		ID: k.ID, Kind: string(k.Kind), Name: k.Name, Owner: k.Owner, ClientID: k.ClientID(), Scopes: orEmpty(k.Scopes),
		Roles: []string{}, OwnerRoles: k.OwnerRoles, Audiences: orEmpty(k.Audiences),
		CreatedAt: frame.Time(k.Created), ExpiresAt: frame.Time(k.Expires),
		ChangedBy: k.Meta.Actor, ChangedAt: frame.Time(k.Meta.At), Reason: k.Meta.Reason,
	}
	for _, r := range k.Roles {
		out.Roles = append(out.Roles, r.Name)
	}
	out.State, out.HitBy = h.state(k.Mark != nil, k.Expires, h.s.HitBy(k.Stamp, issuer.KeyTargets(k)...))
	return out
}

type createKeyInput struct {
	Body struct {
		Owner      string   `json:"owner" doc:"the principal for whom the key speaks"`
		ClientID   string   `json:"client_id,omitempty" doc:"the client to which the key belongs; none: it is a client of its own"`
		Name       string   `json:"name,omitempty" doc:"for people"`
		Scopes     []string `json:"scopes,omitempty"`
		Roles      []string `json:"roles,omitempty" doc:"by name"`
		OwnerRoles bool     `json:"owner_roles,omitempty" doc:"the roles bound to its owner count too"`
		Audiences  []string `json:"audiences,omitempty" doc:"resources that tokens may be for; none: the default only"`
		ExpiresIn  string   `json:"expires_in,omitempty" doc:"as in 720h; 90 days by default, 400 at most"`
		Reason     string   `json:"reason,omitempty" doc:"why, for the audit"`
	}
}

type (
	newKeyOutput struct{ Body NewKey }
	keyOutput    struct{ Body Key }
	keyInput     struct {
		ID string `path:"id" maxLength:"100"`
	}
	endKeyInput struct {
		ID     string `path:"id" maxLength:"100"`
		Reason string `query:"reason" doc:"why, for the audit"`
	}
	reasonBody struct {
		Reason string `json:"reason" doc:"why, for the audit"`
	}
	renewKeyInput struct {
		ID   string `path:"id" maxLength:"100"`
		Body reasonBody
	}
	listKeysInput struct {
		Page
		Owner    string `query:"owner"`
		ClientID string `query:"client_id"`
		Kind     string `query:"kind" enum:"key,secret,all" default:"key"`
	}
	listKeysOutput struct{ Body frame.List[Key] }
)

func (h *handlers) keys(a *frame.API) {
	frame.Register(a, op("createKey", http.MethodPost, "/v1/keys", "Make an API key", "keys"), rights.KeysWrite, h.createKey)
	frame.Register(a, op("listKeys", http.MethodGet, "/v1/keys", "List API keys", "keys"), rights.KeysRead, h.listKeys)
	frame.Register(a, op("getKey", http.MethodGet, "/v1/keys/{id}", "Show an API key", "keys"), rights.KeysRead,
		func(ctx context.Context, in *keyInput) (*keyOutput, error) {
			k, err := h.s.Key(ctx, caller(ctx), in.ID)
			if err != nil {
				return nil, err
			}
			return &keyOutput{h.key(&k)}, nil
		})
	frame.Register(a, op("deleteKey", http.MethodDelete, "/v1/keys/{id}", "End an API key and every token that came from it", "keys"), rights.KeysWrite,
		func(ctx context.Context, in *endKeyInput) (*endedOutput, error) {
			why, err := reason(in.Reason)
			if err != nil {
				return nil, err
			}
			e, err := h.s.DeleteKey(ctx, caller(ctx), in.ID, why)
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
			k, err := h.s.RenewKey(ctx, caller(ctx), in.ID, why)
			if err != nil {
				return nil, err
			}
			return &keyOutput{h.key(&k)}, nil
		})
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
	k, secret, err := h.s.CreateKey(ctx, caller(ctx), issuer.NewKey{
		Owner: in.Body.Owner, Client: in.Body.ClientID, Name: in.Body.Name, Scopes: in.Body.Scopes, Roles: in.Body.Roles,
		OwnerRoles: in.Body.OwnerRoles, Audiences: in.Body.Audiences, Life: d, Reason: why,
	})
	if err != nil {
		return nil, err
	}
	return &newKeyOutput{NewKey{h.key(&k), secret.Reveal()}}, nil
}

func (h *handlers) listKeys(ctx context.Context, in *listKeysInput) (*listKeysOutput, error) {
	f := issuer.KeyFilter{Owner: in.Owner, Client: in.ClientID, Kind: issuer.KeyKind(in.Kind)}
	if in.Kind == "all" {
		f.Kind = ""
	}
	keys, err := h.s.Keys(ctx, caller(ctx), f)
	if err != nil {
		return nil, err
	}
	page, next, err := paginate(keys, in.Page, func(k *issuer.Key) string { return sortable(k.Created, k.ID) })
	if err != nil {
		return nil, err
	}
	var out []Key
	for i := range page {
		out = append(out, h.key(&page[i]))
	}
	return &listKeysOutput{frame.ListOf(out, next)}, nil
}

// Found is what a pasted secret is.
type Found struct {
	Kind     string `json:"kind" enum:"key,secret,refresh"`
	ID       string `json:"id"`
	Target   string `json:"target" doc:"what to revoke"`
	Known    bool   `json:"known" doc:"there is a record of it"`
	Owner    string `json:"owner,omitempty"`
	ClientID string `json:"client_id,omitempty"`
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
	f, err := h.s.Lookup(ctx, caller(ctx), in.Body.Secret)
	if err != nil {
		return nil, err
	}
	return &lookupOutput{Found{Kind: f.Kind, ID: f.ID, Target: f.Target, Known: f.Known, Owner: f.Owner, ClientID: f.Client}}, nil
}
