package cli

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"net/url"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/quash-project/quash/shared/client"
	"github.com/quash-project/quash/shared/client/api"
)

// group is a command that only has subcommands.
func group(use, short string, subs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use: use, Short: short,
		Args: cobra.MatchAll(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usage("%s needs one of its commands: %s", cmd.CommandPath(), names(cmd))
		},
	}
	c.AddCommand(subs...)
	return c
}

func names(cmd *cobra.Command) string {
	var n []string
	for _, s := range cmd.Commands() {
		if s.IsAvailableCommand() {
			n = append(n, s.Name())
		}
	}
	return strings.Join(n, ", ")
}

// call is an operation on what a command's argument names; with adds to the request.
type call func(ctx context.Context, c *client.Client, id string, with api.RequestEditorFn) (json.RawMessage, error)

// raw is an answer as it came.
func raw[T any](answer api.Answer[T], err error) (json.RawMessage, error) { return answer.Raw, err }

// read makes what takes a record of what takes its text.
func read[T, R any](of func(T) R) func(json.RawMessage) (R, error) {
	return func(text json.RawMessage) (r R, err error) {
		var v T
		if err := json.Unmarshal(text, &v); err != nil {
			return r, err
		}
		return of(v), nil
	}
}

// named makes listing.name of what names a record; one that can't be read has no name.
func named[T any](of func(T) (id, about string)) func(json.RawMessage) (id, about string) {
	return func(text json.RawMessage) (id, about string) {
		var v T
		if json.Unmarshal(text, &v) != nil {
			return "", ""
		}
		return of(v)
	}
}

// list fetches all items of a list.
func (a *app) list(ctx context.Context, l listing, query url.Values) ([]json.RawMessage, error) {
	c, err := a.connect()
	if err != nil {
		return nil, err
	}
	text, err := l.all(ctx, c, client.Query(query))
	if err != nil {
		return nil, err
	}
	var whole struct {
		Items []json.RawMessage `json:"items"`
	}
	err = json.Unmarshal(text, &whole)
	return whole.Items, err
}

// records are what one API lists, shows and deletes.
type records struct {
	app         *app
	what        string // with its article
	id          string // what names one
	list        listing
	get, remove call
	head        []string
	row         func(json.RawMessage) ([]string, error)
	show        func(json.RawMessage) error
	deletes     string // what deleting one does
}

// listCmd lists all; its flags are the parameters of the query.
func (r records) listCmd() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List them all", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			items, err := r.app.list(cmd.Context(), r.list, given(cmd))
			if err != nil {
				return err
			}
			rows := make([][]string, len(items))
			for i, it := range items {
				if rows[i], err = r.row(it); err != nil {
					return err
				}
			}
			// As the API gives it, all pages in one.
			return r.app.print(map[string]any{"items": items}, func() { r.app.table(r.head, rows) })
		},
	}
}

// given are the command's own flags that were set, as a query.
func given(cmd *cobra.Command) url.Values {
	q := url.Values{}
	cmd.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
		if !f.Changed {
			return
		}
		text := f.Value.String()
		if list, ok := f.Value.(pflag.SliceValue); ok {
			text = strings.Join(list.GetSlice(), ",")
		}
		q.Set(strings.ReplaceAll(f.Name, "-", "_"), text)
	})
	return q
}

func (r records) showCmd() *cobra.Command {
	return &cobra.Command{
		Use: "show " + r.id, Short: "Show " + r.what + ", without its secret", Args: cobra.ExactArgs(1),
		ValidArgsFunction: r.app.completeIDs(r.list),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := r.app.do(cmd, r.get, args[0])
			if err != nil {
				return err
			}
			return r.show(text)
		},
	}
}

func (r records) deleteCmd() *cobra.Command {
	c := &cobra.Command{
		Use: "delete " + r.id, Short: r.deletes, Args: cobra.ExactArgs(1),
		ValidArgsFunction: r.app.completeIDs(r.list),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := r.app.do(cmd, r.remove, args[0])
			if err != nil {
				return err
			}
			var e api.Ended
			_ = json.Unmarshal(text, &e) // of what has no successor there is none
			return r.app.print(text, func() { r.app.fields("deleted", args[0], "lives on", e.Next) })
		},
	}
	c.Flags().String("reason", "", "why, for the audit")
	return c
}

// cutCmd commits something about one of them, which takes a reason. told is what a person is
// told of it, as names and values.
func (r records) cutCmd(verb, short string,
	do func(*client.Client, context.Context, string, api.ReasonBody, ...api.RequestEditorFn) (api.Answer[api.Ended], error),
	told func(id string, e api.Ended) []string,
) *cobra.Command {
	c := &cobra.Command{
		Use: verb + " " + r.id + " --reason TEXT", Short: short, Args: cobra.ExactArgs(1),
		ValidArgsFunction: r.app.completeIDs(r.list),
	}
	reason := c.Flags().String("reason", "", "why, for the audit")
	idempotency := c.Flags().String("idempotency-key", "", "repeat a request whose outcome is unknown (default: a new one)")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if *reason == "" {
			return usage("--reason is missing: why, for the audit")
		}
		key := *idempotency
		if key == "" {
			key = rand.Text()
		}
		cl, err := r.app.connect()
		if err != nil {
			return err
		}
		done, err := do(cl, cmd.Context(), args[0], api.ReasonBody{Reason: *reason}, client.IdempotencyKey(key))
		if err != nil {
			return outcome(err, key)
		}
		return r.app.print(done.Raw, func() { r.app.fields(told(args[0], done.Value)...) })
	}
	return c
}

// do makes one call, with the command's flags as its query.
func (a *app) do(cmd *cobra.Command, one call, id string) (json.RawMessage, error) {
	c, err := a.connect()
	if err != nil {
		return nil, err
	}
	return one(cmd.Context(), c, id, client.Query(given(cmd)))
}
