package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/quash-project/quash/shared/client"
	"github.com/quash-project/quash/shared/client/api"
	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/selector"
)

type revokeFlags struct {
	op, reason, code, issuer, tenant, key, then string
	hold, wait                                  time.Duration
	sel, file, plan, confirm, incident          string
	dryRun, glass                               bool
	waits                                       *waits // what a second person has to approve
}

func (a *app) revokeCmd(op, short string) *cobra.Command {
	f := revokeFlags{op: op}
	c := &cobra.Command{
		Use:   op + " TARGET…|-|--file F|--select EXPR --reason TEXT",
		Short: short,
		Long: short + `.

TARGET is kind:id, percent-encoded where an id has / or %:
  principal:alice  sign-ins:alice  key:ID  client:ID  token:JTI  session:SID
  grant:SUB/CLIENT  signing-key:KID  role:NAME  binding:SUB/ROLE  issuer:NAME  tenant:NAME
or - for what has leaked, on standard input: an API key, client secret or token, or a
whole text in which there are some, as a log or a source file. quash find shows
beforehand what it finds there.

--file F takes up to 1,000,000 targets, one a line, and keeps beside it in F.journal what
was done: the same command again goes on where one ended, and does nothing twice.
--select EXPR takes what is named by what it is, as in
  keys where owner=alice and label=ci and unused>90d and made>=2026-01-01
  principals where client=client_4fzd
--dry-run shows what would be hit, and a plan that --plan demands. At a terminal whoever
names much sees that first, and types its name.

Where policy wants a second person nothing is cut yet: it waits for quash approve ID, and the
exit code is 7. --wait waits for that too.`,
		ValidArgsFunction: a.completeTargets,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(args); err != nil {
				return err
			}
			if f.reason == "" && !f.dryRun {
				return usage("--reason is missing: it stands in the audit, as in --reason \"key found in a public repository\"")
			}
			if cmd.Flags().Changed("for") && f.hold <= 0 {
				return usage("--for %s: a hold takes some time; leave it out for one until released", f.hold)
			}
			return a.commit(cmd.Context(), op, args, f)
		},
	}
	fl := c.Flags()
	fl.StringVar(&f.reason, "reason", "", "why, for the audit (required)")
	fl.StringVar(&f.issuer, "issuer", "", "the issuer of the targets, by its short name (default: the tenant's own)")
	fl.StringVar(&f.tenant, "tenant", "", "the tenant of the targets (default: your own)")
	fl.DurationVar(&f.wait, "wait", 0, "wait so long for every guard to confirm, and for a second person before where one is needed; exit code 3 if one has not, 7 if nobody has agreed")
	fl.StringVar(&f.key, "idempotency-key", "", "repeat a request whose outcome is unknown (default: a new one)")
	fl.StringVar(&f.code, "code", "", "why, in a word of RFC 5280, RISC or CAEP, as in keyCompromise")
	fl.StringVar(&f.file, "file", "", "a file of targets, one a line; - for standard input")
	fl.StringVar(&f.sel, "select", "", "a selector of targets, as in \"keys where owner=alice\"")
	fl.StringVar(&f.confirm, "confirm", "", "the name of the one target, or how many there are: nobody is asked")
	if op != "release" {
		fl.BoolVar(&f.dryRun, "dry-run", false, "only show what would be hit, and a plan")
		fl.BoolVar(&f.glass, "break-glass", false, "cut at once where a second person would have to agree; it is loud, in receipt, audit, log and metrics")
		fl.StringVar(&f.plan, "plan", "", "the plan of a dry run: refused when this is something else, or would hit more")
	}
	incidentFlag(fl, &f.incident)
	completed(c, "code", completeOne(commit.Codes()...))
	if op == "hold" {
		fl.DurationVar(&f.hold, "for", 0, "end the hold after this long (default: until released)")
		fl.StringVar(&f.then, "then", "", "what comes at the end of --for: release (default) or revoke")
	}
	return c
}

// patience is how long a change goes on being asked for while the log can't
// commit: a leader that crashed is replaced in 4 to 8 s.
const patience = 10 * time.Second

func (a *app) commit(ctx context.Context, op string, args []string, f revokeFlags) error {
	if f.wait < 0 {
		return usage("--wait %s: it is not negative", f.wait)
	}
	cl, err := a.connect()
	if err != nil {
		return err
	}
	if f.incident, err = a.underIncident(f.incident); err != nil {
		return err
	}
	targets, lines, err := a.gather(ctx, cl, args, f)
	if err != nil {
		return err
	}
	if f.dryRun {
		sum, raw, _, err := a.preview(ctx, cl, op, targets, f)
		if err != nil {
			return err
		}
		return a.print(raw, func() { a.fields(a.showPreview(sum, f)...) })
	}
	plans, err := a.confirmed(ctx, cl, op, targets, f)
	if err != nil {
		return err
	}
	body := api.CommitRevocationJSONRequestBody{
		Op: api.CommitOp(op), Reason: f.reason, Code: api.CommitCode(f.code), Issuer: f.issuer, Tenant: f.tenant, Then: f.then, Plan: f.plan,
		Incident: f.incident, BreakGlass: f.glass,
	}
	if f.hold > 0 {
		body.For = f.hold.String()
	}
	f.waits = &waits{}
	end := a.env.Now().Add(f.wait)
	committed, ids, err := a.send(ctx, cl, targets, lines, plans, body, f)
	if err != nil {
		return err
	}
	if len(f.waits.parts) > 0 {
		f.waits.committed = ids
		if committed, ids, err = a.afterSecond(ctx, cl, f.waits, end); err != nil {
			return err
		}
	}
	if f.wait > 0 {
		committed = a.await(ctx, cl, committed, end.Sub(a.env.Now()))
	}
	r := committed.Value
	if err := a.printAll(op, committed, ids); err != nil {
		return err
	}
	if f.wait > 0 && !r.Complete {
		for _, u := range r.Unconfirmed {
			a.note("not confirmed: %s", unconfirmed(u))
		}
		if r.Redis != nil && r.Redis.AppliedAt.IsZero() {
			a.note("not confirmed: the Redis view, fenced by %s", at(r.Redis.FencedBy))
		}
		return &exit{Unconfirmed, nil}
	}
	return nil
}

// printAll prints the last entry, and the ids of all where there are several: each is undone
// by its own.
func (a *app) printAll(op string, last api.Answer[api.Entry], ids []string) error {
	if len(ids) < 2 {
		return a.print(last.Raw, func() { a.showReceipt(op, last.Value) })
	}
	all := map[string]any{}
	if err := json.Unmarshal(last.Raw, &all); err != nil {
		return err
	}
	all["ids"] = ids
	return a.print(all, func() {
		for _, id := range ids[:len(ids)-1] {
			a.fields("id", id)
		}
		a.showReceipt(op, last.Value)
	})
}

// check tells what does not go together.
func (f *revokeFlags) check(args []string) error {
	switch {
	case len(args) == 0 && f.file == "" && f.sel == "":
		return usage("name what is to be cut: a target as key:ID, - for what has leaked, --file or --select")
	case f.file == "-" && slices.Contains(args, "-"):
		return usage("standard input is named twice, by - and by --file -")
	case f.file != "" && (len(args) > 0 || f.sel != ""):
		return usage("--file goes alone: its journal is that of its lines")
	case f.sel != "" && f.issuer != "" && f.issuer != revoke.Own:
		return usage("--select names targets of the tenant's own issuer, and --issuer %.60q is another: name its targets, or give them by --file", f.issuer)
	case f.dryRun && f.plan != "":
		return usage("--dry-run makes a plan, and --plan is for the command after it")
	}
	return nil
}

// gather returns all targets, and of those of a file their lines.
func (a *app) gather(ctx context.Context, cl *client.Client, args []string, f revokeFlags) (targets []string, lines []int, err error) {
	if f.file != "" {
		return a.readTargets(ctx, f)
	}
	if targets, err = a.targets(ctx, args, f); err != nil || f.sel == "" {
		return targets, nil, err
	}
	if _, err := selector.Parse(f.sel); err != nil {
		return nil, nil, usage("--select: %w", err)
	}
	more, err := a.selected(ctx, cl, f.sel)
	if err != nil {
		return nil, nil, err
	}
	a.note("the selector names %d targets", len(more))
	if targets = append(targets, more...); len(targets) == 0 {
		return nil, nil, &exit{Failed, errors.New("nothing fits the selector: nothing was done")}
	}
	return targets, nil, nil
}

// send commits as many targets as there are, and returns the last entry and the ids of all.
func (a *app) send(ctx context.Context, cl *client.Client, targets []string, lines []int, plans []string, body api.Commit, f revokeFlags) (last api.Answer[api.Entry], ids []string, err error) {
	j, err := a.journalOf(targets, f)
	if err != nil {
		return last, nil, err
	}
	if j != nil {
		defer j.file.Close()
	}
	if f.key == "" {
		f.key = uuid.NewString()
	}
	parts := partsOf(targets, lines)
	if f.plan != "" && len(parts) > 1 {
		return last, nil, usage("--plan is that of up to %d targets, and these are %d", wire.MaxTargets, len(targets))
	}
	if j != nil {
		f.key = j.head.Key
	}
	if len(parts) > 1 || j != nil {
		last, ids, err = a.bulk(ctx, cl, parts, plans, j, body, f)
		if err != nil {
			return last, ids, outcome(err, f.key)
		}
		return last, ids, nil
	}
	body.Targets = targets
	if len(plans) > 0 {
		body.Plan = plans[0]
	}
	one, off, err := a.commitOne(ctx, cl, &body, f.key)
	switch {
	case err != nil:
		return one, nil, outcome(err, f.key)
	case off != nil:
		f.waits.parts = append(f.waits.parts, *off)
		return one, nil, nil
	}
	return one, []string{one.Value.ID}, nil
}

// guard names one of the fleet. A tenant is not told their names.
func guard(name, instance string) string {
	if name == "" {
		return clean(instance)
	}
	return clean(name) + " " + clean(instance)
}

func unconfirmed(u api.Unconfirmed) string {
	if u.Open {
		return fmt.Sprintf("%s is open: it allows past its limit, and nothing bounds it", guard(u.Name, u.Instance))
	}
	return fmt.Sprintf("%s, fenced by %s", guard(u.Name, u.Instance), at(u.FencedBy))
}

// outcome tells a revocation that may have been committed from one that was not.
func outcome(err error, key string) error {
	if client.Unknown(err) || codeOf(err) == UnknownOutcome {
		return &exit{UnknownOutcome, fmt.Errorf("the outcome is unknown: %w\nRepeat it with --idempotency-key %s; it is then done once", err, key)}
	}
	return err
}

// await asks again until the entry is complete or the time is over. What was
// committed stays committed, so an error ends the waiting and nothing else.
func (a *app) await(ctx context.Context, cl *client.Client, r api.Answer[api.Entry], wait time.Duration) api.Answer[api.Entry] {
	end := a.env.Now().Add(wait)
	for !r.Value.Complete && ctx.Err() == nil {
		left := end.Sub(a.env.Now())
		if left <= 0 {
			break
		}
		next, err := cl.GetRevocation(ctx, r.Value.ID, &api.GetRevocationParams{Wait: new(turn(left))})
		if err == nil {
			r = next
			continue
		}
		pause(ctx, left)
	}
	return r
}

func (a *app) showReceipt(op string, r api.Entry) {
	complete := "no"
	if r.Complete {
		complete = "yes"
	}
	a.fields("op", op, "id", r.ID, "code", r.Code, "incident", r.Incident, "position", fmt.Sprintf("%d.%d", r.Epoch, r.Sequence), "committed", at(r.CommittedAt), "complete", complete)
	a.notGathered(r.NotGathered)
	for _, c := range r.Confirmed {
		a.fields("confirmed", fmt.Sprintf("%s at %s", guard(c.Name, c.Instance), at(c.At)))
	}
	if r.Redis != nil {
		applied := "not yet applied"
		if !r.Redis.AppliedAt.IsZero() {
			applied = "applied at " + at(r.Redis.AppliedAt)
		}
		a.fields("redis", applied+", fenced by "+at(r.Redis.FencedBy))
	}
	for _, u := range r.Unconfirmed {
		a.fields("unconfirmed", unconfirmed(u))
	}
}

// targets checks what was asked for and looks up what people name differently
// from the log: roles, and pasted secrets. Nothing else waits for the issuer.
func (a *app) targets(ctx context.Context, args []string, f revokeFlags) ([]string, error) {
	tenant := f.tenant
	if tenant == "" {
		tenant = "default" // for the check only; the service knows the caller's own
	}
	var out []string
	for _, arg := range args {
		if arg == "-" {
			ts, err := a.pasted(ctx)
			if err != nil {
				return nil, err
			}
			out = append(out, ts...)
			continue
		}
		if looksSecret(arg) {
			return nil, usage("a secret never goes on a command line: write it to standard input, and give - as the target")
		}
		issuer := f.issuer
		if k, id, ok := strings.Cut(arg, ":"); ok && k == revoke.KindIssuer.String() && issuer == "" {
			issuer = id
		}
		if k, id, ok := strings.Cut(arg, ":"); ok && k == revoke.KindTenant.String() && f.tenant == "" {
			tenant = id
		}
		t, err := revoke.ParseTarget(tenant, issuer, arg)
		if err != nil {
			return nil, &exit{Usage, err}
		}
		if t, err = a.resolveRole(ctx, t); err != nil {
			return nil, err
		}
		out = append(out, t.String())
	}
	return out, nil
}

// resolveRole puts the role's id where the person gave its name.
func (a *app) resolveRole(ctx context.Context, t revoke.Target) (revoke.Target, error) {
	var subject, name string
	switch t.Kind {
	case revoke.KindRole:
		name = t.ID
	case revoke.KindBinding:
		var err error
		if subject, name, err = revoke.SplitPair(t.ID); err != nil {
			return t, &exit{Usage, err}
		}
	default:
		return t, nil
	}
	cl, err := a.connect()
	if err != nil {
		return t, err
	}
	role, err := cl.GetRole(ctx, name)
	if err != nil {
		if refusedAs(err, http.StatusNotFound) {
			return t, usage("there is no role %q", name)
		}
		return t, fmt.Errorf("role %q: %w", name, err)
	}
	if role.Value.ID == "" {
		return t, fmt.Errorf("role %q: the issuer's answer has no id", name)
	}
	t.ID = role.Value.ID
	if subject != "" {
		t.ID = revoke.PairID(subject, role.Value.ID)
	}
	return t, nil
}
