package cli

import (
	"encoding/json"
	"net/http"
	"net/url"
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
	return group("client", "OAuth clients", a.clientCreateCmd(), a.clientListCmd(), a.clientShowCmd(), a.clientDeleteCmd())
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

func (a *app) clientListCmd() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List clients", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			items, err := a.list(cmd.Context(), "/v1/clients", nil)
			if err != nil {
				return err
			}
			if a.output == "json" {
				return a.items(items)
			}
			var rows [][]string
			for _, it := range items {
				var k clientRecord
				if err := json.Unmarshal(it, &k); err != nil {
					return err
				}
				rows = append(rows, []string{k.ClientID, k.Name, strings.Join(k.Grants, " "), strings.Join(k.Scopes, " "), k.State})
			}
			a.table([]string{"CLIENT_ID", "NAME", "GRANTS", "SCOPES", "STATE"}, rows)
			return nil
		},
	}
}

func (a *app) clientShowCmd() *cobra.Command {
	return &cobra.Command{
		Use: "show ID", Short: "Show a client, without its secret", Args: cobra.ExactArgs(1),
		ValidArgsFunction: a.completeIDs("/v1/clients"),
		RunE: func(cmd *cobra.Command, args []string) error {
			raw, err := a.call(cmd.Context(), api.Call{Method: http.MethodGet, Path: "/v1/clients/" + url.PathEscape(args[0])})
			if err != nil {
				return err
			}
			if a.output == "json" {
				return a.json(raw)
			}
			return a.showClient(raw)
		},
	}
}

func (a *app) clientDeleteCmd() *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use: "delete ID", Short: "Delete a client, its secrets and keys, and end every token that came from them", Args: cobra.ExactArgs(1),
		ValidArgsFunction: a.completeIDs("/v1/clients"),
		RunE: func(cmd *cobra.Command, args []string) error {
			q := url.Values{}
			if reason != "" {
				q.Set("reason", reason)
			}
			raw, err := a.call(cmd.Context(), api.Call{Method: http.MethodDelete, Path: "/v1/clients/" + url.PathEscape(args[0]), Query: q})
			if err != nil {
				return err
			}
			return a.deleted(raw, args[0])
		},
	}
	c.Flags().StringVar(&reason, "reason", "", "why, for the audit")
	return c
}
