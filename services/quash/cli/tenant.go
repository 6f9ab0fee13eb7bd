package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/quash-project/quash/shared/client"
	"github.com/quash-project/quash/shared/client/api"
)

func (a *app) tenantCmd() *cobra.Command {
	r := records{
		app: a, what: "a tenant", id: "NAME", list: tenantList, show: a.showTenant,
		get: func(ctx context.Context, c *client.Client, id string, with api.RequestEditorFn) (json.RawMessage, error) {
			return raw(c.GetTenant(ctx, id, with))
		},
		head: []string{"NAME", "STATE", "KEYS", "CLIENTS", "TOKENS/S", "CREATED", "ISSUER"},
		row: read(func(t api.Tenant) []string {
			return []string{t.Name, string(t.State), orNone(t.Limits.Keys), orNone(t.Limits.Clients), rate(t.Limits.TokensPerSecond), at(t.CreatedAt), t.Issuer}
		}),
	}
	told := func(done string) func(string, api.Ended) []string {
		return func(name string, e api.Ended) []string { return []string{done, name, "id", e.ID} }
	}
	show := r.showCmd()
	show.Short = "Show a tenant"
	list := r.listCmd()
	list.Short = "List them all, with their limits"
	return group("tenant", "Tenants: each has an issuer, keys, clients and roles of its own", a.tenantCreateCmd(), list, show,
		a.tenantLimitsCmd(), a.tenantAdminCmd(),
		r.cutCmd("hold", "Refuse everything of a tenant until it is released", (*client.Client).HoldTenant, told("held")),
		r.cutCmd("release", "Take what is of a tenant again that was held", (*client.Client).ReleaseTenant, told("released")),
		r.cutCmd("revoke", "Cut everything that was made in a tenant until now; what is made afterwards is clean", (*client.Client).RevokeTenant, told("revoked")),
		a.tenantExportCmd(), a.tenantDeleteCmd())
}

// orNone is a limit; 0 is none.
func orNone(n int64) string {
	if n == 0 {
		return "no limit"
	}
	return strconv.FormatInt(n, 10)
}

func rate(n float64) string {
	if n == 0 {
		return "no limit"
	}
	return strconv.FormatFloat(n, 'g', -1, 64)
}

func (a *app) tenantFields(t api.Tenant) {
	a.fields("name", t.Name, "issuer", t.Issuer, "state", string(t.State), "hit by", words(t.HitBy),
		"keys", orNone(t.Limits.Keys), "clients", orNone(t.Limits.Clients), "tokens a second", rate(t.Limits.TokensPerSecond),
		"created", at(t.CreatedAt), "changed by", t.ChangedBy, "changed", at(t.ChangedAt), "reason", t.Reason)
}

func (a *app) showTenant(text json.RawMessage) error {
	var t api.Tenant
	if err := json.Unmarshal(text, &t); err != nil {
		return err
	}
	return a.print(text, func() { a.tenantFields(t) })
}

// limitFlags are the limits of a tenant as flags.
func limitFlags(c *cobra.Command) *api.Limits {
	l := &api.Limits{}
	f := c.Flags()
	f.Int64Var(&l.Keys, "keys", 0, "how many API keys and client secrets it may have; 0: no limit")
	f.Int64Var(&l.Clients, "clients", 0, "how many clients it may have; 0: no limit")
	f.Float64Var(&l.TokensPerSecond, "tokens-per-second", 0, "how many tokens each replica of the issuer gives it in a second; 0: no limit")
	return l
}

func (a *app) tenantCreateCmd() *cobra.Command {
	c := &cobra.Command{
		Use: "create NAME", Short: "Make a tenant, and an API key for its admin; its secret is shown once", Args: cobra.ExactArgs(1),
		Long: "Make a tenant, and an API key for its admin; its secret is shown once.\n\nThe tenant's keys are good at its own issuer: QUASH_URL is what the answer names as issuer.",
	}
	limits := limitFlags(c)
	expires := c.Flags().Duration("expires", 0, "life of the admin's key, as in 720h (default 90 days)")
	reason := c.Flags().String("reason", "", "why, for the audit")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		cl, err := a.connect()
		if err != nil {
			return err
		}
		made, err := cl.CreateTenant(cmd.Context(), api.CreateTenantJSONRequestBody{Name: args[0], Limits: limits, ExpiresIn: life(cmd, *expires), Reason: *reason})
		if err != nil {
			return err
		}
		t := made.Value
		return a.print(made.Raw, func() {
			a.fields("name", t.Name, "issuer", t.Issuer, "admin's key", t.Admin.ID, "secret", t.Admin.Secret, "expires", at(t.Admin.ExpiresAt))
			a.note("The secret is shown this once. It is good at the tenant's issuer: quash login --issuer %s --key-file FILE", t.Issuer)
		})
	}
	return c
}

func (a *app) tenantLimitsCmd() *cobra.Command {
	c := &cobra.Command{
		Use: "limits NAME", Short: "Show a tenant's limits, or give it others: what is not named has none then", Args: cobra.ExactArgs(1),
		ValidArgsFunction: a.completeIDs(tenantList),
	}
	limits := limitFlags(c)
	reason := c.Flags().String("reason", "", "why, for the audit")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		cl, err := a.connect()
		if err != nil {
			return err
		}
		var is api.Answer[api.Tenant]
		f := cmd.Flags()
		if f.Changed("keys") || f.Changed("clients") || f.Changed("tokens-per-second") {
			is, err = cl.SetTenantLimits(cmd.Context(), args[0], api.SetTenantLimitsJSONRequestBody{Limits: *limits, Reason: *reason})
		} else {
			is, err = cl.GetTenant(cmd.Context(), args[0])
		}
		if err != nil {
			return err
		}
		return a.print(is.Value.Limits, func() {
			l := is.Value.Limits
			a.fields("keys", orNone(l.Keys), "clients", orNone(l.Clients), "tokens a second", rate(l.TokensPerSecond))
		})
	}
	return c
}

func (a *app) tenantAdminCmd() *cobra.Command {
	c := &cobra.Command{
		Use: "admin NAME", Short: "Make another API key with the role admin of a tenant; its secret is shown once", Args: cobra.ExactArgs(1),
		ValidArgsFunction: a.completeIDs(tenantList),
	}
	expires := c.Flags().Duration("expires", 0, "life, as in 720h (default 90 days)")
	reason := c.Flags().String("reason", "", "why, for the audit")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		cl, err := a.connect()
		if err != nil {
			return err
		}
		made, err := cl.CreateTenantAdmin(cmd.Context(), args[0], api.CreateTenantAdminJSONRequestBody{ExpiresIn: life(cmd, *expires), Reason: *reason})
		if err != nil {
			return err
		}
		return a.showKey(made.Raw)
	}
	return c
}

func (a *app) tenantExportCmd() *cobra.Command {
	return &cobra.Command{
		Use: "export NAME", Short: "Print all records of a tenant as JSON (or YAML); nothing in it is a secret", Args: cobra.ExactArgs(1),
		ValidArgsFunction: a.completeIDs(tenantList),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.connect()
			if err != nil {
				return err
			}
			all, err := cl.ExportTenant(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if a.output == asTable {
				a.output = asJSON // it is for programs
			}
			return a.print(all.Raw, nil)
		},
	}
}

// askRemains spaces the questions whether something is left of a tenant.
const askRemains = time.Second

func (a *app) tenantDeleteCmd() *cobra.Command {
	c := &cobra.Command{
		Use: "delete NAME --reason TEXT", Short: "Cut everything of a tenant and remove its records and signing keys", Args: cobra.ExactArgs(1),
		ValidArgsFunction: a.completeIDs(tenantList),
		Long:              "Cut everything of a tenant and remove its records and signing keys.\n\nIt is dead at once; its record goes after a minute, when no request from before can write any more. --wait waits until nothing is left, and shows it.",
	}
	reason := c.Flags().String("reason", "", "why, for the audit")
	wait := c.Flags().Duration("wait", 0, "wait for so long until nothing of it is left")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if *reason == "" {
			return usage("--reason is missing: why, for the audit")
		}
		cl, err := a.connect()
		if err != nil {
			return err
		}
		ended, err := cl.DeleteTenant(cmd.Context(), args[0], &api.DeleteTenantParams{Reason: reason})
		if err != nil {
			return err
		}
		if *wait == 0 {
			return a.print(ended.Raw, func() { a.fields("deleted", args[0], "id", ended.Value.ID) })
		}
		return a.untilGone(cmd.Context(), cl, args[0], *wait)
	}
	return c
}

// untilGone waits until nothing of a tenant is left, and shows that, or what there still is.
func (a *app) untilGone(ctx context.Context, cl *client.Client, name string, wait time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	for {
		left, err := cl.GetTenantRemains(client.Patient(ctx, wait), name)
		if err != nil {
			return err
		}
		r := left.Value
		if !r.None {
			select {
			case <-time.After(askRemains):
				continue
			case <-ctx.Done():
			}
		}
		count := func(n int64) string { return strconv.FormatInt(n, 10) }
		if err := a.print(left.Raw, func() {
			a.fields("tenant", name, "nothing left", fmt.Sprint(r.None), "record", fmt.Sprint(r.Record), "signing keys", fmt.Sprint(r.SigningKeys),
				"principals", count(r.Principals), "keys", count(r.Keys), "clients", count(r.Clients), "roles", count(r.Roles), "bindings", count(r.Bindings), "requests", count(r.Requests))
		}); err != nil {
			return err
		}
		if !r.None {
			return &exit{code: Failed, err: fmt.Errorf("after %s something of the tenant is left: it is removed in the background", wait)}
		}
		return nil
	}
}
