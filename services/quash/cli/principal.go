package cli

import (
	"context"
	"encoding/json"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/quash-project/quash/shared/client"
	"github.com/quash-project/quash/shared/client/api"
)

func (a *app) principalCmd() *cobra.Command {
	r := records{
		app: a, what: "a principal", id: "ID", list: principalList, show: a.showPrincipal,
		get: func(ctx context.Context, c *client.Client, id string, with api.RequestEditorFn) (json.RawMessage, error) {
			return raw(c.GetPrincipal(ctx, id, with))
		},
		remove: func(ctx context.Context, c *client.Client, id string, with api.RequestEditorFn) (json.RawMessage, error) {
			return raw(c.DeletePrincipal(ctx, id, nil, with))
		},
		head: []string{"ID", "KIND", "NAME", "KEYS", "ROLES", "STATE", "CREATED"},
		row: read(func(p api.Principal) []string {
			return []string{p.ID, string(p.Kind), p.Name, ownedKeys(p), words(p.Roles), string(p.State), at(p.CreatedAt)}
		}),
		deletes: "Delete a principal, its API keys and its roles, and end every token of it",
	}
	list := r.listCmd()
	list.Short = "List those that have a record"
	list.Flags().String("kind", "", "only persons, or only workloads")
	list.Flags().StringSlice("label", nil, "only those with this label, as in team=orders; repeatable")
	completed(list, "kind", completeOne("person", "workload"))
	show := r.showCmd()
	show.Short = "Show a principal, and what it has"
	del := r.deleteCmd()
	del.Long = del.Short + ".\n\nThe name can be given again: what it has then is clean. To stop a principal for a while: quash hold principal:ID."
	return group("principal", "Principals: the people and workloads that own API keys and have roles", a.principalCreateCmd(), list, show, del)
}

func (a *app) principalCreateCmd() *cobra.Command {
	var kind, name, reason string
	var labels map[string]string
	c := &cobra.Command{
		Use: "create ID", Short: "Make the record of a principal; keys and roles that it has by its name are then its own", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.connect()
			if err != nil {
				return err
			}
			made, err := cl.CreatePrincipal(cmd.Context(), api.CreatePrincipalJSONRequestBody{
				ID: args[0], Kind: api.CreatePrincipalInputBodyKind(kind), Name: name, Labels: labels, Reason: reason,
			})
			if err != nil {
				return err
			}
			return a.showPrincipal(made.Raw)
		},
	}
	f := c.Flags()
	f.StringVar(&kind, "kind", "person", "person or workload")
	f.StringVar(&name, "name", "", "a name for people")
	f.StringToStringVar(&labels, "label", nil, "a label to find it by, as in team=orders; repeatable")
	f.StringVar(&reason, "reason", "", "why, for the audit")
	completed(c, "kind", completeOne("person", "workload"))
	return c
}

// ownedKeys says how many API keys a principal has, and how many are good.
func ownedKeys(p api.Principal) string {
	text := strconv.FormatInt(p.Keys, 10)
	if p.ActiveKeys != p.Keys {
		text += ", " + strconv.FormatInt(p.ActiveKeys, 10) + " active"
	}
	return text
}

func (a *app) showPrincipal(text json.RawMessage) error {
	var p api.Principal
	if err := json.Unmarshal(text, &p); err != nil {
		return err
	}
	return a.print(text, func() {
		a.fields("id", p.ID, "kind", string(p.Kind), "name", p.Name, "labels", words(labelled(p.Labels)), "keys", ownedKeys(p), "roles", words(p.Roles),
			"state", string(p.State), "hit by", words(p.HitBy),
			"created", at(p.CreatedAt), "changed by", p.ChangedBy, "changed", at(p.ChangedAt), "reason", p.Reason)
	})
}
