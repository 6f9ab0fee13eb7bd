package cli

import (
	"context"
	"encoding/json"
	"time"

	"github.com/spf13/cobra"

	"github.com/quash-project/quash/shared/client"
	"github.com/quash-project/quash/shared/client/api"
)

func (a *app) roleCmd() *cobra.Command {
	r := records{
		app: a, what: "a role", id: "NAME", list: roleList, show: a.showRole,
		get: func(ctx context.Context, c *client.Client, id string, with api.RequestEditorFn) (json.RawMessage, error) {
			return raw(c.GetRole(ctx, id, with))
		},
		remove: func(ctx context.Context, c *client.Client, id string, with api.RequestEditorFn) (json.RawMessage, error) {
			return raw(c.DeleteRole(ctx, id, nil, with))
		},
		head: []string{"NAME", "STATE", "CHANGED BY", "CHANGED", "SCOPES"},
		row: read(func(r api.Role) []string {
			return []string{r.Name, string(r.State), r.ChangedBy, at(r.ChangedAt), words(r.Scopes)}
		}),
		deletes: "Delete a role: who held it has it no longer, at once",
	}
	show := r.showCmd()
	show.Short = "Show a role"
	return group("role", "Roles: named sets of scopes, and who has them", a.roleCreateCmd(), a.roleSetCmd(), r.listCmd(), show, r.deleteCmd(),
		a.bindCmd(), a.unbindCmd(), a.bindingsCmd())
}

// roleBody is a command that makes or changes a role by a call with its scopes.
func (a *app) roleBody(use, short string, call func(ctx context.Context, c *client.Client, name string, scopes []string, reason string) (json.RawMessage, error)) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Args: cobra.ExactArgs(1)}
	scopes := c.Flags().StringSlice("scope", nil, "a scope that it has; repeatable")
	reason := c.Flags().String("reason", "", "why, for the audit")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		cl, err := a.connect()
		if err != nil {
			return err
		}
		text, err := call(cmd.Context(), cl, args[0], append([]string{}, split(*scopes)...), *reason)
		if err != nil {
			return err
		}
		return a.showRole(text)
	}
	return c
}

func (a *app) roleCreateCmd() *cobra.Command {
	return a.roleBody("create NAME --scope SCOPE", "Make a role",
		func(ctx context.Context, c *client.Client, name string, scopes []string, reason string) (json.RawMessage, error) {
			return raw(c.CreateRole(ctx, api.CreateRoleJSONRequestBody{Name: name, Scopes: scopes, Reason: reason}))
		})
}

func (a *app) roleSetCmd() *cobra.Command {
	c := a.roleBody("set NAME --scope SCOPE", "Change the scopes of a role: all that it has from now on. What is taken away is gone from live tokens at once",
		func(ctx context.Context, c *client.Client, name string, scopes []string, reason string) (json.RawMessage, error) {
			return raw(c.SetRole(ctx, name, api.SetRoleJSONRequestBody{Scopes: scopes, Reason: reason}))
		})
	c.ValidArgsFunction = a.completeIDs(roleList)
	return c
}

func (a *app) showRole(text json.RawMessage) error {
	var r api.Role
	if err := json.Unmarshal(text, &r); err != nil {
		return err
	}
	return a.print(text, func() {
		a.fields("name", r.Name, "id", r.ID, "scopes", words(r.Scopes), "state", string(r.State), "hit by", words(r.HitBy),
			"created", at(r.CreatedAt), "changed by", r.ChangedBy, "changed", at(r.ChangedAt), "reason", r.Reason)
	})
}

func (a *app) bindCmd() *cobra.Command {
	c := &cobra.Command{
		Use: "bind SUBJECT ROLE", Short: "Give a role to a principal, a client (client_...) or an API key (key_...)", Args: cobra.ExactArgs(2),
		Long: "Give a role to a principal, a client (client_...) or an API key (key_...).\n\nGiven again it counts as new, and its end can be moved away, never nearer: take it away first.",
	}
	expires := c.Flags().Duration("expires", 0, "when it ends by itself, as in 8h (1m to 400 days; default: never)")
	reason := c.Flags().String("reason", "", "why, for the audit")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		cl, err := a.connect()
		if err != nil {
			return err
		}
		bound, err := cl.CreateBinding(cmd.Context(), api.CreateBindingJSONRequestBody{
			Subject: args[0], Role: args[1], Reason: *reason, ExpiresIn: life(cmd, *expires),
		})
		if err != nil {
			return err
		}
		b := bound.Value
		return a.print(bound.Raw, func() {
			a.fields("subject", b.Subject, "role", b.Role, "state", string(b.State), "hit by", words(b.HitBy), "expires", orNever(b.ExpiresAt))
			a.note("To take it away: quash role unbind %s %s --reason TEXT", b.Subject, b.Role)
		})
	}
	return c
}

// life is the flag --expires as the API takes it, empty if it was not given.
func life(cmd *cobra.Command, expires time.Duration) string {
	if !cmd.Flags().Changed("expires") {
		return ""
	}
	return expires.String()
}

func orNever(end time.Time) string {
	if end.IsZero() {
		return "never"
	}
	return at(end)
}

func (a *app) unbindCmd() *cobra.Command {
	c := &cobra.Command{
		Use: "unbind SUBJECT ROLE", Short: "Take a role from whoever has it; tokens that carry it by that are refused at once", Args: cobra.ExactArgs(2),
	}
	reason := c.Flags().String("reason", "", "why, for the audit")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		cl, err := a.connect()
		if err != nil {
			return err
		}
		ended, err := cl.DeleteBinding(cmd.Context(), &api.DeleteBindingParams{Subject: args[0], Role: args[1], Reason: optional(*reason)})
		if err != nil {
			return err
		}
		return a.print(ended.Raw, func() { a.fields("deleted", args[0]+" "+args[1]) })
	}
	return c
}

func (a *app) bindingsCmd() *cobra.Command {
	r := records{
		app: a, list: bindingList,
		head: []string{"SUBJECT", "ROLE", "STATE", "EXPIRES", "CHANGED BY", "REASON"},
		row: read(func(b api.Binding) []string {
			return []string{b.Subject, b.Role, string(b.State), orNever(b.ExpiresAt), b.ChangedBy, b.Reason}
		}),
	}
	c := r.listCmd()
	c.Use, c.Short = "bindings", "List who has which role"
	c.Flags().String("subject", "", "only those of this subject")
	c.Flags().String("role", "", "only those of this role")
	return c
}

// optional is a parameter of a query, left out if it is empty.
func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
