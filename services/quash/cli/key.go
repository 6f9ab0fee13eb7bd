package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/quash-project/quash/shared/client"
	"github.com/quash-project/quash/shared/client/api"
)

func (a *app) keyCmd() *cobra.Command {
	r := records{
		app: a, what: "an API key", id: "ID", list: keyList, show: a.showKey,
		get: func(ctx context.Context, c *client.Client, id string, with api.RequestEditorFn) (json.RawMessage, error) {
			return raw(c.GetKey(ctx, id, with))
		},
		remove: func(ctx context.Context, c *client.Client, id string, with api.RequestEditorFn) (json.RawMessage, error) {
			return raw(c.DeleteKey(ctx, id, nil, with))
		},
		head: []string{"ID", "OWNER", "NAME", "SCOPES", "ROLES", "STATE", "EXPIRES", "LAST USED"},
		row: read(func(k api.Key) []string {
			return []string{k.ID, k.Owner, k.Name, words(k.Scopes), words(k.Roles), string(k.State), at(k.ExpiresAt), orNever(k.LastUsedAt)}
		}),
		deletes: "Delete an API key, and end every token that came from it",
	}
	list := r.listCmd()
	f := list.Flags()
	f.String("owner", "", "only those of this principal")
	f.String("client-id", "", "only those of this client")
	f.StringSlice("label", nil, "only those with this label, as in env=prod; repeatable")
	f.String("state", "", "only those that are active, expired, ending, held or revoked")
	f.String("expires-within", "", "only those whose end is no further away, as in 7d or 168h")
	f.String("unused-since", "", "only those that were not used since, nor made: how long ago, as in 90d, or a time as 2026-01-31T00:00:00Z")
	f.String("kind", "key", "key, secret (of a client) or all")
	return group("key", "API keys", a.keyCreateCmd(), a.keyImportCmd(), list, r.showCmd(), r.deleteCmd(),
		r.cutCmd("disable", "Refuse an API key and every token that came from it until it is enabled", (*client.Client).DisableKey,
			func(id string, _ api.Ended) []string { return []string{"disabled", id} }),
		r.cutCmd("enable", "Take an API key again that was disabled", (*client.Client).EnableKey,
			func(id string, _ api.Ended) []string { return []string{"enabled", id} }),
		a.keyRotateCmd(), a.keyRotationCmd(), a.keyRecipientCmd(), a.keyCollectCmd(),
		r.cutCmd("rollback", "Take a rotation back: the new key ends, and the old one stays", (*client.Client).RollBackKey,
			func(id string, e api.Ended) []string { return []string{"rolled back", id, "ended", e.Target} }))
}

func (a *app) keyCreateCmd() *cobra.Command {
	var owner, clientID, name, recipient string
	var scopes, roles, audiences, networks []string
	var labels map[string]string
	var expires string
	var rate int64
	var ownerRoles bool
	c := &cobra.Command{
		Use: "create --owner WHO --scope SCOPE", Short: "Make an API key; its secret is shown once",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if owner == "" {
				return usage("--owner is missing: the principal for whom the key speaks, as in --owner alice")
			}
			if cmd.Flags().Changed("rate-limit") && rate < 1 {
				return usage("--rate-limit %d: want 1 or more exchanges a minute, or leave it out for no limit", rate)
			}
			if cmd.Flags().Changed("expires") && expires == "" {
				return usage("--expires is empty: want a life as in 30d, or leave it out for the default")
			}
			cl, err := a.connect()
			if err != nil {
				return err
			}
			made, err := cl.CreateKey(cmd.Context(), api.CreateKeyJSONRequestBody{
				Owner: owner, OwnerRoles: ownerRoles, ClientID: clientID, Name: name, Labels: labels,
				Scopes: split(scopes), Roles: split(roles), Audiences: split(audiences),
				Networks: networks, RateLimit: rate, ExpiresIn: expires, Recipient: recipient,
			})
			if err != nil {
				return err
			}
			return a.showKey(made.Raw)
		},
	}
	f := c.Flags()
	f.StringVar(&owner, "owner", "", "the principal for whom the key speaks")
	f.StringSliceVar(&scopes, "scope", nil, "a scope that tokens from the key may have; repeatable")
	f.StringSliceVar(&roles, "role", nil, "a role by its name; repeatable")
	f.BoolVar(&ownerRoles, "owner-roles", false, "tokens have the roles that the owner has then")
	f.StringSliceVar(&audiences, "audience", nil, "a resource that tokens may be for; repeatable")
	f.StringToStringVar(&labels, "label", nil, "a label to find it by, as in env=prod; repeatable")
	f.StringVar(&clientID, "client", "", "the client to which the key belongs")
	f.StringVar(&name, "name", "", "a name for people")
	f.StringSliceVar(&networks, "network", nil, "where it may be used from, as 192.0.2.0/24, 2001:db8::/32 or one address; repeatable (default: everywhere)")
	f.Int64Var(&rate, "rate-limit", 0, "exchanges a minute, of each replica of the issuer (default: no limit)")
	f.StringVar(&expires, "expires", "", "life, as in 30d or 720h (default 90 days, at most 400, or less by policy)")
	f.StringVar(&recipient, "recipient", "", "an age recipient, age1…: to whom a schedule seals the secret that takes the place of this one")
	return c
}

// split takes lists with spaces in them apart, as OAuth writes scopes.
func split(list []string) []string {
	var out []string
	for _, s := range list {
		out = append(out, strings.Fields(s)...)
	}
	return out
}

// labelled are labels as they are written, by name.
func labelled(labels map[string]string) []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		out = append(out, name+"="+labels[name])
	}
	return out
}

// showKey shows a key, and its secret if it was just made.
func (a *app) showKey(text json.RawMessage) error {
	var k api.NewKey
	if err := json.Unmarshal(text, &k); err != nil {
		return err
	}
	rate, leaked, used := "", "", at(k.LastUsedAt)
	if k.RateLimit > 0 {
		rate = fmt.Sprintf("%d a minute", k.RateLimit)
	}
	if k.Leaked != nil {
		leaked = at(k.Leaked.At) + " " + k.Leaked.Where
	}
	if used != "" && k.LastUsedFrom != "" {
		used += " from " + k.LastUsedFrom
	}
	return a.print(text, func() {
		a.fields("id", k.ID, "secret", k.Secret, "name", k.Name, "owner", k.Owner, "labels", words(labelled(k.Labels)),
			"scopes", words(k.Scopes), "roles", words(k.Roles),
			"client", k.ClientID, "state", string(k.State), "hit by", words(k.HitBy),
			"networks", words(k.Networks), "rate limit", rate, "leaked", leaked,
			"created", at(k.CreatedAt), "by", k.CreatedBy, "expires", at(k.ExpiresAt), "last used", used, "instead of", k.Previous, "recipient", k.Recipient)
		a.fields(rotationFields(text)...)
		if k.Secret != "" {
			a.note("The secret is shown this once. To revoke the key: quash revoke key:%s --reason TEXT", k.ID)
		}
	})
}
