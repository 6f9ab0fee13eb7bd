package cli

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/quash-project/quash/services/quash/api"
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

// call makes one request and returns the answer as it came.
func (a *app) call(ctx context.Context, c api.Call) (json.RawMessage, error) {
	cl, err := a.api()
	if err != nil {
		return nil, err
	}
	var raw json.RawMessage
	err = cl.Do(ctx, c, &raw)
	return raw, err
}

// list fetches all pages of a list.
func (a *app) list(ctx context.Context, path string, query url.Values) ([]json.RawMessage, error) {
	var all []json.RawMessage
	if query == nil {
		query = url.Values{}
	}
	for {
		raw, err := a.call(ctx, api.Call{Method: http.MethodGet, Path: path, Query: query})
		if err != nil {
			return nil, err
		}
		var page struct {
			Items []json.RawMessage `json:"items"`
			Next  string            `json:"next_page"`
		}
		if err := json.Unmarshal(raw, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Items...)
		if page.Next == "" {
			return all, nil
		}
		query.Set("page", page.Next)
	}
}

// records are what one API lists, shows and deletes.
type records struct {
	app     *app
	what    string // with its article
	path    string // of the API
	head    []string
	row     func(json.RawMessage) ([]string, error)
	show    func(json.RawMessage) error
	deletes string // what deleting one does
}

func row[T any](cells func(T) []string) func(json.RawMessage) ([]string, error) {
	return func(raw json.RawMessage) ([]string, error) {
		var v T
		if err := json.Unmarshal(raw, &v); err != nil {
			return nil, err
		}
		return cells(v), nil
	}
}

// listCmd lists all; its flags are the parameters of the query.
func (r records) listCmd() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List them all", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			items, err := r.app.list(cmd.Context(), r.path, given(cmd))
			if err != nil {
				return err
			}
			if r.app.output == "json" {
				return r.app.items(items)
			}
			rows := make([][]string, len(items))
			for i, it := range items {
				if rows[i], err = r.row(it); err != nil {
					return err
				}
			}
			r.app.table(r.head, rows)
			return nil
		},
	}
}

// given are the command's own flags that were set, as a query.
func given(cmd *cobra.Command) url.Values {
	q := url.Values{}
	cmd.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
		if f.Changed {
			q.Set(f.Name, f.Value.String())
		}
	})
	return q
}

// items prints a list as the API gives it, all pages in one.
func (a *app) items(items []json.RawMessage) error {
	if items == nil {
		items = []json.RawMessage{}
	}
	return a.value(map[string]any{"items": items})
}

func (r records) showCmd() *cobra.Command {
	return &cobra.Command{
		Use: "show ID", Short: "Show " + r.what + ", without its secret", Args: cobra.ExactArgs(1),
		ValidArgsFunction: r.app.completeIDs(r.path),
		RunE: func(cmd *cobra.Command, args []string) error {
			raw, err := r.app.call(cmd.Context(), api.Call{Method: http.MethodGet, Path: r.path + "/" + url.PathEscape(args[0])})
			if err != nil {
				return err
			}
			if r.app.output == "json" {
				return r.app.json(raw)
			}
			return r.show(raw)
		},
	}
}

func (r records) deleteCmd() *cobra.Command {
	c := &cobra.Command{
		Use: "delete ID", Short: r.deletes, Args: cobra.ExactArgs(1),
		ValidArgsFunction: r.app.completeIDs(r.path),
		RunE: func(cmd *cobra.Command, args []string) error {
			raw, err := r.app.call(cmd.Context(), api.Call{
				Method: http.MethodDelete, Path: r.path + "/" + url.PathEscape(args[0]), Query: given(cmd),
			})
			if err != nil {
				return err
			}
			return r.app.deleted(raw, args[0])
		},
	}
	c.Flags().String("reason", "", "why, for the audit")
	return c
}

func (a *app) deleted(raw json.RawMessage, id string) error {
	if a.output != "json" {
		a.fields("deleted", id)
		return nil
	}
	if len(raw) == 0 {
		return a.value(map[string]any{"id": id, "deleted": true})
	}
	return a.json(raw)
}
