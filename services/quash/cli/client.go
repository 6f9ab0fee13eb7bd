package cli

import (
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quash-project/quash/services/quash/api"
)

type clientRecord struct {
	ClientID     string   `json:"client_id"`
	ClientSecret string   `json:"client_secret,omitempty"`
	Name         string   `json:"name"`
	Grants       []string `json:"grants"`
	Scopes       []string `json:"scopes"`
	Roles        []string `json:"roles"`
	State        string   `json:"state"`
	CreatedAt    string   `json:"created_at"`
}

func (a *app) clientCmd() *cobra.Command {
	r := records{
		app: a, what: "a client", path: "/v1/clients", show: a.showClient,
		head: []string{"CLIENT_ID", "NAME", "GRANTS", "SCOPES", "STATE"},
		row: row(func(k clientRecord) []string {
			return []string{k.ClientID, k.Name, strings.Join(k.Grants, " "), strings.Join(k.Scopes, " "), k.State}
		}),
		deletes: "Delete a client, its secrets and keys, and end every token that came from them",
	}
	return group("client", "OAuth clients", a.clientCreateCmd(), r.listCmd(), r.showCmd(), r.deleteCmd())
}

func (a *app) clientCreateCmd() *cobra.Command {
	var grants, scopes, audiences []string
	var expires time.Duration
	c := &cobra.Command{
		Use: "create NAME --grant client_credentials --scope SCOPE", Short: "Register a client; its secret is shown once",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			body := map[string]any{"name": args[0]}
			put(body, "grants", split(grants))
			put(body, "scopes", split(scopes))
			put(body, "audiences", split(audiences))
			if cmd.Flags().Changed("expires") {
				body["secret_expires_in"] = expires.String()
			}
			raw, err := a.call(cmd.Context(), api.Call{Method: http.MethodPost, Path: "/v1/clients", Body: body})
			if err != nil {
				return err
			}
			if a.output == "json" {
				return a.json(raw)
			}
			return a.showClient(raw)
		},
	}
	f := c.Flags()
	f.StringSliceVar(&grants, "grant", []string{"client_credentials"}, "what the client may ask for tokens with; repeatable")
	f.StringSliceVar(&scopes, "scope", nil, "a scope that its tokens may have; repeatable")
	f.StringSliceVar(&audiences, "audience", nil, "a resource that tokens may be for; repeatable")
	f.DurationVar(&expires, "expires", 0, "life of its secret, as in 720h (default 90 days, at most 400)")
	return c
}

func (a *app) showClient(raw json.RawMessage) error {
	var k clientRecord
	if err := json.Unmarshal(raw, &k); err != nil {
		return err
	}
	a.fields("client_id", k.ClientID, "client_secret", k.ClientSecret, "name", k.Name,
		"grants", strings.Join(k.Grants, " "), "scopes", strings.Join(k.Scopes, " "),
		"state", k.State, "created", k.CreatedAt)
	if k.ClientSecret != "" {
		a.note("The secret is shown this once. To revoke the client: quash revoke client:%s --reason TEXT", k.ClientID)
	}
	return nil
}
