package cli

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/quash-project/quash/shared/apikey"
	"github.com/quash-project/quash/shared/client"
	"github.com/quash-project/quash/shared/client/api"
)

func (a *app) keyRotateCmd() *cobra.Command {
	var body api.RotateKeyJSONRequestBody
	var self bool
	var key string
	c := &cobra.Command{
		Use: "rotate {ID | --self} --reason TEXT", Short: "Make a key that takes the place of an API key or client secret; its secret is shown once",
		Long: `Make a key that takes the place of an API key or client secret.

It gives the same to the same. Both are good for the overlap; then the old one, and every
token that came from it, is refused everywhere. quash key show ID tells who still uses the
old one; quash key rotation ID lets it end sooner or later, quash key rollback ID takes it
all back, and quash key delete ID ends the old one at once.`,
		Args: cobra.MaximumNArgs(1), ValidArgsFunction: a.completeIDs(keyList),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := a.keyToRotate(args, self, &body.Current)
			if err != nil {
				return err
			}
			switch {
			case body.Reason == "":
				return usage("--reason is missing: why, for the audit")
			case body.Emergency && body.Overlap != "":
				return usage("--emergency has no --overlap: the old key ends at once")
			}
			if key == "" {
				key = rand.Text()
			}
			cl, err := a.connect()
			if err != nil {
				return err
			}
			made, err := cl.RotateKey(cmd.Context(), id, body, client.IdempotencyKey(key))
			if err != nil {
				return outcome(err, key)
			}
			return a.showRotated(id, made)
		},
	}
	f := c.Flags()
	f.StringVar(&body.Overlap, "overlap", "", "how long the old key stays good, as in 90m, 24h or 7d (1m to 30d; default by policy, a day)")
	f.BoolVar(&body.Emergency, "emergency", false, "the key is stolen: it and every token that came from it is dead at once")
	f.StringVar(&body.ExpiresIn, "expires", "", "life of the new key, as in 30d or 720h (default: as long as that of the old one was)")
	f.BoolVar(&self, "self", false, "rotate the key that you are signed in with; it needs no right to make keys")
	f.StringVar(&body.Reason, "reason", "", "why, for the audit (required)")
	f.StringVar(&key, "idempotency-key", "", "repeat a request whose outcome is unknown (default: a new one)")
	return c
}

// keyToRotate returns the id of the key, and puts its secret into the request where it is the
// caller's own.
func (a *app) keyToRotate(args []string, self bool, current *string) (string, error) {
	if self == (len(args) == 1) {
		return "", usage("want the id of a key, or --self for the one that you are signed in with")
	}
	if !self {
		return args[0], nil
	}
	who, err := a.signedIn()
	if err != nil {
		return "", err
	}
	if who.KeyFile == "" {
		return "", &exit{NotAllowed, errors.New("not signed in: quash login --key-file FILE, or set QUASH_KEY_FILE to a file with your API key")}
	}
	*current, err = a.secretFrom(who.KeyFile)
	return idOf(*current), err
}

// idOf returns the id of the key that a secret is of.
func idOf(secret string) string {
	if _, err := apikey.Parse(secret); err != nil {
		return apikey.ImportedID(apikey.HashOf(secret))
	}
	return apikey.ID(secret)
}

func (a *app) showRotated(old string, made api.Answer[api.RotatedKey]) error {
	k := made.Value
	return a.print(made.Raw, func() {
		until := at(k.Until)
		if k.Ended != nil {
			until = fmt.Sprintf("ended, at %d.%d in the log", k.Ended.Epoch, k.Ended.Sequence)
		}
		a.fields("id", k.ID, "secret", k.Secret, "owner", k.Owner, "client", k.ClientID, "expires", at(k.ExpiresAt), "old key", old, "good until", until)
		a.note("The secret is shown this once.")
		if k.Ended == nil {
			a.note("Who still uses the old key: quash key show %s. To take it back: quash key rollback %s --reason TEXT", old, old)
		}
	})
}

func (a *app) keyRotationCmd() *cobra.Command {
	var body api.SetKeyRotationJSONRequestBody
	c := &cobra.Command{
		Use: "rotation ID --overlap D", Short: "Let a key that is rotated end sooner or later", Args: cobra.ExactArgs(1),
		ValidArgsFunction: a.completeIDs(keyList),
		RunE: func(cmd *cobra.Command, args []string) error {
			if body.Overlap == "" {
				return usage("--overlap is missing: how long the old key stays good from now on, as in 90m, 24h or 7d")
			}
			cl, err := a.connect()
			if err != nil {
				return err
			}
			k, err := cl.SetKeyRotation(cmd.Context(), args[0], body)
			if err != nil {
				return err
			}
			return a.showKey(k.Raw)
		},
	}
	c.Flags().StringVar(&body.Overlap, "overlap", "", "how long the old key stays good from now on, as in 90m, 24h or 7d (required)")
	c.Flags().StringVar(&body.Reason, "reason", "", "why, for the audit")
	return c
}

// rotationFields tells of the key that takes the place of one, and of who uses that still.
func rotationFields(text json.RawMessage) []string {
	var k api.Key
	if json.Unmarshal(text, &k) != nil || k.Rotation == nil {
		return nil
	}
	r := k.Rotation
	until, used := at(r.Until), "not used since"
	if r.Back {
		until = "being rolled back"
	}
	if !r.UsedAt.IsZero() {
		used = fmt.Sprintf("%d times since, the last time %s", r.Uses, at(r.UsedAt))
		if r.UsedFrom != "" {
			used += " from " + r.UsedFrom
		}
		if r.UsedBy != "" {
			used += " by " + r.UsedBy
		}
	}
	sealed := ""
	switch {
	case r.Sealed && r.CollectedAt.IsZero():
		sealed = "waits to be collected; if nobody does, this key stays"
	case r.Sealed:
		sealed = "collected " + at(r.CollectedAt) + " by " + r.CollectedBy
	}
	return []string{
		"rotated to", r.Next, "rotated at", at(r.BegunAt) + " by " + r.BegunBy, "good until", until, "still used", used,
		"new secret", sealed, "next used", at(r.NextUsedAt),
	}
}
