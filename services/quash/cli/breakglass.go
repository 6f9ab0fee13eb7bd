package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"github.com/quash-project/quash/shared/client/api"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/natsapi"
	"github.com/quash-project/quash/shared/problem"
)

// glass is how the break-glass identity asks.
type glass struct {
	*app
	url, creds, reason string
}

func (a *app) breakGlassCmd() *cobra.Command {
	g := &glass{app: a}
	c := group("break-glass", "When a hold or a cut has locked everybody out", g.holdsCmd(), g.releaseCmd(), g.promoteCmd(), g.operatorCmd())
	c.Long = `When a hold or a cut has locked everybody out: see what is held, release it, let
the next signing key sign, make an operator's key. No token is asked for: only the
break-glass identity may, creds/break-glass.creds of the directory that quash nats
init has made. Keep it offline; every use is logged, counted and in the audit.`
	pf := c.PersistentFlags()
	pf.StringVar(&g.url, "nats-url", "", "servers, separated by commas (default $QUASH_NATS_URL)")
	pf.StringVar(&g.creds, "creds", "", "credentials of the break-glass identity (required)")
	pf.StringVar(&g.reason, "reason", "", "who does it and why, for the audit (required)")
	return c
}

// ask sends one request, again while nobody can do it now.
func ask[Resp any](ctx context.Context, g *glass, subject string, req any) (Resp, error) {
	var zero Resp
	if g.reason == "" {
		return zero, usage("--reason is missing: who does it and why; it stands in the audit")
	}
	if g.creds == "" {
		return zero, usage("--creds is missing: the file break-glass.creds of quash nats init (of quash dev: .quash/nats/creds/break-glass.creds)")
	}
	if g.url == "" {
		if g.url = g.env.Getenv("QUASH_NATS_URL"); g.url == "" {
			return zero, usage("--nats-url is missing, and QUASH_NATS_URL is not set")
		}
	}
	ctx, refuse := context.WithCancelCause(ctx)
	defer refuse(nil)
	nc, err := connectNATS(g.url, g.creds, refuse)
	if errors.Is(err, nats.ErrAuthorization) || errors.Is(err, fs.ErrNotExist) {
		return zero, &exit{NotAllowed, fmt.Errorf("%s: %w", g.creds, err)}
	}
	if err != nil {
		return zero, err
	}
	defer nc.Close()
	end := g.env.Now().Add(patience)
	for {
		try, cancel := context.WithTimeout(ctx, 45*time.Second)
		resp, err := natsapi.Call[Resp](try, nc, subject, "", req)
		cancel()
		if errors.Is(context.Cause(ctx), nats.ErrPermissionViolation) {
			return zero, &exit{NotAllowed, fmt.Errorf("%s are not the credentials of break-glass: %w", g.creds, context.Cause(ctx))}
		}
		if problem.KindOf(err) != problem.Unavailable || !g.env.Now().Before(end) {
			return resp, err
		}
		select {
		case <-ctx.Done():
			return resp, err
		case <-time.After(250 * time.Millisecond):
		}
	}
}

func (g *glass) holdsCmd() *cobra.Command {
	return &cobra.Command{
		Use: "holds --reason TEXT", Short: "What is held, newest first", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			raw, err := ask[natsapi.Raw](cmd.Context(), g, wire.BreakGlassRevocation+"holds", map[string]string{"reason": g.reason})
			if err != nil {
				return err
			}
			var list struct {
				Items []struct{ Issuer, Target, At, Actor, Reason, End string }
			}
			if err := json.Unmarshal(raw, &list); err != nil {
				return err
			}
			return g.print(json.RawMessage(raw), func() {
				var rows [][]string
				for _, h := range list.Items {
					rows = append(rows, []string{h.Target, h.Issuer, h.At, h.End, h.Actor, h.Reason})
				}
				g.table([]string{"TARGET", "ISSUER", "SINCE", "UNTIL", "ACTOR", "REASON"}, rows)
			})
		},
	}
}

func (g *glass) releaseCmd() *cobra.Command {
	var issuer, key string
	c := &cobra.Command{
		Use: "release TARGET… --reason TEXT", Short: "End holds; roles by their id, as quash break-glass holds shows it", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if key == "" {
				key = uuid.NewString()
			}
			body := map[string]any{"reason": g.reason, "targets": args, "idempotency_key": key}
			if issuer != "" {
				body["issuer"] = issuer
			}
			raw, err := ask[natsapi.Raw](cmd.Context(), g, wire.BreakGlassRevocation+"release", body)
			if err != nil {
				return outcome(err, key)
			}
			var r api.Entry
			if err := json.Unmarshal(raw, &r); err != nil {
				return err
			}
			return g.print(json.RawMessage(raw), func() {
				g.fields("id", r.ID, "committed", at(r.CommittedAt), "position", fmt.Sprintf("%d.%d", r.Epoch, r.Sequence))
			})
		},
	}
	c.Flags().StringVar(&issuer, "issuer", "", "the issuer of the targets, by its short name (default: the tenant's own)")
	c.Flags().StringVar(&key, "idempotency-key", "", "repeat a request whose outcome is unknown (default: a new one)")
	return c
}

func (g *glass) promoteCmd() *cobra.Command {
	var key string
	c := &cobra.Command{
		Use: "promote --reason TEXT", Short: "Revoke the key that signs; the next one signs at once", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if key == "" {
				key = uuid.NewString()
			}
			raw, err := ask[natsapi.Raw](cmd.Context(), g, wire.BreakGlassRotation+"promote",
				map[string]string{"reason": g.reason, "idempotency_key": key, "wait": "30s"})
			if err != nil {
				return outcome(err, key)
			}
			return g.showRotation(json.RawMessage(raw))
		},
	}
	c.Flags().StringVar(&key, "idempotency-key", "", "repeat a request whose outcome is unknown (default: a new one)")
	return c
}

func (g *glass) operatorCmd() *cobra.Command {
	var out string
	var expires time.Duration
	c := &cobra.Command{
		Use: "operator --out FILE --reason TEXT", Short: "Make an API key with the role operator", Args: cobra.NoArgs,
		Long: "Make an API key with the role operator, and write it to a new file of mode 0600. It\nlives for a day: make a better one with it. An operator's role that was cut is made\ngood again; what is held has to be released first.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if out == "" {
				return usage("--out is missing: a file for the key, or - for standard output")
			}
			f := os.Stdout
			if out != "-" {
				// Before the key is made: one that can't be kept must not be.
				var err error
				if f, err = os.OpenFile(out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
					return usage("--out: %w", err)
				}
				defer f.Close()
			}
			body := map[string]string{"reason": g.reason}
			if cmd.Flags().Changed("expires") {
				body["expires_in"] = expires.String()
			}
			k, err := ask[struct {
				ID        string `json:"id"`
				Owner     string `json:"owner"`
				ExpiresAt string `json:"expires_at"`
				Secret    string `json:"secret"`
			}](cmd.Context(), g, wire.BreakGlassIssuer+"operator", body)
			if err != nil {
				if out != "-" {
					_ = os.Remove(out) // nothing is in it
				}
				return err
			}
			if out == "-" {
				_, err = fmt.Fprintln(g.env.Out, k.Secret)
				return err
			}
			if _, err = f.WriteString(k.Secret + "\n"); err == nil {
				err = f.Sync()
			}
			if err != nil {
				return fmt.Errorf("the key %s was made, and could not be written: %w; revoke it", k.ID, err)
			}
			return g.print(map[string]string{"id": k.ID, "owner": k.Owner, "expires_at": k.ExpiresAt, "file": out}, func() {
				g.fields("id", k.ID, "owner", k.Owner, "expires", k.ExpiresAt, "file", out)
			})
		},
	}
	c.Flags().StringVar(&out, "out", "", "a new file for the key, or - for standard output (required)")
	c.Flags().DurationVar(&expires, "expires", 0, "life of the key, as in 2h (default 24h)")
	return c
}
