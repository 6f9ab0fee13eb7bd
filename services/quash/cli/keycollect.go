package cli

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"strings"

	"filippo.io/age"
	"github.com/spf13/cobra"

	"github.com/quash-project/quash/services/issuer/delivery"
	"github.com/quash-project/quash/shared/client"
	"github.com/quash-project/quash/shared/client/api"
	"github.com/quash-project/quash/shared/seal"
)

func (a *app) keyRecipientCmd() *cobra.Command {
	var body api.SetKeyRecipientJSONRequestBody
	var self, none bool
	c := &cobra.Command{
		Use: "recipient {ID | --self} {age1… | --none}", Short: "Register to whom a schedule seals the secret that takes the place of a key's",
		Long: `Register to whom a schedule seals the secret that takes the place of a key's: an age
X25519 recipient, as age-keygen makes. Whoever has its private half can have the next secret.
Its successors have the same recipient.`,
		Args: cobra.MaximumNArgs(2), ValidArgsFunction: a.completeIDs(keyList),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !none {
				last := len(args) - 1
				if last < 0 || last == 0 && !self {
					return usage("want an age recipient, as age1…, or --none for nobody any more")
				}
				body.Recipient, args = args[last], args[:last]
				if _, err := delivery.ParseRecipient(body.Recipient); err != nil {
					return usage("recipient: %w", err)
				}
			}
			id, err := a.keyToRotate(args, self, &body.Current)
			if err != nil {
				return err
			}
			cl, err := a.connect()
			if err != nil {
				return err
			}
			k, err := cl.SetKeyRecipient(cmd.Context(), id, body)
			if err != nil {
				return err
			}
			return a.showKey(k.Raw)
		},
	}
	f := c.Flags()
	f.BoolVar(&none, "none", false, "nobody any more: schedules tell the owner that the key is due")
	f.BoolVar(&self, "self", false, "of the key that you are signed in with; it needs no right to make keys")
	f.StringVar(&body.Reason, "reason", "", "why, for the audit")
	return c
}

func (a *app) keyCollectCmd() *cobra.Command {
	var body api.CollectKeyJSONRequestBody
	var self bool
	var identity, key string
	c := &cobra.Command{
		Use: "collect {ID | --self} --identity FILE", Short: "Collect the secret of the key that takes the place of one by a schedule; it is shown once",
		Long: `Collect the secret of the key that takes the place of one by a schedule. ID is the old
key. It is given out once, sealed to the key's recipient; FILE has the private half, as age-keygen
writes it, and nobody but its owner may read it. What is not collected until the old key would
end is taken back, and that stays.`,
		Args: cobra.MaximumNArgs(1), ValidArgsFunction: a.completeIDs(keyList),
		RunE: func(cmd *cobra.Command, args []string) error {
			// Before it is given out: that is once.
			with, err := a.identities(identity)
			if err != nil {
				return err
			}
			id, err := a.keyToRotate(args, self, &body.Current)
			if err != nil {
				return err
			}
			if key == "" {
				key = rand.Text()
			}
			cl, err := a.connect()
			if err != nil {
				return err
			}
			if err := a.opens(cmd, cl, id, self, with); err != nil {
				return err
			}
			d, err := cl.CollectKey(cmd.Context(), id, body, client.IdempotencyKey(key))
			if err != nil {
				return outcome(err, key)
			}
			return a.showCollected(id, key, &d.Value, with)
		},
	}
	f := c.Flags()
	f.StringVar(&identity, "identity", "", "a file with the age identity to whose recipient it is sealed, of mode 0600 (required)")
	f.BoolVar(&self, "self", false, "of the key that you are signed in with; it needs no right to make keys")
	f.StringVar(&body.Reason, "reason", "", "why, for the audit")
	f.StringVar(&key, "idempotency-key", "", "repeat a request whose outcome is unknown (default: a new one)")
	return c
}

// identities reads age identities from a file that nobody but its owner may read.
func (a *app) identities(file string) ([]age.Identity, error) {
	if file == "" {
		return nil, usage("--identity is missing: the file with the age identity to whose recipient the secret is sealed")
	}
	if strings.HasPrefix(strings.ToUpper(file), "AGE-SECRET-KEY-") {
		return nil, usage("--identity: that is an identity itself, and no file: others may have seen it, so make another one, write it to a file of mode 0600, and register its recipient")
	}
	text, err := seal.ReadSecretFile(file)
	if err != nil {
		return nil, usage("--identity: %w", err)
	}
	out, err := age.ParseIdentities(strings.NewReader(string(text)))
	if err != nil {
		return nil, usage("%s has no age identity", file) // its text is secret
	}
	return out, nil
}

// opens wants, where the key can be looked at, that one of the identities is of its recipient: what
// is given out once must not be given to somebody who can't open it.
func (a *app) opens(cmd *cobra.Command, cl *client.Client, id string, self bool, with []age.Identity) error {
	if self { // a key may not look at itself
		return nil
	}
	k, err := cl.GetKey(cmd.Context(), id)
	if err != nil {
		return err
	}
	for _, one := range with {
		x, ok := one.(*age.X25519Identity)
		if !ok || x.Recipient().String() == k.Value.Recipient {
			return nil
		}
	}
	if k.Value.Recipient == "" {
		return nil // the issuer says what it has to say
	}
	return usage("key %s is rotated for the recipient %s: none of these identities opens that", id, k.Value.Recipient)
}

func (a *app) showCollected(id, key string, d *api.Delivery, with []age.Identity) error {
	c, err := delivery.Open(d.Sealed, with...)
	switch {
	case err != nil:
		return fmt.Errorf("key %s: %w; with --idempotency-key %s it is given out again for a day", id, err, key)
	case c.ID != d.ID || c.Previous != id:
		return fmt.Errorf("what is sealed is the secret of key %s in the place of %s, and not what was asked for: tell an operator", clean(c.ID), clean(c.Previous))
	}
	text, err := json.Marshal(map[string]any{"id": c.ID, "secret": c.Secret, "previous": c.Previous, "until": d.Until, "recipient": d.Recipient})
	if err != nil {
		return err
	}
	return a.print(json.RawMessage(text), func() {
		a.fields("id", c.ID, "secret", c.Secret, "old key", c.Previous, "good until", at(d.Until))
		a.note("The secret is shown this once.")
	})
}
