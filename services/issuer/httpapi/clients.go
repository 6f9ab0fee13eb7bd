package httpapi

import (
	"context"
	"net/http"

	"github.com/quash-project/quash/services/issuer"
	"github.com/quash-project/quash/shared/guard/revoke"
	frame "github.com/quash-project/quash/shared/httpapi"
	"github.com/quash-project/quash/shared/rights"
)

// Client is an OAuth client, as it is shown.
type Client struct {
	ClientID  string     `json:"client_id"`
	Name      string     `json:"name"`
	Grants    []string   `json:"grants"`
	Scopes    []string   `json:"scopes"`
	Roles     []string   `json:"roles"`
	Audiences []string   `json:"audiences"`
	Serves    []string   `json:"serves" doc:"audiences that it is: it may introspect tokens for them"`
	State     string     `json:"state" enum:"active,ending,held,revoked"`
	HitBy     []string   `json:"hit_by,omitempty" doc:"the targets by which it is held"`
	CreatedAt frame.Time `json:"created_at"`
	ChangedBy string     `json:"changed_by"`
	ChangedAt frame.Time `json:"changed_at"`
	Reason    string     `json:"reason,omitempty"`
}

// NewClient is a client that was made: the only place where its secret stands.
type NewClient struct {
	Client
	ClientSecret    string     `json:"client_secret" doc:"shown this once"`
	SecretID        string     `json:"secret_id" doc:"key:SECRET_ID is what to revoke if the secret leaks"`
	SecretExpiresAt frame.Time `json:"secret_expires_at"`
}

func (h *handlers) client(ctx context.Context, c *issuer.Client) (Client, error) {
	bindings, err := h.in(ctx).Bindings(ctx, caller(ctx), issuer.BindingFilter{Subject: c.ID})
	if err != nil {
		return Client{}, err
	}
	return h.clientOf(c, bindings), nil
}

// clientOf shows a client with those of the bindings that are its own.
func (h *handlers) clientOf(c *issuer.Client, bindings []issuer.Binding) Client {
	out := Client{
		ClientID: c.ID, Name: c.Name, Grants: orEmpty(c.Grants), Scopes: orEmpty(c.Scopes), Roles: []string{},
		Audiences: orEmpty(c.Audiences), Serves: orEmpty(c.Serves), CreatedAt: frame.Time(c.Created),
		ChangedBy: c.Meta.Actor, ChangedAt: frame.Time(c.Meta.At), Reason: c.Meta.Reason,
	}
	for _, b := range bindings {
		if b.Subject == c.ID {
			out.Roles = append(out.Roles, b.Role.Name)
		}
	}
	// A client has no stamp: a cut hits its secrets, only a hold the client.
	out.State, out.HitBy = h.state(c.Mark != nil, noExpiry, h.s.HeldBy(issuer.ClientTarget(c)))
	return out
}

type createClientInput struct {
	frame.Idempotent
	Body struct {
		Name            string   `json:"name" doc:"for people"`
		Grants          []string `json:"grants" doc:"client_credentials, token-exchange"`
		Scopes          []string `json:"scopes,omitempty"`
		Roles           []string `json:"roles,omitempty" doc:"by name; each becomes a binding"`
		Audiences       []string `json:"audiences,omitempty" doc:"resources that tokens may be for; none: the default only"`
		Serves          []string `json:"serves,omitempty" doc:"audiences that it is: it may introspect tokens for them"`
		SecretExpiresIn string   `json:"secret_expires_in,omitempty" doc:"as in 720h; 90 days by default, 400 at most"`
		Recipient       string   `json:"recipient,omitempty" maxLength:"200" doc:"an age X25519 recipient, age1…: to whom the secret is sealed that takes the place of this one by a schedule"`
		Reason          string   `json:"reason,omitempty" doc:"why, for the audit"`
	}
}

type (
	newClientOutput struct {
		ETag string `header:"ETag" doc:"of the client as GET shows it"`
		Body NewClient
	}
	clientOutput = frame.Tagged[Client]
	clientInput  struct {
		frame.IfNoneMatch
		ID string `path:"id" maxLength:"100"`
	}
	listClientsInput  struct{ Page }
	listClientsOutput struct{ Body frame.List[Client] }
	addSecretInput    struct {
		frame.Idempotent
		ID   string `path:"id" maxLength:"100"`
		Body struct {
			Name      string `json:"name,omitempty" doc:"for people"`
			ExpiresIn string `json:"expires_in,omitempty" doc:"as in 720h; 90 days by default, 400 at most"`
			Recipient string `json:"recipient,omitempty" maxLength:"200" doc:"an age X25519 recipient, age1…: to whom the secret is sealed that takes the place of this one by a schedule"`
			Reason    string `json:"reason,omitempty" doc:"why, for the audit"`
		}
	}
)

// Made implements frame.Secretive.
func (o *newClientOutput) Made() string {
	return revoke.Target{Kind: revoke.KindClient, ID: o.Body.ClientID}.String()
}

func (h *handlers) clients(a *frame.API) {
	frame.Register(a, op("createClient", http.MethodPost, "/v1/clients", "Register a client", "clients"), rights.ClientsWrite, h.createClient)
	frame.Register(a, op("listClients", http.MethodGet, "/v1/clients", "List clients", "clients"), rights.ClientsRead, h.listClients)
	frame.Register(a, op("getClient", http.MethodGet, "/v1/clients/{id}", "Show a client", "clients"), rights.ClientsRead,
		func(ctx context.Context, in *clientInput) (*clientOutput, error) {
			c, err := h.in(ctx).Client(ctx, caller(ctx), in.ID)
			if err != nil {
				return nil, err
			}
			out, err := h.client(ctx, &c)
			if err != nil {
				return nil, err
			}
			return frame.Show(in.IfNoneMatch, out)
		})
	frame.Register(a, op("deleteClient", http.MethodDelete, "/v1/clients/{id}", "Cut a client and end its secrets and keys", "clients"), rights.ClientsWrite,
		func(ctx context.Context, in *endKeyInput) (*endedOutput, error) {
			why, err := reason(in.Reason)
			if err != nil {
				return nil, err
			}
			e, err := h.in(ctx).DeleteClient(ctx, caller(ctx), in.ID, why, only(in.IfMatch, func(c *issuer.Client) (Client, error) {
				return h.client(ctx, c)
			}))
			if err != nil {
				return nil, err
			}
			return &endedOutput{ended(e)}, nil
		})
	frame.Register(a, op("createSecret", http.MethodPost, "/v1/clients/{id}/secrets", "Give a client another secret; the others stay good", "clients"), rights.ClientsWrite, h.addSecret)
}

// grantAliases are short names of grant types.
var grantAliases = map[string]string{"token-exchange": issuer.GrantTokenExchange, "token_exchange": issuer.GrantTokenExchange}

func (h *handlers) createClient(ctx context.Context, in *createClientInput) (*newClientOutput, error) {
	why, err := reason(in.Body.Reason)
	if err != nil {
		return nil, err
	}
	d, err := life("secret_expires_in", in.Body.SecretExpiresIn)
	if err != nil {
		return nil, err
	}
	grants := make([]string, 0, len(in.Body.Grants))
	for _, g := range in.Body.Grants {
		if long := grantAliases[g]; long != "" {
			g = long
		}
		grants = append(grants, g)
	}
	c, k, secret, err := h.in(ctx).CreateClient(ctx, caller(ctx), issuer.NewClient{
		Name: in.Body.Name, Grants: grants, Scopes: in.Body.Scopes, Roles: in.Body.Roles, Audiences: in.Body.Audiences,
		Serves: in.Body.Serves, SecretLife: d, Recipient: in.Body.Recipient, Reason: why,
	})
	if err != nil {
		return nil, err
	}
	out, err := h.client(ctx, &c)
	if err != nil {
		return nil, err
	}
	tag, err := frame.Tag(out)
	return &newClientOutput{ETag: tag, Body: NewClient{out, secret.Reveal(), k.ID, frame.Time(k.Expires)}}, err
}

func (h *handlers) listClients(ctx context.Context, in *listClientsInput) (*listClientsOutput, error) {
	clients, err := h.in(ctx).Clients(ctx, caller(ctx))
	if err != nil {
		return nil, err
	}
	page, next, err := paginate(h, questionOf(ctx, "clients", nil), clients, in.Page, func(c *issuer.Client) string { return sortable(c.Created, c.ID) })
	if err != nil {
		return nil, err
	}
	var out []Client
	for i := range page {
		c, err := h.client(ctx, &page[i])
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return &listClientsOutput{frame.ListOf(out, next)}, nil
}

func (h *handlers) addSecret(ctx context.Context, in *addSecretInput) (*newKeyOutput, error) {
	why, err := reason(in.Body.Reason)
	if err != nil {
		return nil, err
	}
	d, err := life("expires_in", in.Body.ExpiresIn)
	if err != nil {
		return nil, err
	}
	k, secret, err := h.in(ctx).AddSecret(ctx, caller(ctx), in.ID, issuer.NewSecret{Name: in.Body.Name, Life: d, Recipient: in.Body.Recipient, Reason: why})
	if err != nil {
		return nil, err
	}
	return h.newKey(&k, secret)
}
