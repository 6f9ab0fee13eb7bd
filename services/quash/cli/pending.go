package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quash-project/quash/shared/client"
	"github.com/quash-project/quash/shared/client/api"
)

// pendingList is the list of what waits for a second person.
var pendingList = listOf((*client.Client).ListPending, func(p api.Pending) (id, about string) { return p.ID, string(p.Op) + " " + p.Targets[0] })

// commitOne commits, unless a second person has to agree first: then the Pending is not nil.
func (a *app) commitOne(ctx context.Context, cl *client.Client, body *api.Commit, key string) (api.Answer[api.Entry], *api.Pending, error) {
	e, err := cl.CommitRevocation(client.Patient(ctx, patience), nil, *body, client.IdempotencyKey(key))
	if a.refusedKept(err, &body.Incident) {
		e, err = cl.CommitRevocation(client.Patient(ctx, patience), nil, *body, client.IdempotencyKey(key))
	}
	if err != nil || e.Status != http.StatusAccepted {
		return e, nil, err
	}
	var off api.PutOff
	if err := json.Unmarshal(e.Raw, &off); err != nil {
		return e, nil, fmt.Errorf("the answer is not as the OpenAPI document says: %w", err)
	}
	return e, &off.Pending, nil
}

// waits gathers what a command has asked for that waits for a second person.
type waits struct {
	parts     []api.Pending
	committed []string // ids of what was not put off
}

// told tells a person what waits, and ends the command so that a script sees it.
func (a *app) told(w *waits) error {
	one := w.parts[0]
	out := map[string]any{"pending": one}
	if len(w.parts) > 1 {
		out["whole"], out["parts"] = one.Whole, len(w.parts)
	}
	if len(w.committed) > 0 {
		out["ids"] = w.committed
	}
	err := a.print(out, func() {
		a.showPending(one)
		if len(w.parts) > 1 {
			a.fields("parts that wait", fmt.Sprint(len(w.parts)), "whole", one.Whole)
		}
		for _, id := range w.committed {
			a.fields("committed", id)
		}
	})
	if err != nil {
		return err
	}
	with := one.ID
	if len(w.parts) > 1 {
		with = "--whole " + one.Whole
	}
	a.note("a second person has to agree: nothing of this was cut yet. They run: quash approve %s", clean(with))
	return &exit{Waiting, nil}
}

// decided waits until all is decided or the time is over, and reports what is left undecided.
func (a *app) decided(ctx context.Context, cl *client.Client, w *waits, until time.Time) (left []api.Pending, err error) {
	for _, p := range w.parts {
		for p.State == api.PendingStatePending && ctx.Err() == nil && a.env.Now().Before(until) {
			pause(ctx, until.Sub(a.env.Now()))
			if next, err := cl.GetPending(ctx, p.ID); err == nil {
				p = next.Value
			}
		}
		switch p.State {
		case api.PendingStatePending:
			left = append(left, p)
		case api.PendingStateApproved:
			w.committed = append(w.committed, p.ID)
		case api.PendingStateDenied:
			return nil, &exit{Failed, fmt.Errorf("%s was denied by %s: %s", clean(p.ID), clean(p.DecidedBy), clean(p.Decision))}
		default:
			return nil, &exit{Failed, fmt.Errorf("%s is %s: nothing was cut", clean(p.ID), p.State)}
		}
	}
	return left, nil
}

// afterSecond waits for the second person as long as --wait says, and returns the last entry
// and the ids of all; otherwise the error ends the command.
func (a *app) afterSecond(ctx context.Context, cl *client.Client, w *waits, until time.Time) (last api.Answer[api.Entry], ids []string, err error) {
	left, err := a.decided(ctx, cl, w, until)
	if err != nil {
		return last, nil, err
	}
	if len(left) > 0 {
		w.parts = left
		return last, nil, a.told(w)
	}
	last, err = cl.GetRevocation(client.Patient(ctx, patience), w.committed[len(w.committed)-1], nil)
	return last, w.committed, err
}

// targetsOf is how many targets one has: a list names the first few.
func targetsOf(p api.Pending) int { return max(int(p.TargetsCount), len(p.Targets)) }

func (a *app) showPending(p api.Pending) {
	targets := strings.Join(p.Targets[:min(len(p.Targets), many)], ", ")
	if more := targetsOf(p) - min(len(p.Targets), many); more > 0 {
		targets += fmt.Sprintf(" and %d more", more)
	}
	a.fields("id", p.ID, "state", string(p.State), "op", string(p.Op), "targets", targets, "issuer", p.Issuer, "for", p.For, "then", p.Then,
		"reason", p.Reason, "code", p.Code, "asked by", p.Actor, "incident", p.Incident, "asked", at(p.AskedAt), "why two", p.Why, "expires", at(p.ExpiresAt), "part of", p.Whole)
	if p.DecidedBy != "" {
		a.fields("decided by", p.DecidedBy, "decided", at(p.DecidedAt), "because", p.Decision, "failed", p.Failed)
	}
}

func (a *app) pendingCmd() *cobra.Command {
	var state, whole string
	c := &cobra.Command{
		Use: "pending [ID]", Short: "What waits for a second person", Args: cobra.MaximumNArgs(1),
		Long:              "What waits for a second person; with an ID that one, decided or not. quash approve\nlets it happen, quash deny ends it.",
		ValidArgsFunction: a.completeIDs(pendingList),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.connect()
			if err != nil {
				return err
			}
			if len(args) == 1 {
				p, err := cl.GetPending(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				return a.print(p.Raw, func() { a.showPending(p.Value) })
			}
			all, err := pendingOf(cmd.Context(), cl, state, whole)
			if err != nil {
				return err
			}
			return a.print(all.Raw, func() {
				var rows [][]string
				for _, p := range all.Value.Items {
					target := p.Targets[0]
					if n := targetsOf(p); n > 1 {
						target += fmt.Sprintf(" and %d more", n-1)
					}
					rows = append(rows, []string{at(p.AskedAt), string(p.State), string(p.Op), target, p.Actor, p.Reason, at(p.ExpiresAt), p.ID})
				}
				a.table([]string{"ASKED", "STATE", "OP", "TARGET", "BY", "REASON", "EXPIRES", "ID"}, rows)
			})
		},
	}
	c.Flags().StringVar(&state, "state", "pending", "pending, approved, denied, expired, break-glass or all")
	c.Flags().StringVar(&whole, "whole", "", "only the parts of this whole")
	return c
}

func pendingOf(ctx context.Context, cl *client.Client, state, whole string) (api.Answer[api.ListPending], error) {
	params := &api.ListPendingParams{State: new(api.ListPendingParamsState(state))}
	if whole != "" {
		params.Whole = &whole
	}
	return client.All(func(page api.RequestEditorFn) (api.Answer[api.ListPending], error) {
		return cl.ListPending(ctx, params, page)
	})
}

// named are the ids that a decision is about.
func (a *app) idsOf(ctx context.Context, cl *client.Client, args []string, whole string) ([]string, error) {
	if (len(args) == 0) == (whole == "") {
		return nil, usage("name what is decided: ids, or --whole")
	}
	if whole == "" {
		return args, nil
	}
	all, err := pendingOf(ctx, cl, "pending", whole)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, p := range all.Value.Items {
		ids = append(ids, p.ID)
	}
	if len(ids) == 0 {
		return nil, &exit{Failed, errors.New("nothing of this whole waits for a second person")}
	}
	return ids, nil
}

func (a *app) approveCmd() *cobra.Command {
	var whole, reason string
	c := &cobra.Command{
		Use: "approve ID…|--whole WHOLE", Short: "Agree as the second person: what waits is cut", ValidArgsFunction: a.completeIDs(pendingList),
		Long: `Agree as the second person to what quash pending shows. It is committed then, under the
same id, for whoever asked; you are named beside them in the audit and in the receipt.
What you have asked for yourself you can't approve, by whichever key. The same command
again does no more.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.connect()
			if err != nil {
				return err
			}
			ids, err := a.idsOf(cmd.Context(), cl, args, whole)
			if err != nil {
				return err
			}
			var last api.Answer[api.Entry]
			for i, id := range ids {
				last, err = cl.ApprovePending(client.Patient(cmd.Context(), patience), id, nil, api.ApprovePendingJSONRequestBody{Reason: reason})
				if client.Unknown(err) {
					return &exit{UnknownOutcome, fmt.Errorf("the outcome is unknown: %w\nRun the same again: it is done once", err)}
				}
				if refusedAs(err, http.StatusForbidden) && !strings.Contains(err.Error(), "scope") {
					return &exit{NotAllowed, errors.New(err.Error())} // no role or scope would help
				}
				if err != nil {
					return fmt.Errorf("%s, after %d of %d: %w", clean(id), i, len(ids), err)
				}
			}
			return a.printAll(string(last.Value.Op), last, ids)
		},
	}
	c.Flags().StringVar(&whole, "whole", "", "all parts of this whole that wait, as of a file")
	c.Flags().StringVar(&reason, "reason", "", "why, for the audit")
	return c
}

func (a *app) denyCmd() *cobra.Command {
	var whole, reason string
	c := &cobra.Command{
		Use: "deny ID…|--whole WHOLE --reason TEXT", Short: "Say no as the second person, or take back what you have asked for", ValidArgsFunction: a.completeIDs(pendingList),
		RunE: func(cmd *cobra.Command, args []string) error {
			if reason == "" {
				return usage("--reason is missing: why, for the audit and for whoever asked")
			}
			cl, err := a.connect()
			if err != nil {
				return err
			}
			ids, err := a.idsOf(cmd.Context(), cl, args, whole)
			if err != nil {
				return err
			}
			var last api.Answer[api.Pending]
			for i, id := range ids {
				if last, err = cl.DenyPending(client.Patient(cmd.Context(), patience), id, api.DenyPendingJSONRequestBody{Reason: reason}); err != nil {
					return fmt.Errorf("%s, after %d of %d: %w", clean(id), i, len(ids), err)
				}
			}
			return a.print(last.Raw, func() { a.showPending(last.Value) })
		},
	}
	c.Flags().StringVar(&whole, "whole", "", "all parts of this whole that wait, as of a file")
	c.Flags().StringVar(&reason, "reason", "", "why (required)")
	return c
}
