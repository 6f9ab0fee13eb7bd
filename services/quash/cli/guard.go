package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/spf13/cobra"

	"github.com/quash-project/quash/shared/guard/keys"
	"github.com/quash-project/quash/shared/identity"
)

func (a *app) guardCmd() *cobra.Command {
	return group("guard", "What resource servers need", a.guardConfigCmd())
}

// guardConfig is what the owner of a resource server pastes.
type guardConfig struct {
	Issuers []guardIssuer `json:"issuers"`
	NATS    guardNATS     `json:"nats"`
	Redis   string        `json:"redis,omitempty"`
}

type guardIssuer struct {
	URL   string   `json:"url"`
	Trust []string `json:"trust"` // the rotator's identity keys
}

type guardNATS struct {
	URL   string `json:"url"`
	Creds string `json:"creds"`
}

func (a *app) guardConfigCmd() *cobra.Command {
	var dir, creds, trust, natsURL, redisURL string
	c := &cobra.Command{
		Use: "config NAME (--dir DIR | --creds FILE)", Short: "Print what the owner of a resource server pastes", Args: cobra.ExactArgs(1),
		Long: `Print what the owner of a resource server pastes: the issuer, the rotator's identity
key, and the addresses, as environment variables (or -o json). The issuer is asked
whether it is what QUASH_URL says.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg := guardConfig{NATS: guardNATS{URL: a.or(natsURL, "QUASH_NATS_URL"), Creds: creds}, Redis: redisURL}
			trusted := a.or(trust, "QUASH_TRUST")
			switch {
			case trusted == "":
				return usage("--trust is missing, and QUASH_TRUST is not set: quash secrets trust FILE prints it")
			case cfg.NATS.URL == "":
				return usage("--nats-url is missing, and QUASH_NATS_URL is not set")
			case (dir == "") == (creds == ""):
				return usage("want one of --dir, the directory of quash nats init, and --creds, the guard's credentials")
			}
			for _, key := range strings.Split(trusted, ",") {
				if _, err := keys.ParseTrust(key); err != nil {
					return usage("--trust: %w", err)
				}
			}
			if dir != "" {
				set, err := identity.Load(dir)
				if errors.Is(err, fs.ErrNotExist) {
					return usage("%s is no directory of quash nats init: %s", dir, err)
				}
				if err != nil {
					return err
				}
				if cfg.NATS.Creds, err = set.AddGuard(args[0]); err != nil {
					return &exit{Usage, err}
				}
			}
			cl, err := a.connect()
			if err != nil {
				return err
			}
			m, err := cl.Metadata(cmd.Context())
			if err != nil {
				return err
			}
			cfg.Issuers = []guardIssuer{{URL: m.Issuer, Trust: strings.Split(trusted, ",")}}
			return a.print(cfg, func() { a.pasteGuard(args[0], cfg) })
		},
	}
	f := c.Flags()
	f.StringVar(&dir, "dir", "", "the directory of quash nats init: makes the identity if it is not there")
	f.StringVar(&creds, "creds", "", "the guard's credentials, if they are elsewhere")
	f.StringVar(&trust, "trust", "", "the rotator's identity keys, separated by commas (default $QUASH_TRUST)")
	f.StringVar(&natsURL, "nats-url", "", "servers, separated by commas (default $QUASH_NATS_URL)")
	f.StringVar(&redisURL, "redis-url", "", "of the Redis view, for a reader, if the guard consults it")
	return c
}

// or returns a flag's value, or that of the environment.
func (a *app) or(flag, variable string) string {
	if flag != "" {
		return flag
	}
	return a.env.Getenv(variable)
}

func (a *app) pasteGuard(name string, cfg guardConfig) {
	vars := [][2]string{
		{"QUASH_URL", cfg.Issuers[0].URL},
		{"QUASH_TRUST", strings.Join(cfg.Issuers[0].Trust, ",")},
		{"QUASH_NATS_URL", cfg.NATS.URL},
		{"QUASH_NATS_CREDS", cfg.NATS.Creds},
	}
	if cfg.Redis != "" {
		vars = append(vars, [2]string{"QUASH_REDIS_URL", cfg.Redis})
	}
	fmt.Fprintf(a.env.Out, "# the guard of %s\n", name)
	for _, v := range vars {
		fmt.Fprintf(a.env.Out, "%s='%s'\n", v[0], strings.ReplaceAll(v[1], "'", `'\''`))
	}
	a.note("In Go:\n\n  guard.New(\n    []guard.Issuer{{URL: os.Getenv(\"QUASH_URL\"), Trust: strings.Split(os.Getenv(\"QUASH_TRUST\"), \",\")}},\n    guard.WithNATS(os.Getenv(\"QUASH_NATS_URL\"), os.Getenv(\"QUASH_NATS_CREDS\")))\n\nCopy %s there; nobody else may read it.", cfg.NATS.Creds)
}
