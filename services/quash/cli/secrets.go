package cli

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/quash-project/quash/services/rotator"
	"github.com/quash-project/quash/shared/seal"
	"github.com/quash-project/quash/shared/signing"
)

func (a *app) secretsCmd() *cobra.Command {
	return group("secrets", "What the services keep secret, made once", a.secretsInitCmd(), a.trustCmd())
}

func (a *app) secretsInitCmd() *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use: "init --out DIR", Short: "Make the key-encryption keys and the rotator's identity key",
		Long: `Make what the services keep secret, in a new directory:

  kek          seals signing keys; for issuer and rotator
  proof-kek    seals the keys that sign receipts; for the revocation service alone
  rotator.pem  the rotator's identity key, by which guards know what to believe

Whoever has kek, rotator.pem and the buckets can make tokens. What is lost can't be
made again: without kek no signing key can be used, without proof-kek no receipt can
be signed, and without rotator.pem no guard believes a new one. Keep a copy offline.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if dir == "" {
				return usage("--out is missing: a directory that is not there yet")
			}
			if err := os.MkdirAll(dir, 0o700); err != nil {
				return err
			}
			kek, proofKEK, identity := filepath.Join(dir, "kek"), filepath.Join(dir, "proof-kek"), filepath.Join(dir, "rotator.pem")
			for _, path := range []string{kek, proofKEK, identity} { // before any is made
				if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
					return usage("%s is there already: what is in use must not be replaced", path)
				}
			}
			for _, path := range []string{kek, proofKEK} {
				if err := seal.CreateKEK(path); err != nil {
					return err
				}
			}
			public, err := rotator.CreateIdentity(identity, rand.Reader)
			if err != nil {
				return err
			}
			trust := signing.TrustString(public)
			return a.print(map[string]string{"kek": kek, "proof_kek": proofKEK, "identity": identity, "trust": trust}, func() {
				a.fields("key-encryption key", kek, "that of receipts", proofKEK, "rotator's identity key", identity, "trust", trust)
			})
		},
	}
	c.Flags().StringVar(&dir, "out", "", "the directory to make (required)")
	return c
}

func (a *app) trustCmd() *cobra.Command {
	return &cobra.Command{
		Use: "trust FILE", Short: "The public half of the rotator's identity key, as guards and services want it", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			private, err := rotator.LoadIdentity(args[0])
			if err != nil {
				return &exit{Usage, err}
			}
			public, ok := private.Public().(ed25519.PublicKey)
			if !ok {
				return &exit{Usage, fmt.Errorf("%s: not an Ed25519 key", args[0])}
			}
			trust := signing.TrustString(public)
			return a.print(map[string]string{"trust": trust}, func() { fmt.Fprintln(a.env.Out, trust) })
		},
	}
}
