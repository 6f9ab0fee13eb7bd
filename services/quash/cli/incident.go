package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/quash-project/quash/shared/client"
	"github.com/quash-project/quash/shared/client/api"
)

// asMarkdown is a form that reports of incidents alone have.
const asMarkdown = "markdown"

// maxNote is how much of a note is read; the service takes less.
const maxNote = 64 << 10

func (a *app) incidentCmd() *cobra.Command {
	return group("incident", "Notebooks: what is done under an incident is gathered, and told in one document",
		a.incidentOpenCmd(), a.incidentListCmd(), a.incidentShowCmd(), a.incidentNoteCmd(), a.incidentCloseCmd(), a.incidentReportCmd())
}

func (a *app) incidentOpenCmd() *cobra.Command {
	var title, severity string
	c := &cobra.Command{
		Use: "open --title TEXT", Short: "Open a notebook; what is cut from then on is gathered in it", Args: cobra.NoArgs,
		Long: `Open a notebook, and have revoke, hold, release and undo done under it from then on, until
quash incident close. --incident and QUASH_INCIDENT name another one; none is none.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if title == "" {
				return usage("--title is missing: what it is about, in one line")
			}
			cl, err := a.connect()
			if err != nil {
				return err
			}
			x, err := cl.OpenIncident(client.Patient(cmd.Context(), patience), api.OpenIncidentJSONRequestBody{Title: title, Severity: api.OpenIncidentInputBodySeverity(severity)})
			if err != nil {
				return err
			}
			if err := a.print(x.Raw, func() { a.showIncident(x.Value) }); err != nil {
				return err
			}
			a.kept(x.Value.ID, a.keepIncident(x.Value.ID, ""))
			return nil
		},
	}
	c.Flags().StringVar(&title, "title", "", "what it is about, in one line (required)")
	c.Flags().StringVar(&severity, "severity", "", "low, medium (default), high or critical")
	completed(c, "severity", completeOne("low", "medium", "high", "critical"))
	return c
}

func (a *app) showIncident(x api.Incident) {
	a.fields("id", x.ID, "title", x.Title, "severity", string(x.Severity), "state", string(x.State), "opened", at(x.OpenedAt)+" by "+x.OpenedBy)
	if !x.ClosedAt.IsZero() {
		a.fields("closed", at(x.ClosedAt)+" by "+x.ClosedBy+": "+x.CloseReason)
	}
	for _, p := range x.Plans {
		a.fields("plan", fmt.Sprintf("%s %s: %s of %s would hit %s (%s)", at(p.At), p.Actor, p.Op, several(p.Target, p.Targets), p.Hits, p.ID))
	}
	for _, n := range x.Notes {
		a.fields("note", at(n.At)+" "+n.Actor+": "+n.Text)
	}
}

func several(target string, n int64) string {
	if n > 1 {
		return fmt.Sprintf("%s and %d more", target, n-1)
	}
	return target
}

func (a *app) incidentListCmd() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "All incidents, newest first", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := a.connect()
			if err != nil {
				return err
			}
			all, err := client.All(func(page api.RequestEditorFn) (api.Answer[api.ListIncidentSummary], error) {
				return cl.ListIncidents(cmd.Context(), nil, page)
			})
			if err != nil {
				return err
			}
			return a.print(all.Raw, func() {
				var rows [][]string
				for _, x := range all.Value.Items {
					rows = append(rows, []string{x.ID, string(x.State), string(x.Severity), at(x.OpenedAt), x.OpenedBy, x.Title})
				}
				a.table([]string{"ID", "STATE", "SEVERITY", "OPENED", "BY", "TITLE"}, rows)
			})
		},
	}
}

func (a *app) incidentShowCmd() *cobra.Command {
	return &cobra.Command{
		Use: "show [ID]", Short: "Show a notebook: its notes, and the plans that were seen", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.incident(cmd.Context(), args, func(ctx context.Context, cl *client.Client, id string) (api.Answer[api.Incident], error) {
				return cl.GetIncident(ctx, id)
			})
		},
	}
}

// incident does something with a notebook and shows it.
func (a *app) incident(ctx context.Context, args []string, do func(context.Context, *client.Client, string) (api.Answer[api.Incident], error)) error {
	id, err := a.theIncident(args)
	if err != nil {
		return err
	}
	cl, err := a.connect()
	if err != nil {
		return err
	}
	x, err := do(client.Patient(ctx, patience), cl, id)
	if err != nil {
		return err
	}
	return a.print(x.Raw, func() { a.showIncident(x.Value) })
}

func (a *app) incidentNoteCmd() *cobra.Command {
	return &cobra.Command{
		Use: "note [ID] TEXT|-", Short: "Write a remark, with who wrote it when", Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			text := args[len(args)-1]
			if text == "-" {
				data, err := a.readText("-", maxNote)
				if err != nil {
					return err
				}
				text = strings.TrimRight(data, "\n")
			}
			return a.incident(cmd.Context(), args[:len(args)-1], func(ctx context.Context, cl *client.Client, id string) (api.Answer[api.Incident], error) {
				return cl.AddIncidentNote(ctx, id, api.AddIncidentNoteJSONRequestBody{Text: text})
			})
		},
	}
}

func (a *app) incidentCloseCmd() *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use: "close [ID] --reason TEXT", Short: "Close a notebook, for good: nothing is gathered in it any more", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if reason == "" {
				return usage("--reason is missing: how it ended")
			}
			closed := ""
			err := a.incident(cmd.Context(), args, func(ctx context.Context, cl *client.Client, id string) (api.Answer[api.Incident], error) {
				closed = id
				return cl.CloseIncident(ctx, id, api.CloseIncidentJSONRequestBody{Reason: reason})
			})
			// One that is closed already is nothing to do more under either.
			if closed != "" && (err == nil || refusedAs(err, 409) || refusedAs(err, 404)) {
				if kept := a.keepIncident("", closed); kept != nil {
					a.note("%s", clean(fmt.Sprintf("it could not be taken out of the context: %v", kept)))
				}
			}
			return err
		},
	}
	c.Flags().StringVar(&reason, "reason", "", "how it ended (required)")
	return c
}

func (a *app) incidentReportCmd() *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use: "report [ID]", Short: "Print one document for the record: who did what when, with signed receipts", Args: cobra.MaximumNArgs(1),
		Long: `Print one document for the record: who did what when, plans that were seen, what was cut and
where that has taken effect, holds that still run, and notes. It is Markdown; with -o html a
page to read or to print, and with -o json or yaml data.

The receipts stand in it signed. --receipts DIR also writes each to DIR/ID.jws, for
quash receipt verify.`,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if all := append([]string{asHTML, asMarkdown}, forms...); !slices.Contains(all, a.output) {
				return usage("-o %q: want one of %s", a.output, strings.Join(all, ", "))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := a.theIncident(args)
			if err != nil {
				return err
			}
			cl, err := a.connect()
			if err != nil {
				return err
			}
			if dir != "" {
				if err := a.writeReceipts(cmd.Context(), cl, id, dir); err != nil {
					return err
				}
			}
			format := a.output
			switch a.output {
			case asJSON, asYAML:
				r, err := cl.GetIncidentReport(cmd.Context(), id, nil)
				if err != nil {
					return err
				}
				return a.print(r.Raw, nil)
			case asTable:
				format = asMarkdown
			}
			resp, err := cl.Requests.GetIncidentReport(cmd.Context(), id, &api.GetIncidentReportParams{Format: new(api.GetIncidentReportParamsFormat(format))})
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			_, err = io.Copy(a.env.Out, resp.Body)
			return err
		},
	}
	c.Flags().StringVar(&dir, "receipts", "", "also write the signed receipts into this directory")
	return c
}

// writeReceipts writes the receipts of an incident, each into a file.
func (a *app) writeReceipts(ctx context.Context, cl *client.Client, id, dir string) error {
	got, err := cl.GetIncidentReport(ctx, id, nil)
	if err != nil {
		return err
	}
	var r struct {
		Cuts []struct{ ID, Jws string }
	}
	if err := json.Unmarshal(got.Raw, &r); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, c := range r.Cuts {
		if c.Jws == "" {
			one, err := cl.GetReceipt(ctx, c.ID, nil)
			if err != nil {
				return err
			}
			c.Jws = one.Value.Jws
		}
		if !isEntry(c.ID) {
			return &exit{Failed, fmt.Errorf("%.60q is no id of a receipt", c.ID)}
		}
		if err := os.WriteFile(filepath.Join(dir, c.ID+".jws"), []byte(c.Jws+"\n"), 0o600); err != nil {
			return err
		}
	}
	a.note("%d receipts are in %s", len(r.Cuts), dir)
	return nil
}

// isEntry reports whether a text is the id of an entry, so that it can name a file.
func isEntry(id string) bool {
	return len(id) == 43 && !strings.ContainsFunc(id, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_')
	})
}
