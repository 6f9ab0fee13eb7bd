package cli

import (
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quash-project/quash/services/quash/api"
)

type keyRecord struct {
	ID        string   `json:"id"`
	Secret    string   `json:"secret,omitempty"`
	Name      string   `json:"name,omitempty"`
	Owner     string   `json:"owner"`
	Scopes    []string `json:"scopes"`
	Roles     []string `json:"roles"`
	ClientID  string   `json:"client_id"`
	State     string   `json:"state"`
	CreatedAt string   `json:"created_at"`
	ExpiresAt string   `json:"expires_at"`
}

func (a *app) keyCmd() *cobra.Command {
	r := records{
		app: a, what: "an API key", path: "/v1/keys", show: a.showKey,
		head: []string{"ID", "OWNER", "NAME", "SCOPES", "ROLES", "STATE", "EXPIRES"},
		row: row(func(k keyRecord) []string {
			return []string{k.ID, k.Owner, k.Name, strings.Join(k.Scopes, " "), strings.Join(k.Roles, " "), k.State, k.ExpiresAt}
		}),
		deletes: "Delete an API key, and end every token that came from it",
	}
	list := r.listCmd()
	list.Flags().String("owner", "", "only those of this principal")
	return group("key", "API keys", a.keyCreateCmd(), list, r.showCmd(), r.deleteCmd())
}

func (a *app) keyCreateCmd() *cobra.Command {
	var owner, client, name string
	var scopes, roles, audiences []string
	var expires time.Duration
	c := &cobra.Command{
		Use: "create --owner WHO --scope SCOPE", Short: "Make an API key; its secret is shown once",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if owner == "" {
				return usage("--owner is missing: the principal for whom the key speaks, as in --owner alice")
			}
			body := map[string]any{"owner": owner}
			put(body, "scopes", split(scopes))
			put(body, "roles", split(roles))
			put(body, "audiences", split(audiences))
			if client != "" {
				body["client_id"] = client
			}
			if name != "" {
				body["name"] = name
			}
			if cmd.Flags().Changed("expires") {
				body["expires_in"] = expires.String()
			}
			raw, err := a.call(cmd.Context(), api.Call{Method: http.MethodPost, Path: "/v1/keys", Body: body})
			if err != nil {
				return err
			}
			if a.output == "json" {
				return a.json(raw)
			}
			return a.showKey(raw)
		},
	}
	f := c.Flags()
	f.StringVar(&owner, "owner", "", "the principal for whom the key speaks")
	f.StringSliceVar(&scopes, "scope", nil, "a scope that tokens from the key may have; repeatable")
	f.StringSliceVar(&roles, "role", nil, "a role by its name; repeatable")
	f.StringSliceVar(&audiences, "audience", nil, "a resource that tokens may be for; repeatable")
	f.StringVar(&client, "client", "", "the client to which the key belongs")
	f.StringVar(&name, "name", "", "a name for people")
	f.DurationVar(&expires, "expires", 0, "life, as in 720h (default 90 days, at most 400)")
	return c
}

// put sets a list, unless it is empty.
func put(body map[string]any, name string, list []string) {
	if len(list) > 0 {
		body[name] = list
	}
}

// split takes lists with spaces in them apart, as OAuth writes scopes.
func split(list []string) []string {
	var out []string
	for _, s := range list {
		out = append(out, strings.Fields(s)...)
	}
	return out
}

func (a *app) showKey(raw json.RawMessage) error {
	var k keyRecord
	if err := json.Unmarshal(raw, &k); err != nil {
		return err
	}
	a.fields("id", k.ID, "secret", k.Secret, "name", k.Name, "owner", k.Owner,
		"scopes", strings.Join(k.Scopes, " "), "roles", strings.Join(k.Roles, " "),
		"client", k.ClientID, "state", k.State, "created", k.CreatedAt, "expires", k.ExpiresAt)
	if k.Secret != "" {
		a.note("The secret is shown this once. To revoke the key: quash revoke key:%s --reason TEXT", k.ID)
	}
	return nil
}
