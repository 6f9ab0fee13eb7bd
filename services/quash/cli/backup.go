package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"filippo.io/age"
	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"github.com/quash-project/quash/services/backup"
	"github.com/quash-project/quash/shared/identity"
)

// brokerFlags say where streams are saved and restored, with which rights.
type brokerFlags struct{ url, dir string }

func (b *brokerFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&b.url, "nats-url", "", "servers, separated by commas (default $QUASH_NATS_URL)")
	c.Flags().StringVar(&b.dir, "identities", "", "the directory of quash nats init (required): no service has the rights for this")
}

// broker connects to both accounts with credentials made for this.
func (a *app) broker(b brokerFlags) (backup.Broker, func(), error) {
	url := a.or(b.url, "QUASH_NATS_URL")
	switch {
	case url == "":
		return backup.Broker{}, nil, usage("--nats-url is missing, and QUASH_NATS_URL is not set")
	case b.dir == "":
		return backup.Broker{}, nil, usage("--identities is missing: the directory that quash nats init has made")
	}
	set, err := identity.Load(b.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return backup.Broker{}, nil, usage("%s is no directory of quash nats init: %s", b.dir, err)
	}
	if err != nil {
		return backup.Broker{}, nil, err
	}
	tmp, err := os.MkdirTemp("", "quash-*") // mode 0700
	if err != nil {
		return backup.Broker{}, nil, err
	}
	var open []*nats.Conn
	done := func() {
		for _, nc := range open {
			nc.Close()
		}
		_ = os.RemoveAll(tmp)
	}
	for _, account := range []string{identity.Log, identity.Control} {
		creds := filepath.Join(tmp, account+".creds")
		err := set.Admin(creds, account)
		if err == nil {
			var nc *nats.Conn
			if nc, err = connectNATS(url, creds, func(error) {}); err == nil {
				open = append(open, nc)
			}
		}
		if err != nil {
			done()
			return backup.Broker{}, nil, err
		}
	}
	return backup.Broker{Log: open[0], Control: open[1]}, done, nil
}

func (a *app) backupCmd() *cobra.Command {
	var b brokerFlags
	var recipients []string
	c := &cobra.Command{
		Use: "backup FILE --identities DIR --recipient age1…", Short: "Save the log and all buckets in a file, encrypted", Args: cobra.ExactArgs(1),
		Long: `Save the log and all buckets in a file, encrypted to age recipients. Services may
run meanwhile. The key-encryption key and the rotator's identity key are not in it:
without them no signing key of the backup can be used.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			var to []age.Recipient
			for _, text := range recipients {
				r, err := age.ParseX25519Recipient(text)
				if err != nil {
					return usage("--recipient %.20s…: %s; age-keygen makes one", text, err)
				}
				to = append(to, r)
			}
			if len(to) == 0 {
				return usage("--recipient is missing: the public half of an age key, as age-keygen prints it")
			}
			broker, done, err := a.broker(b)
			if err != nil {
				return err
			}
			defer done()
			m, err := writeNew(args[0], func(w io.Writer) (backup.Manifest, error) {
				return encrypted(cmd.Context(), w, to, broker, a.env.Now())
			})
			if err != nil {
				return err
			}
			return a.showManifest(m, args[0])
		},
	}
	b.add(c)
	c.Flags().StringSliceVar(&recipients, "recipient", nil, "an age recipient, age1…; repeatable (required)")
	return c
}

func encrypted(ctx context.Context, w io.Writer, to []age.Recipient, b backup.Broker, now time.Time) (backup.Manifest, error) {
	sealed, err := age.Encrypt(w, to...)
	if err != nil {
		return backup.Manifest{}, err
	}
	m, err := backup.Save(ctx, b, sealed, now)
	if err != nil {
		return m, err
	}
	return m, sealed.Close()
}

// writeNew makes a file of mode 0600 that is there whole or not at all.
func writeNew[T any](path string, write func(io.Writer) (T, error)) (T, error) {
	var zero T
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return zero, usage("%s is there already", path)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".backup-*")
	if err != nil {
		return zero, usage("%w", err)
	}
	defer os.Remove(f.Name())
	v, err := write(f)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return zero, err
	}
	return v, os.Rename(f.Name(), path)
}

func (a *app) showManifest(m backup.Manifest, file string) error {
	return a.print(map[string]any{"file": file, "made_at": m.MadeAt, "streams": m.Streams}, func() { a.tellStreams(m) })
}

func (a *app) tellStreams(m backup.Manifest) {
	var rows [][]string
	for _, s := range m.Streams {
		rows = append(rows, []string{s.Name, fmt.Sprint(s.LastSeq), fmt.Sprint(s.Bytes)})
	}
	a.table([]string{"STREAM", "LAST SEQUENCE", "BYTES"}, rows)
}

func (a *app) restoreCmd() *cobra.Command {
	var b brokerFlags
	var keyFile, reason string
	var replace bool
	c := &cobra.Command{
		Use: "restore FILE --identities DIR --key-file KEY --reason TEXT", Short: "Restore log and buckets from a backup, and begin a new epoch", Args: cobra.ExactArgs(1),
		Long: `Restore log and buckets from a backup, and begin a new epoch of the log. End
revocation, issuer and rotator first. What was written after the backup is lost, but
for revocations that Redis or a running guard still knows; an audit trail that is
there is kept. Sign-ins of before are void.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if reason == "" {
				return usage("--reason is missing: it stands in the audit")
			}
			if keyFile == "" {
				return usage("--key-file is missing: the age key to whose public half the backup was encrypted")
			}
			text, err := a.secretFrom(keyFile)
			if err != nil {
				return err
			}
			keys, err := age.ParseIdentities(strings.NewReader(text))
			if err != nil {
				return usage("%s has no age key", keyFile) // its text is secret
			}
			broker, done, err := a.broker(b)
			if err != nil {
				return err
			}
			defer done()
			out, err := backup.Restore(cmd.Context(), broker, func() (io.ReadCloser, error) { return decrypted(args[0], keys) },
				backup.Order{Replace: replace, Actor: "operator:restore", Reason: reason, Now: a.env.Now})
			if errors.Is(err, backup.ErrExists) {
				return usage("%w: --replace", err)
			}
			if err != nil {
				return err
			}
			return a.print(
				map[string]any{
					"made_at": out.MadeAt, "streams": out.Streams, "kept": out.Kept,
					"epoch": out.Epoch.Number, "shared": map[string]uint64{"epoch": out.Epoch.D.Epoch, "sequence": out.Epoch.D.Seq},
				},
				func() {
					a.tellStreams(out.Manifest)
					a.fields("epoch", fmt.Sprint(out.Epoch.Number), "shared up to", out.Epoch.D.String(), "kept", strings.Join(out.Kept, " "))
					a.note("Start revocation, rotator and issuer now. What Redis remembers is committed again.")
				})
		},
	}
	b.add(c)
	c.Flags().StringVar(&keyFile, "key-file", "", "a file with the age key, or - for standard input (required)")
	c.Flags().StringVar(&reason, "reason", "", "who does it and why, for the audit (required)")
	c.Flags().BoolVar(&replace, "replace", false, "delete what the broker has of the backup's streams")
	return c
}

type sealedFile struct {
	io.Reader
	io.Closer
}

func decrypted(path string, keys []age.Identity) (io.ReadCloser, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, usage("%w", err)
	}
	r, err := age.Decrypt(f, keys...)
	if err != nil {
		_ = f.Close()
		return nil, usage("%s: %w", path, err)
	}
	return sealedFile{r, f}, nil
}
