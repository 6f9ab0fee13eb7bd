package cli

import (
	"context"
	"encoding/json"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/quash-project/quash/shared/client"
	"github.com/quash-project/quash/shared/client/api"
)

func (a *app) rotateCmd() *cobra.Command {
	return group("rotate", "Rotate keys", a.rotateSigningKeyCmd())
}

func (a *app) rotateSigningKeyCmd() *cobra.Command {
	var reason, alg, key, incident string
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
			cl, err := a.connect()
			if err != nil {
				return err
			}
			if incident, err = a.openIncident(cmd.Context(), cl, incident); err != nil {
				return err
			}
			begun, err := cl.CreateRotation(client.Patient(cmd.Context(), patience), nil,
				api.CreateRotationJSONRequestBody{Kind: "signing-key", Reason: reason, Alg: alg, Emergency: emergency, Incident: incident}, client.IdempotencyKey(key))
			if err != nil {
				return outcome(err, key)
			}
			return a.showRotation(a.awaitRotation(cmd.Context(), cl, begun, wait).Raw)
		},
	}
	f := c.Flags()
	f.StringVar(&reason, "reason", "", "why, for the audit (required)")
	f.StringVar(&alg, "alg", "", "the algorithm of the new key: ES256 or EdDSA (default: that of the key which stands next)")
	f.BoolVar(&emergency, "emergency", false, "the signing key is stolen: revoke it, the next one signs at once")
	incidentFlag(f, &incident)
	f.DurationVar(&wait, "wait", 30*time.Second, "wait so long for the new key to sign; exit code 3 if it does not yet")
	f.StringVar(&key, "idempotency-key", "", "repeat a request whose outcome is unknown (default: a new one)")
	return c
}

// awaitRotation asks again until the new key signs or the time is over.
func (a *app) awaitRotation(ctx context.Context, cl *client.Client, r api.Answer[api.Rotation], wait time.Duration) api.Answer[api.Rotation] {
	end := a.env.Now().Add(wait)
	for r.Value.State != api.RotationStateSigning && ctx.Err() == nil {
		left := end.Sub(a.env.Now())
		if left <= 0 {
			break
		}
		next, err := cl.ShowRotation(ctx, r.Value.ID, &api.ShowRotationParams{Wait: new(turn(left))})
		if err == nil {
			r = next
			continue
		}
		pause(ctx, left)
	}
	return r
}

// turn is how long one request waits at most, of what is left.
func turn(left time.Duration) string {
	return min(left, 10*time.Second).Round(time.Millisecond).String()
}

// pause lets some time pass before a service that is away is asked again.
func pause(ctx context.Context, left time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(min(left, 250*time.Millisecond)):
	}
}

func (a *app) showRotation(text json.RawMessage) error {
	var r api.Rotation
	if err := json.Unmarshal(text, &r); err != nil {
		return err
	}
	err := a.print(text, func() {
		a.fields("kid", r.Kid, "previous", r.Previous, "state", string(r.State), "signs at", at(r.SignsAt), "lacking", words(r.Lacking))
	})
	if err == nil && r.State != api.RotationStateSigning {
		a.note("the new key does not sign yet; it will by itself, at the earliest at %s", at(r.SignsAt))
		return &exit{Unconfirmed, nil}
	}
	return err
}
