package cli

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/quash-project/quash/services/quash/api"
	"github.com/quash-project/quash/shared/guard/revoke"
)

// receipt is the answer about a committed entry.
type receipt struct {
	ID          string `json:"id"`
	Epoch       uint64 `json:"epoch"`
	Sequence    uint64 `json:"sequence"`
	CommittedAt string `json:"committed_at"`
	Confirmed   []struct {
		Name     string `json:"name"`
		Instance string `json:"instance"`
		At       string `json:"at"`
	} `json:"confirmed"`
	Redis *struct {
		AppliedAt string `json:"applied_at"`
		FencedBy  string `json:"fenced_by"`
	} `json:"redis"`
	Unconfirmed []struct {
		Name     string `json:"name"`
		Instance string `json:"instance"`
		FencedBy string `json:"fenced_by"`
		Open     bool   `json:"open"`
	} `json:"unconfirmed"`
	Complete bool `json:"complete"`
}

type revokeFlags struct {
	reason, issuer, tenant, key, then string
	hold, wait                        time.Duration
}

func (a *app) revokeCmd(op, short string) *cobra.Command {
	var f revokeFlags
	c := &cobra.Command{
		Use:   op + " TARGET… --reason TEXT",
		Short: short,
		Long: short + `.

TARGET is kind:id, percent-encoded where an id has / or %:
  principal:alice  sign-ins:alice  key:ID  client:ID  token:JTI  session:SID
  grant:SUB/CLIENT  signing-key:KID  role:NAME  binding:SUB/ROLE  issuer:NAME  tenant:NAME
or - for a leaked API key, client secret or token on standard input.`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeTargets,
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.reason == "" {
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
	fl.DurationVar(&f.wait, "wait", 0, "wait so long for every guard to confirm; exit code 3 if one has not")
	fl.StringVar(&f.key, "idempotency-key", "", "repeat a request whose outcome is unknown (default: a new one)")
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
	if f.key == "" {
		f.key = uuid.NewString()
	}
	targets, err := a.targets(ctx, args, f)
	if err != nil {
		return err
	}
	body := map[string]any{"op": op, "targets": targets, "reason": f.reason}
	for name, v := range map[string]string{"issuer": f.issuer, "tenant": f.tenant, "then": f.then} {
		if v != "" {
			body[name] = v
		}
	}
	if f.hold > 0 {
		body["for"] = f.hold.String()
	}
	raw, err := a.call(ctx, api.Call{Method: http.MethodPost, Path: "/v1/revocations", Body: body, Key: f.key, Patience: patience})
	if err != nil {
		return outcome(err, f.key)
	}
	var r receipt
	if err := json.Unmarshal(raw, &r); err != nil {
		return err
	}
	if f.wait > 0 {
		raw, r = a.await(ctx, raw, r, f.wait)
	}
	if a.output == "json" {
		if err := a.json(raw); err != nil {
			return err
		}
	} else {
		a.showReceipt(op, r)
	}
	if f.wait > 0 && !r.Complete {
		for _, u := range r.Unconfirmed {
			a.note("not confirmed: %s", unconfirmed(u.Name, u.Instance, u.FencedBy, u.Open))
		}
		if r.Redis != nil && r.Redis.AppliedAt == "" {
			a.note("not confirmed: the Redis view, fenced by %s", r.Redis.FencedBy)
		}
		return &exit{Unconfirmed, nil}
	}
	return nil
}

func unconfirmed(name, instance, fencedBy string, open bool) string {
	if open {
		return fmt.Sprintf("%s %s is open: it allows past its limit, and nothing bounds it", clean(name), clean(instance))
	}
	return fmt.Sprintf("%s %s, fenced by %s", clean(name), clean(instance), fencedBy)
}

// outcome tells a revocation that may have been committed from one that was not.
func outcome(err error, key string) error {
	var lost *api.Lost
	if errors.As(err, &lost) || codeOf(err) == UnknownOutcome {
		return &exit{UnknownOutcome, fmt.Errorf("the outcome is unknown: %w\nRepeat it with --idempotency-key %s; it is then done once", err, key)}
	}
	return err
}

// await asks again until the entry is complete or the time is over. What was
// committed stays committed, so an error ends the waiting and nothing else.
func (a *app) await(ctx context.Context, raw json.RawMessage, r receipt, wait time.Duration) (json.RawMessage, receipt) {
	end := a.env.Now().Add(wait)
	for !r.Complete && ctx.Err() == nil {
		left := end.Sub(a.env.Now())
		if left <= 0 {
			break
		}
		q := url.Values{"wait": {min(left, 10*time.Second).Round(time.Millisecond).String()}}
		next, err := a.call(ctx, api.Call{Method: http.MethodGet, Path: "/v1/revocations/" + url.PathEscape(r.ID), Query: q})
		if err == nil {
			var nr receipt
			if json.Unmarshal(next, &nr) == nil {
				raw, r = next, nr
				continue
			}
		}
		select { // the service is away: ask again soon
		case <-ctx.Done():
		case <-time.After(min(left, 250*time.Millisecond)):
		}
	}
	return raw, r
}

func (a *app) showReceipt(op string, r receipt) {
	complete := "no"
	if r.Complete {
		complete = "yes"
	}
	a.fields("op", op, "id", r.ID, "position", fmt.Sprintf("%d.%d", r.Epoch, r.Sequence), "committed", r.CommittedAt, "complete", complete)
	for _, c := range r.Confirmed {
		a.fields("confirmed", fmt.Sprintf("%s %s at %s", c.Name, c.Instance, c.At))
	}
	if r.Redis != nil {
		switch {
		case r.Redis.AppliedAt != "":
			a.fields("redis", fmt.Sprintf("applied at %s, fenced by %s", r.Redis.AppliedAt, r.Redis.FencedBy))
		default:
			a.fields("redis", "not yet applied, fenced by "+r.Redis.FencedBy)
		}
	}
	for _, u := range r.Unconfirmed {
		a.fields("unconfirmed", unconfirmed(u.Name, u.Instance, u.FencedBy, u.Open))
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
	raw, err := a.call(ctx, api.Call{Method: http.MethodGet, Path: "/v1/roles/" + url.PathEscape(name)})
	if err != nil {
		var refused *api.Refused
		if errors.As(err, &refused) && refused.Status == http.StatusNotFound {
			return t, usage("there is no role %q", name)
		}
		return t, fmt.Errorf("role %q: %w", name, err)
	}
	var role struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal(raw, &role); err != nil || role.ID == "" {
		return t, fmt.Errorf("role %q: the issuer's answer has no id", name)
	}
	t.ID = role.ID
	if subject != "" {
		t.ID = revoke.PairID(subject, role.ID)
	}
	return t, nil
}

// pasted finds out what the secrets on standard input are, one a line.
func (a *app) pasted(ctx context.Context) ([]string, error) {
	text, err := a.secretFrom("-")
	if err != nil {
		return nil, err
	}
	var out []string
	for n, secret := range strings.Fields(text) {
		if strings.EqualFold(secret, "bearer") || strings.EqualFold(secret, "authorization:") {
			continue // pasted with its header
		}
		t, err := a.recognize(ctx, secret)
		if err != nil {
			return nil, fmt.Errorf("secret %d on standard input: %w", n+1, err)
		}
		out = append(out, t)
	}
	return out, nil
}

func (a *app) recognize(ctx context.Context, secret string) (string, error) {
	if strings.Count(secret, ".") == 2 {
		return a.tokenTarget(secret)
	}
	if !looksSecret(secret) {
		return "", usage("it is neither a token (three parts with dots between) nor a Quash key or secret (quash_key_… or quash_secret_…)")
	}
	raw, err := a.call(ctx, api.Call{Method: http.MethodPost, Path: "/v1/lookups", Body: map[string]any{"secret": secret}})
	if err != nil {
		return "", err
	}
	var found struct {
		Target string `json:"target"`
	}
	if err := json.Unmarshal(raw, &found); err != nil || found.Target == "" {
		return "", errors.New("the issuer's answer has no target")
	}
	a.note("recognized: %s", clean(found.Target))
	return found.Target, nil
}

// tokenTarget reads the jti of a leaked token. It is not verified: a token that
// nobody signed has an id that hits nothing.
func (a *app) tokenTarget(token string) (string, error) {
	part := strings.Split(token, ".")[1]
	data, err := base64.RawURLEncoding.DecodeString(part)
	var claims struct {
		ID  string `json:"jti"`
		Iss string `json:"iss"`
	}
	if err == nil {
		err = json.Unmarshal(data, &claims)
	}
	if err != nil || claims.ID == "" {
		return "", usage("it looks like a token, but has no jti that can be read")
	}
	if cl, err := a.api(); err == nil && claims.Iss != cl.Base() {
		return "", usage("the token is of the issuer %.100q, not of %s", claims.Iss, cl.Base())
	}
	t, err := revoke.NewTarget("default", "", revoke.KindToken, claims.ID)
	if err != nil {
		return "", &exit{Usage, err}
	}
	a.note("recognized: %s", clean(t.String()))
	return t.String(), nil
}
