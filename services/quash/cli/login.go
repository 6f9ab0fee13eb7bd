package cli

import (
	"cmp"
	"errors"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/quash-project/quash/shared/client"
	"github.com/quash-project/quash/shared/seal"
)

// connect returns the client of the Quash that one is signed in to.
func (a *app) connect() (*client.Client, error) {
	if a.client != nil {
		return a.client, nil
	}
	who, err := a.signedIn()
	if err != nil {
		return nil, err
	}
	if who.Issuer == "" {
		return nil, usage("no issuer is set: quash login keeps one, QUASH_URL and --url say it. After quash dev: set -a; . .quash/dev.env; set +a")
	}
	key := func() (string, error) {
		if who.KeyFile == "" {
			return "", &exit{NotAllowed, errors.New("not signed in at " + who.Issuer + ": quash login --key-file FILE, or set QUASH_KEY_FILE to a file with your API key. After quash dev: set -a; . .quash/dev.env; set +a")}
		}
		return a.secretFrom(who.KeyFile)
	}
	a.client, err = a.clientOf(who.Issuer, key)
	return a.client, err
}

func (a *app) clientOf(issuer string, key func() (string, error)) (*client.Client, error) {
	c, err := client.New(issuer, client.Options{Key: key, HTTP: a.env.HTTP, Now: a.env.Now})
	if err != nil {
		return nil, &exit{Usage, err}
	}
	return c, nil
}

func (a *app) loginCmd() *cobra.Command {
	var issuer, keyFile, name string
	c := &cobra.Command{
		Use: "login --key-file FILE", Short: "Sign in with an API key, and keep where and as whom", Args: cobra.NoArgs,
		Long: `Sign in with an API key, and keep where and as whom, so that no command has to be
told: as a context in quash/contexts.json in the directory for configuration
($XDG_CONFIG_HOME, or ~/.config), with mode 0600. It names the file of the key; the
key stays there, and nobody else may be able to read it.

Flags and environment go before a context. The key of a context goes to its issuer
alone. quash context lists, shows and deletes what is kept.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if issuer == "" {
				issuer = a.or(a.url, "QUASH_URL")
			}
			if issuer == "" {
				return usage("--issuer is missing, and QUASH_URL is not set: the URL of the issuer that made the API key")
			}
			path, err := loginKey(keyFile)
			if err != nil {
				return err
			}
			cl, err := a.clientOf(issuer, func() (string, error) { return a.secretFrom(path) })
			if err != nil {
				return err
			}
			if name == "" {
				name = cmp.Or(a.context, hostOf(cl.Base()))
			}
			if !contextName.MatchString(name) {
				return usage("--name %.64q: want up to 64 letters, digits and . _ : -, beginning with a letter or digit", name)
			}
			kept, err := a.contexts()
			if err != nil {
				return err
			}
			if _, err := cl.Token(cmd.Context()); err != nil {
				return err
			}
			one := place{Issuer: cl.Base(), KeyFile: path}
			kept.Contexts[name], kept.Current = one, name
			if err := kept.write(); err != nil {
				return err
			}
			return a.showContext(name, one, true)
		},
	}
	f := c.Flags()
	f.StringVar(&keyFile, "key-file", "", "a file with your API key, that only you can read (required)")
	f.StringVar(&issuer, "issuer", "", "the issuer's URL (default --url or $QUASH_URL)")
	f.StringVar(&name, "name", "", "the name of the context (default: the issuer's host)")
	return c
}

// loginKey checks the file that a context will name.
func loginKey(file string) (string, error) {
	switch {
	case file == "":
		return "", usage("--key-file is missing: a file with your API key")
	case file == "-":
		return "", usage("--key-file -: a context names the file in which the key stays, so it has to be one")
	case looksSecret(file):
		return "", usage("a secret never goes on a command line: write it to a file of mode 0600, and give its name")
	}
	path, err := filepath.Abs(file)
	if err != nil {
		return "", usage("--key-file: %w", err)
	}
	if _, err := seal.ReadSecretFile(path); err != nil {
		return "", usage("--key-file: %w", err)
	}
	return path, nil
}

// hostOf is how a context is named by itself.
func hostOf(issuer string) string {
	u, err := url.Parse(issuer)
	if err != nil {
		return ""
	}
	return strings.Trim(u.Host, "[]")
}

func (a *app) contextCmd() *cobra.Command {
	list := &cobra.Command{
		Use: "list", Short: "List them all", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			kept, err := a.contexts()
			if err != nil {
				return err
			}
			items, rows := []contextRecord{}, [][]string{}
			for _, name := range kept.names() {
				one, mark := kept.Contexts[name], ""
				if name == kept.Current {
					mark = "*"
				}
				items = append(items, contextRecord{name, one, name == kept.Current})
				rows = append(rows, []string{mark, name, one.Issuer, one.KeyFile})
			}
			return a.print(map[string]any{"items": items}, func() { a.table([]string{"", "NAME", "ISSUER", "KEY FILE"}, rows) })
		},
	}
	use := a.contextVerb("use NAME", "Let commands go there from now on", cobra.ExactArgs(1), func(kept contexts, name string, one place) error {
		kept.Current = name
		if err := kept.write(); err != nil {
			return err
		}
		return a.showContext(name, one, true)
	})
	show := a.contextVerb("show [NAME]", "Show one, or that in use", cobra.MaximumNArgs(1), func(kept contexts, name string, one place) error {
		return a.showContext(name, one, name == kept.Current)
	})
	remove := a.contextVerb("delete NAME", "Forget one; its API key stays what it is: quash key delete ends it", cobra.ExactArgs(1),
		func(kept contexts, name string, _ place) error {
			delete(kept.Contexts, name)
			if kept.Current == name {
				kept.Current = ""
			}
			if err := kept.write(); err != nil {
				return err
			}
			return a.print(map[string]any{"name": name, "deleted": true}, func() { a.fields("deleted", name) })
		})
	return group("context", "Where quash login has signed you in, and as whom", list, use, show, remove)
}

// contextVerb is a command about one context.
func (a *app) contextVerb(usage, short string, args cobra.PositionalArgs, do func(kept contexts, name string, one place) error) *cobra.Command {
	return &cobra.Command{
		Use: usage, Short: short, Args: args, ValidArgsFunction: a.completeContexts,
		RunE: func(_ *cobra.Command, args []string) error {
			kept, err := a.contexts()
			if err != nil {
				return err
			}
			name := a.or(a.context, "QUASH_CONTEXT")
			if len(args) == 1 {
				name = args[0]
			}
			name, one, err := kept.find(name)
			if err != nil {
				return err
			}
			return do(kept, name, one)
		},
	}
}

func (a *app) completeContexts(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	kept, err := a.contexts()
	if err != nil || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return kept.names(), cobra.ShellCompDirectiveNoFileComp
}
