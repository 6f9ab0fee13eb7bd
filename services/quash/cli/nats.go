package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"github.com/quash-project/quash/shared/guard/natsfeed"
	"github.com/quash-project/quash/shared/identity"
)

// connectNATS connects once, for one command. What the server refuses later goes to
// refused: whoever asks would wait in vain for an answer.
func connectNATS(url, creds string, refused func(error)) (*nats.Conn, error) {
	opts := []nats.Option{nats.Timeout(5 * time.Second), nats.NoReconnect(), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { refused(err) })}
	if creds != "" {
		data, err := os.ReadFile(creds)
		if err != nil {
			return nil, err
		}
		user, err := natsfeed.UserName(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", creds, err)
		}
		opts = append(opts, natsfeed.Credentials(creds), nats.CustomInboxPrefix(identity.InboxPrefix(user)))
	}
	return nats.Connect(url, opts...)
}

func (a *app) natsCmd() *cobra.Command {
	return group("nats", "NATS identities: operator, accounts, users", a.natsInitCmd(),
		group("user", "NATS users", group("add", "Make a user", a.natsAddGuardCmd())))
}

func (a *app) natsInitCmd() *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use: "init --out DIR", Short: "Make operator, accounts and the services' users, and what the servers are configured with",
		Long: `Make operator, accounts and the services' users in a new directory.

accounts.conf goes to every nats-server; creds/SERVICE.creds to the service of
that name. All else (*.nk) are the seeds that sign users: keep them offline.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if dir == "" {
				return usage("--out is missing: a directory that is not there yet")
			}
			if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
				return usage("%s is not empty: identities that are in use must not be replaced", dir)
			}
			set, err := identity.Create(dir)
			if err != nil {
				return err
			}
			path, err := set.WriteServerConfig()
			if err != nil {
				return err
			}
			creds := map[string]string{}
			for _, user := range identity.Services() {
				creds[user] = set.Creds(user)
			}
			return a.print(map[string]any{"directory": dir, "server_config": path, "creds": creds}, func() {
				a.fields("directory", dir, "server configuration", path)
				for _, user := range identity.Services() {
					a.fields("credentials of "+user, creds[user])
				}
				a.note("include %s in the configuration of every nats-server, beside deploy/nats/jetstream.conf", path)
			})
		},
	}
	c.Flags().StringVar(&dir, "out", "", "the directory to make (required)")
	return c
}

func (a *app) natsAddGuardCmd() *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use: "guard NAME --dir DIR", Short: "Make the identity of a resource server", Args: cobra.ExactArgs(1),
		Long: "Make the identity of a resource server. No server needs to know of it: its key is\nsigned by the guards' key in the directory.",
		RunE: func(_ *cobra.Command, args []string) error {
			if dir == "" {
				return usage("--dir is missing: the directory that quash nats init has made")
			}
			set, err := identity.Load(dir)
			if errors.Is(err, fs.ErrNotExist) {
				return usage("%s is no directory of quash nats init: %s", filepath.Clean(dir), err)
			}
			if err != nil {
				return err
			}
			path, err := set.AddGuard(args[0])
			if err != nil {
				return &exit{Usage, err}
			}
			return a.print(map[string]string{"name": args[0], "creds": path}, func() { a.fields("name", args[0], "credentials", path) })
		},
	}
	c.Flags().StringVar(&dir, "dir", "", "the directory that quash nats init has made (required)")
	return c
}
