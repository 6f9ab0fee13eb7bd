// Package cli is the command line of Quash. Data goes to standard output, all
// else to standard error; the exit code says how it ended (see Code).
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/quash-project/quash/shared/client"
	"github.com/quash-project/quash/shared/problem"
)

// Code is how a command ended.
type Code int

// The exit codes of every command.
const (
	Done           Code = 0
	Failed         Code = 1 // also: check refused the token
	Usage          Code = 2 // also: what the server calls invalid input
	Unconfirmed    Code = 3 // committed, but not confirmed by all in time
	NotAllowed     Code = 4 // not signed in, or not allowed
	UnknownOutcome Code = 5 // repeat with the idempotency key that is printed
	CouldNotAsk    Code = 6 // of check and token inspect: no answer to the question
	Waiting        Code = 7 // nothing was cut yet: a second person has to agree
)

// Env is what a command touches of the system.
type Env struct {
	In       io.Reader
	Out, Err io.Writer
	Getenv   func(string) string
	Now      func() time.Time
	HTTP     *http.Client
	// Terminal reports whether a person is there: standard input and output are a terminal.
	Terminal func() bool
}

// System is the real one.
func System() Env {
	return Env{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Getenv: os.Getenv, Now: time.Now, HTTP: &http.Client{}, Terminal: func() bool {
		return term.IsTerminal(int(os.Stdin.Fd())) && term.IsTerminal(int(os.Stdout.Fd()))
	}}
}

// exit is an error that has its code; err nil: nothing more is to be said.
type exit struct {
	code Code
	err  error
}

func (e *exit) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit %d", e.code)
	}
	return e.err.Error()
}

func (e *exit) Unwrap() error { return e.err }

func usage(format string, args ...any) error {
	return &exit{Usage, fmt.Errorf(format, args...)}
}

// Run runs one command and returns the exit code of the process.
func Run(ctx context.Context, args []string, env Env) int {
	a := &app{env: env}
	root := a.root()
	root.SetArgs(idsApart(args))
	root.SetIn(env.In)
	root.SetOut(env.Out)
	root.SetErr(env.Err)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return int(Done)
	}
	code := codeOf(err)
	var e *exit
	if !errors.As(err, &e) || e.err != nil {
		fmt.Fprintf(env.Err, "quash: %s\n", explain(err))
	}
	return int(code)
}

// entryID is an id of an entry that looks like a flag: base64url may begin with '-'.
var entryID = regexp.MustCompile(`^-[A-Za-z0-9_-]{42}$`)

// idsApart puts such ids behind "--", where flags have ended.
func idsApart(args []string) []string {
	if slices.Contains(args, "--") {
		return args
	}
	var flags, ids []string
	for _, arg := range args {
		if entryID.MatchString(arg) {
			ids = append(ids, arg)
		} else {
			flags = append(flags, arg)
		}
	}
	if len(ids) == 0 {
		return args
	}
	return append(append(flags, "--"), ids...)
}

// codeOf is the one table from an error to an exit code.
func codeOf(err error) Code {
	var (
		e       *exit
		refused *client.Refused
		lost    *client.Lost
	)
	switch {
	case errors.As(err, &e):
		return e.code
	case errors.As(err, &refused):
		return codeOfStatus(refused)
	case errors.As(err, &lost):
		return Failed
	}
	switch problem.KindOf(err) {
	case problem.Invalid:
		return Usage
	case problem.Unauthorized, problem.Forbidden:
		return NotAllowed
	case problem.UnknownOutcome:
		return UnknownOutcome
	}
	return Failed
}

func codeOfStatus(r *client.Refused) Code {
	if r.Kind() == problem.UnknownOutcome {
		return UnknownOutcome
	}
	switch r.OAuth {
	case "invalid_request", "invalid_grant", "invalid_client", "unauthorized_client", "access_denied":
		// RFC 8693 section 2.2.2 has invalid_request for an API key that is not good;
		// the rest of the request is ours, and right.
		return NotAllowed
	}
	switch r.Status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return NotAllowed
	case http.StatusBadRequest, http.StatusUnprocessableEntity, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusMethodNotAllowed:
		return Usage
	}
	return Failed
}

// explain adds what to do where the error itself can't know it.
func explain(err error) string {
	var (
		refused *client.Refused
		notSent *client.NotSent
		lost    *client.Lost
	)
	switch {
	case errors.As(err, &refused):
		switch {
		case refused.OAuth == "invalid_request":
			return err.Error() + "\nThe API key is not valid (any more): sign in with one that is: quash login, or QUASH_KEY_FILE."
		case refused.Status == http.StatusForbidden:
			return err.Error() + "\nThe API key that signs you in lacks the right: ask an operator for a role or scope."
		}
	case errors.As(err, &notSent), errors.As(err, &lost):
		if problem.KindOf(err) == problem.Internal {
			return err.Error() + "\nIs Quash running, and the issuer's URL right? quash doctor looks."
		}
	}
	return err.Error()
}

// app is the state of one command.
type app struct {
	env     Env
	url     string // of --url
	context string // of --context
	output  string
	client  *client.Client

	keptIncident string // under which a command is done since the context says so
	left         bool   // it was left: see leaveKept
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "quash",
		Short: "Revoke credentials everywhere, at once, provably",
		Long: `Quash issues credentials, rotates them, and makes them stop working everywhere,
at once, provably. Start with: quash dev

Who you are and where is kept by quash login, unless the environment says it:
  QUASH_URL       the issuer, and base of all APIs
  QUASH_KEY_FILE  a file with the API key that signs you in
  QUASH_CONTEXT   another of the contexts that quash login has kept
  QUASH_INCIDENT  the incident under which revoke, hold, release and undo are done

Exit codes: 0 done, 1 failed (or: refused), 2 usage or invalid input, 3 committed
but not confirmed by all in time, 4 not signed in or not allowed, 5 outcome
unknown (repeat with the idempotency key that is printed), 6 could not ask.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cmd.Help(); err != nil {
				return err
			}
			return nil
		},
	}
	pf := root.PersistentFlags()
	pf.StringVar(&a.url, "url", "", "the issuer's URL (default $QUASH_URL, or that of the context)")
	pf.StringVar(&a.context, "context", "", "what quash login has kept under this name (default $QUASH_CONTEXT, or that in use)")
	pf.StringVarP(&a.output, "output", "o", asTable, "table, json or yaml")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &exit{Usage, err} })
	root.PersistentPreRunE = func(*cobra.Command, []string) error {
		if !slices.Contains(forms, a.output) {
			return usage("-o %q: want one of %s", a.output, strings.Join(forms, ", "))
		}
		return nil
	}
	completed(root, "output", completeOne(forms...))
	completed(root, "context", func(cmd *cobra.Command, _ []string, prefix string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return a.completeContexts(cmd, nil, prefix)
	})
	root.AddCommand(a.devCmd(), a.loginCmd(), a.contextCmd(), a.principalCmd(), a.keyCmd(), a.clientCmd(), a.roleCmd(), a.tenantCmd(), a.canCmd(), a.tokenCmd(), a.checkCmd(),
		a.revokeCmd("revoke", "End or cut credentials, for good"),
		a.revokeCmd("hold", "Refuse what is hit until released"),
		a.revokeCmd("release", "End a hold"), a.undoCmd(), a.findCmd(),
		a.pendingCmd(), a.approveCmd(), a.denyCmd(),
		a.receiptCmd(), a.incidentCmd(), a.fleetCmd(), a.sloCmd(), a.watchCmd(), a.auditCmd(), a.rotateCmd(), a.scheduleCmd(), a.breakGlassCmd(), a.natsCmd(), a.guardCmd(), a.secretsCmd(), a.epochCmd(), a.backupCmd(), a.restoreCmd(), a.fsckCmd(), a.doctorCmd(), a.versionCmd())
	usageErrors(root)
	return root
}

// usageErrors makes wrong arguments and unknown commands usage errors.
func usageErrors(cmd *cobra.Command) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				return usage("%w\nUsage: %s", err, c.UseLine())
			}
			return nil
		}
	}
	for _, sub := range cmd.Commands() {
		usageErrors(sub)
	}
}

// secretFrom reads one secret from a file, or from standard input for "-".
func (a *app) secretFrom(file string) (string, error) {
	var (
		data []byte
		err  error
	)
	if file == "-" {
		data, err = io.ReadAll(io.LimitReader(a.env.In, 1<<20))
	} else {
		data, err = readFile(file)
	}
	if err != nil {
		return "", usage("secret: %w", err)
	}
	s := strings.TrimSpace(string(data))
	if s == "" {
		if file == "-" {
			return "", usage("standard input is empty: it should have the secret")
		}
		return "", usage("the file %s is empty: it should have the secret", file)
	}
	return s, nil
}

func readFile(file string) ([]byte, error) {
	f, err := openFile(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, 1<<20))
}

func openFile(file string) (*os.File, error) {
	f, err := os.Open(file)
	// Whoever puts the secret itself there must not see it again in an error.
	var pe *os.PathError
	if errors.As(err, &pe) && looksSecret(file) {
		return nil, errors.New("that is a secret, not a file: write it to a file, or pass - and write it to standard input")
	}
	return f, err
}

// looksSecret reports whether an argument is itself a credential.
func looksSecret(s string) bool {
	return strings.HasPrefix(s, "quash_") || strings.HasPrefix(s, "eyJ") && strings.Count(s, ".") == 2
}
