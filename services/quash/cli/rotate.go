package cli

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/quash-project/quash/services/quash/api"
)

type rotation struct {
	ID       string   `json:"id"`
	KeyID    string   `json:"kid"`
	Previous string   `json:"previous"`
	SignsAt  string   `json:"signs_at"`
	State    string   `json:"state"`
	Lacking  []string `json:"lacking"`
}

func (a *app) rotateCmd() *cobra.Command {
	return group("rotate", "Rotate keys", a.rotateSigningKeyCmd())
}

func (a *app) rotateSigningKeyCmd() *cobra.Command {
	var reason, alg, key string
	var emergency bool
	var wait time.Duration
	c := &cobra.Command{
		Use: "signing-key --reason TEXT", Short: "Let the next signing key sign; returns when it does", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if reason == "" {
				return usage("--reason is missing: it stands in the audit")
			}
			if key == "" {
				key = uuid.NewString()
			}
			body := map[string]any{"kind": "signing-key", "reason": reason}
			if emergency {
				body["emergency"] = true
			}
			if alg != "" {
				body["alg"] = alg
			}
			raw, err := a.call(cmd.Context(), api.Call{Method: http.MethodPost, Path: "/v1/rotations", Body: body, Key: key, Patience: patience})
			if err != nil {
				return outcome(err, key)
			}
			return a.awaitRotation(cmd.Context(), raw, wait)
		},
	}
	f := c.Flags()
	f.StringVar(&reason, "reason", "", "why, for the audit (required)")
	f.StringVar(&alg, "alg", "", "the algorithm of the new key: ES256 or EdDSA (default: that of the key which stands next)")
	f.BoolVar(&emergency, "emergency", false, "the signing key is stolen: revoke it, the next one signs at once")
	f.DurationVar(&wait, "wait", 30*time.Second, "wait so long for the new key to sign; exit code 3 if it does not yet")
	f.StringVar(&key, "idempotency-key", "", "repeat a request whose outcome is unknown (default: a new one)")
	return c
}

func (a *app) awaitRotation(ctx context.Context, raw json.RawMessage, wait time.Duration) error {
	var r rotation
	if err := json.Unmarshal(raw, &r); err != nil {
		return err
	}
	end := a.env.Now().Add(wait)
	for r.State != "signing" && ctx.Err() == nil {
		left := end.Sub(a.env.Now())
		if left <= 0 {
			break
		}
		q := url.Values{"wait": {min(left, 10*time.Second).Round(time.Millisecond).String()}}
		next, err := a.call(ctx, api.Call{Method: http.MethodGet, Path: "/v1/rotations/" + url.PathEscape(r.ID), Query: q})
		if err == nil {
			var nr rotation
			if err := json.Unmarshal(next, &nr); err != nil {
				return err
			}
			raw, r = next, nr
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(min(left, 250*time.Millisecond)):
		}
	}
	return a.showRotation(raw)
}
