package cli

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quash-project/quash/services/quash/api"
)

// group is a command that only has subcommands.
func group(use, short string, subs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use: use, Short: short,
		Args: cobra.MatchAll(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usage("%s needs one of its commands: %s", cmd.CommandPath(), names(cmd))
		},
	}
	c.AddCommand(subs...)
	return c
}

func names(cmd *cobra.Command) string {
	var n []string
	for _, s := range cmd.Commands() {
		if s.IsAvailableCommand() {
			n = append(n, s.Name())
		}
	}
	return strings.Join(n, ", ")
}

// call makes one request and returns the answer as it came.
func (a *app) call(ctx context.Context, c api.Call) (json.RawMessage, error) {
	cl, err := a.api()
	if err != nil {
		return nil, err
	}
	var raw json.RawMessage
	err = cl.Do(ctx, c, &raw)
	return raw, err
}

// list fetches all pages of a list.
func (a *app) list(ctx context.Context, path string, query url.Values) ([]json.RawMessage, error) {
	var all []json.RawMessage
	if query == nil {
		query = url.Values{}
	}
	for {
		raw, err := a.call(ctx, api.Call{Method: http.MethodGet, Path: path, Query: query})
		if err != nil {
			return nil, err
		}
		var page struct {
			Items []json.RawMessage `json:"items"`
			Next  string            `json:"next_page"`
		}
		if err := json.Unmarshal(raw, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Items...)
		if page.Next == "" {
			return all, nil
		}
		query.Set("page", page.Next)
	}
}

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
	return group("key", "API keys", a.keyCreateCmd(), a.keyListCmd(), a.keyShowCmd(), a.keyDeleteCmd())
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

func (a *app) keyListCmd() *cobra.Command {
	var owner string
	c := &cobra.Command{
		Use: "list", Short: "List API keys", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			q := url.Values{}
			if owner != "" {
				q.Set("owner", owner)
			}
			items, err := a.list(cmd.Context(), "/v1/keys", q)
			if err != nil {
				return err
			}
			if a.output == "json" {
				return a.items(items)
			}
			var rows [][]string
			for _, it := range items {
				var k keyRecord
				if err := json.Unmarshal(it, &k); err != nil {
					return err
				}
				rows = append(rows, []string{k.ID, k.Owner, k.Name, strings.Join(k.Scopes, " "), strings.Join(k.Roles, " "), k.State, k.ExpiresAt})
			}
			a.table([]string{"ID", "OWNER", "NAME", "SCOPES", "ROLES", "STATE", "EXPIRES"}, rows)
			return nil
		},
	}
	c.Flags().StringVar(&owner, "owner", "", "only those of this principal")
	return c
}

// items prints a list as the API gives it, all pages in one.
func (a *app) items(items []json.RawMessage) error {
	if items == nil {
		items = []json.RawMessage{}
	}
	return a.value(map[string]any{"items": items})
}

func (a *app) keyShowCmd() *cobra.Command {
	return &cobra.Command{
		Use: "show ID", Short: "Show an API key, without its secret", Args: cobra.ExactArgs(1),
		ValidArgsFunction: a.completeIDs("/v1/keys"),
		RunE: func(cmd *cobra.Command, args []string) error {
			raw, err := a.call(cmd.Context(), api.Call{Method: http.MethodGet, Path: "/v1/keys/" + url.PathEscape(args[0])})
			if err != nil {
				return err
			}
			if a.output == "json" {
				return a.json(raw)
			}
			return a.showKey(raw)
		},
	}
}

func (a *app) keyDeleteCmd() *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use: "delete ID", Short: "Delete an API key, and end every token that came from it", Args: cobra.ExactArgs(1),
		ValidArgsFunction: a.completeIDs("/v1/keys"),
		RunE: func(cmd *cobra.Command, args []string) error {
			q := url.Values{}
			if reason != "" {
				q.Set("reason", reason)
			}
			raw, err := a.call(cmd.Context(), api.Call{Method: http.MethodDelete, Path: "/v1/keys/" + url.PathEscape(args[0]), Query: q})
			if err != nil {
				return err
			}
			return a.deleted(raw, args[0])
		},
	}
	c.Flags().StringVar(&reason, "reason", "", "why, for the audit")
	return c
}

func (a *app) deleted(raw json.RawMessage, id string) error {
	if a.output == "json" {
		if len(raw) == 0 {
			return a.value(map[string]any{"id": id, "deleted": true})
		}
		return a.json(raw)
	}
	a.fields("deleted", id)
	return nil
}
