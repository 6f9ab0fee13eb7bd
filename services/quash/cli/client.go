package cli

import (
	"context"
	"encoding/json"
	"time"

	"github.com/spf13/cobra"

	"github.com/quash-project/quash/shared/client"
	"github.com/quash-project/quash/shared/client/api"
)

func (a *app) clientCmd() *cobra.Command {
	r := records{
		app: a, what: "a client", id: "ID", list: clientList, show: a.showClient,
		get: func(ctx context.Context, c *client.Client, id string, with api.RequestEditorFn) (json.RawMessage, error) {
			return raw(c.GetClient(ctx, id, with))
		},
		remove: func(ctx context.Context, c *client.Client, id string, with api.RequestEditorFn) (json.RawMessage, error) {
			return raw(c.DeleteClient(ctx, id, nil, with))
		},
		head: []string{"CLIENT_ID", "NAME", "GRANTS", "SCOPES", "STATE"},
		row: read(func(k api.Client) []string {
			return []string{k.ClientID, k.Name, words(k.Grants), words(k.Scopes), string(k.State)}
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
			cl, err := a.connect()
			if err != nil {
				return err
			}
			body := api.CreateClientJSONRequestBody{
				Name: args[0], Grants: split(grants), Scopes: split(scopes), Audiences: split(audiences), SecretExpiresIn: life(cmd, expires),
			}
			made, err := cl.CreateClient(cmd.Context(), body)
			if err != nil {
				return err
			}
			return a.showClient(made.Raw)
		},
	}
	f := c.Flags()
	f.StringSliceVar(&grants, "grant", []string{"client_credentials"}, "what the client may ask for tokens with; repeatable")
	f.StringSliceVar(&scopes, "scope", nil, "a scope that its tokens may have; repeatable")
	f.StringSliceVar(&audiences, "audience", nil, "a resource that tokens may be for; repeatable")
	f.DurationVar(&expires, "expires", 0, "life of its secret, as in 720h (default 90 days, at most 400)")
	return c
}

// showClient shows a client, and its secret if it was just made.
func (a *app) showClient(text json.RawMessage) error {
	var k api.RegisteredClient
	if err := json.Unmarshal(text, &k); err != nil {
		return err
	}
	return a.print(text, func() {
		a.fields("client_id", k.ClientID, "client_secret", k.ClientSecret, "name", k.Name,
			"grants", words(k.Grants), "scopes", words(k.Scopes),
			"state", string(k.State), "created", at(k.CreatedAt))
		if k.ClientSecret != "" {
			a.note("The secret is shown this once. To revoke the client: quash revoke client:%s --reason TEXT", k.ClientID)
		}
	})
}
