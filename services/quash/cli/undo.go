package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/quash-project/quash/shared/client"
	"github.com/quash-project/quash/shared/client/api"
	"github.com/quash-project/quash/shared/guard/revoke"
)

func (a *app) undoCmd() *cobra.Command {
	c := &cobra.Command{
		Use: "undo ID --reason TEXT", Short: "End a hold by the id that it was answered with; of a revocation, tell what to make anew",
		Long: `End a hold by the id that it was answered with; newer holds of its targets stay. A revocation is final: what is to be
made anew, and for whom, is told instead, and the exit code is 1.`,
		Args: cobra.ExactArgs(1),
	}
	reason := c.Flags().String("reason", "", "why, for the audit (required)")
	var incident string
	incidentFlag(c.Flags(), &incident)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if *reason == "" {
			return usage("--reason is missing: why, for the audit")
		}
		cl, err := a.connect()
		if err != nil {
			return err
		}
		under, err := a.underIncident(incident)
		if err != nil {
			return err
		}
		e, err := cl.GetRevocation(cmd.Context(), args[0], nil)
		if err != nil {
			return err
		}
		switch e.Value.Op {
		case api.EntryOpHold:
			// The same hold undone again is the same request.
			key := uuid.NewSHA1(uuid.NameSpaceURL, []byte("quash undo "+e.Value.ID+" "+*reason)).String()
			return a.release(cmd.Context(), cl, e.Value, *reason, under, key)
		case api.EntryOpRelease:
			return &exit{Failed, fmt.Errorf("that was a release: hold again what is to be held, as in quash hold %s --reason TEXT", clean(words(e.Value.Targets)))}
		}
		a.anew(cmd.Context(), cl, e.Value)
		return &exit{Failed, fmt.Errorf("a revocation is final, and nothing was done")}
	}
	return c
}

func (a *app) release(ctx context.Context, cl *client.Client, e api.Entry, reason, incident, key string) error {
	body := api.CommitRevocationJSONRequestBody{Op: "release", Targets: e.Targets, Reason: reason, Issuer: e.Issuer, Of: e.ID, Incident: incident}
	done, err := cl.CommitRevocation(client.Patient(ctx, patience), nil, body, client.IdempotencyKey(key))
	if a.refusedKept(err, &body.Incident) {
		done, err = cl.CommitRevocation(client.Patient(ctx, patience), nil, body, client.IdempotencyKey(key))
	}
	if err != nil {
		return outcome(err, key)
	}
	return a.print(done.Raw, func() { a.showReceipt("release", done.Value) })
}

// maxAnew is of how many targets it is told what to make anew.
const maxAnew = 100

// anew tells what would give back what a revocation has taken.
func (a *app) anew(ctx context.Context, cl *client.Client, e api.Entry) {
	for i, target := range e.Targets {
		if i == maxAnew {
			a.note("and so on, for %d more targets", len(e.Targets)-i)
			return
		}
		kind, id, _ := strings.Cut(target, ":")
		switch k, _ := revoke.ParseKind(kind); k {
		case revoke.KindKey:
			a.anewKey(ctx, cl, target, id)
		case revoke.KindPrincipal, revoke.KindGrant, revoke.KindClient:
			a.anewKeys(ctx, cl, target, k, id)
		case revoke.KindSigningKey:
			a.note("%s: a signing key stays dead; quash rotate signing-key makes another", clean(target))
		case revoke.KindToken, revoke.KindSession, revoke.KindSignIns:
			a.note("%s: its holder gets another token with their credential", clean(target))
		case revoke.KindRole, revoke.KindBinding:
			a.note("%s: quash role renew, or give the role again: what was made before stays cut", clean(target))
		default:
			a.note("%s: what is made from now on is good; what was made before has to be made anew", clean(target))
		}
	}
}

func (a *app) anewKey(ctx context.Context, cl *client.Client, target, id string) {
	k, err := cl.GetKey(ctx, id)
	if err != nil {
		a.note("%s: its record is gone; make another key for its owner", clean(target))
		return
	}
	a.note("%s: %s", clean(target), making(k.Value))
}

func making(k api.Key) string {
	text := "quash key create --owner " + k.Owner
	for _, s := range k.Scopes {
		text += " --scope " + s
	}
	for _, r := range k.Roles {
		text += " --role " + r
	}
	if k.ClientID != "" && !strings.HasPrefix(k.ClientID, "key_") {
		text += " --client " + k.ClientID
	}
	return clean(text)
}

// anewKeys tells of the keys that such a target has cut.
func (a *app) anewKeys(ctx context.Context, cl *client.Client, target string, kind revoke.Kind, id string) {
	q := url.Values{"state": {"revoked"}, "limit": {"20"}}
	switch kind {
	case revoke.KindClient:
		q.Set("client_id", id)
	case revoke.KindGrant:
		sub, of, err := revoke.SplitPair(id)
		if err != nil {
			return
		}
		q.Set("owner", sub)
		q.Set("client_id", of)
	default:
		q.Set("owner", id)
	}
	keys, err := cl.ListKeys(ctx, nil, client.Query(q))
	var list struct {
		Items    []api.Key `json:"items"`
		NextPage string    `json:"next_page"`
	}
	if err != nil || json.Unmarshal(keys.Raw, &list) != nil || len(list.Items) == 0 {
		a.note("%s: what is made from now on is good; no key of it is known that was cut", clean(target))
		return
	}
	for _, k := range list.Items {
		a.note("%s: instead of key:%s: %s", clean(target), clean(k.ID), making(k))
	}
	if list.NextPage != "" {
		a.note("%s: and others; quash key list --state revoked shows them", clean(target))
	}
}
