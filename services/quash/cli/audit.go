package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quash-project/quash/shared/client"
	"github.com/quash-project/quash/shared/client/api"
)

// auditPatience is how long the audit commands go on asking while the trail is behind.
const auditPatience = 30 * time.Second

// maxLine is the longest line of a stream about the audit trail: a page of it in base64.
const maxLine = 16 << 20

func (a *app) auditCmd() *cobra.Command {
	return group("audit", "The audit trail: who has done what, when and why", a.auditSearchCmd(), a.auditExportCmd(), a.auditVerifyCmd(), a.auditCheckpointCmd())
}

// wantedFlags are those by which items are looked for.
func (a *app) wantedFlags(c *cobra.Command) {
	f := c.Flags()
	f.String("actor", "", "only what this principal did")
	f.String("target", "", "only what is about this target, as in principal:alice")
	f.String("type", "", "only this type, as in dev.quash.log.entry or dev.quash.record.put")
	f.String("record", "", "only changes of records in this bucket, as in keys, or of one, as in keys/default.ID")
	f.String("tenant", "", "only what is about this tenant")
	f.String("incident", "", "only what was done under this incident, with its notebook")
	f.String("request", "", "only what this request has changed: the X-Request-Id of its answer")
	f.String("since", "", "only what was stored since: how long ago, as in 90m or 7d, or a time as 2026-01-31T00:00:00Z")
	f.String("until", "", "only what was stored until then, in the same forms")
	completed(c, "target", a.completeTargets)
}

// wanted are those flags as a query.
func (a *app) wanted(cmd *cobra.Command) (url.Values, error) {
	q := url.Values{}
	for _, name := range []string{"actor", "target", "type", "record", "tenant", "incident", "request", "since", "until"} {
		text, err := cmd.Flags().GetString(name)
		if err != nil {
			return nil, err
		}
		if text == "" {
			continue
		}
		if name == "since" || name == "until" {
			if text, err = a.moment(name, text); err != nil {
				return nil, err
			}
		}
		q.Set(name, text)
	}
	return q, nil
}

// moment reads a time, or how long ago it was.
func (a *app) moment(name, text string) (string, error) {
	if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return t.Format(time.RFC3339Nano), nil
	}
	ago, err := time.ParseDuration(text)
	if days, ok := strings.CutSuffix(text, "d"); ok {
		var n int
		n, err = strconv.Atoi(days)
		if err == nil && n > 365_000 {
			err = strconv.ErrRange
		}
		ago = time.Duration(n) * 24 * time.Hour
	}
	if err != nil || ago <= 0 {
		return "", usage("--%s %q: want how long ago, as in 90m or 7d, or a time as 2026-01-31T00:00:00Z", name, text)
	}
	return a.env.Now().Add(-ago).UTC().Format(time.RFC3339Nano), nil
}

func (a *app) auditSearchCmd() *cobra.Command {
	var limit int
	var oldest bool
	c := &cobra.Command{
		Use: "search", Short: "Search the audit trail, the newest first", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit < 0 {
				return usage("--limit %d: want 1 or more, or 0 for no limit", limit)
			}
			q, err := a.wanted(cmd)
			if err != nil {
				return err
			}
			if oldest {
				q.Set("order", "oldest")
			}
			items, more, err := a.searchAudit(cmd.Context(), q, limit)
			if err != nil {
				return err
			}
			rows := make([][]string, len(items))
			for i, text := range items {
				var it api.AuditItem
				if err := json.Unmarshal(text, &it); err != nil {
					return err
				}
				rows[i] = auditRow(it)
			}
			err = a.print(map[string]any{"items": items, "more": more}, func() {
				a.table([]string{"AT", "ACTOR", "WHAT", "ABOUT", "REASON", "PAGE"}, rows)
			})
			if more {
				a.note("there is more: --limit %d, or 0 for all", 10*limit)
			}
			return err
		},
	}
	a.wantedFlags(c)
	c.Flags().IntVar(&limit, "limit", 100, "so many at most; 0: all")
	c.Flags().BoolVar(&oldest, "oldest", false, "the oldest first")
	return c
}

// searchAudit asks for page after page, up to a limit.
func (a *app) searchAudit(ctx context.Context, q url.Values, limit int) (items []json.RawMessage, more bool, err error) {
	cl, err := a.connect()
	if err != nil {
		return nil, false, err
	}
	items = []json.RawMessage{}
	q.Set("limit", "1000")
	if limit > 0 && limit < 1000 {
		q.Set("limit", strconv.Itoa(limit))
	}
	for {
		answer, err := cl.SearchAudit(client.Patient(ctx, auditPatience), nil, client.Query(q))
		if err != nil {
			return nil, false, err
		}
		var page struct {
			Items []json.RawMessage `json:"items"`
			Next  string            `json:"next_page"`
		}
		if err := json.Unmarshal(answer.Raw, &page); err != nil {
			return nil, false, err
		}
		items = append(items, page.Items...)
		switch {
		case limit > 0 && len(items) >= limit:
			return items[:limit], page.Next != "" || len(items) > limit, nil
		case page.Next == "":
			return items, false, nil
		}
		q.Set("page", page.Next)
	}
}

// auditRow is how a person reads an item.
func auditRow(it api.AuditItem) []string {
	what := strings.TrimPrefix(it.Type, "dev.quash.")
	if it.Op != "" {
		what = it.Op
	}
	about := words(it.Targets)
	switch {
	case it.Target != "":
		about = it.Target
	case it.Bucket != "":
		about = it.Bucket + "/" + it.Key
	case about == "" && it.Instance != "":
		about = strings.TrimSpace(it.Guard + " " + it.Instance)
	case about == "":
		about = it.Source
	}
	if it.Tenant != "" {
		about += " of " + it.Tenant
	}
	return []string{at(it.StoredAt), it.Actor, what, about, it.Reason, fmt.Sprintf("%d.%d", it.Page, it.Item)}
}

func (a *app) auditExportCmd() *cobra.Command {
	var follow bool
	var from uint64
	c := &cobra.Command{
		Use: "export", Short: "Write the audit trail as JSON Lines, the oldest first", Args: cobra.NoArgs,
		Long: `Write the audit trail to standard output as JSON Lines, the oldest first: a line for
each target of a revocation, hold or release, and one for anything else.

With --follow it goes on with what comes, for log shippers; --from PAGE goes on with the
page of the last line that a former run wrote, whose lines come again. Exit code 0 says
that everything was written that had been committed before.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("output") && a.output != asJSON {
				return usage("-o %s: an export is JSON Lines", a.output)
			}
			q, err := a.wanted(cmd)
			if err != nil {
				return err
			}
			cl, err := a.connect()
			if err != nil {
				return err
			}
			e := exported{app: a, client: cl, query: q}
			e.page = max(from, 1)
			if !follow {
				return e.read(cmd.Context())
			}
			return e.follow(cmd.Context())
		},
	}
	a.wantedFlags(c)
	c.Flags().BoolVar(&follow, "follow", false, "go on with what comes; ends with Ctrl-C")
	c.Flags().Uint64Var(&from, "from", 1, "begin with this page of the trail")
	return c
}

// exported is an export and how far it has come.
type exported struct {
	app    *app
	client *client.Client
	query  url.Values
	page   uint64 // of the last line
	lines  int    // that were written of it
}

// follow goes on where it was when the stream ends or breaks.
func (e *exported) follow(ctx context.Context) error {
	e.query.Set("follow", "true")
	for {
		err := e.read(ctx)
		if ctx.Err() != nil {
			return nil
		}
		var refused *client.Refused
		if errors.As(err, &refused) && refused.Status/100 == 4 || errors.Is(err, errOutput) {
			return err
		}
		if err == nil {
			err = errors.New("the stream ended")
		}
		e.app.note("quash: %s; trying again", explain(err))
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
}

var errOutput = errors.New("standard output")

// read writes what comes, but for the lines that were written before.
func (e *exported) read(ctx context.Context) error {
	e.query.Set("from", strconv.FormatUint(e.page, 10))
	resp, err := e.client.ExportAudit(client.Patient(ctx, auditPatience), nil, client.Query(e.query))
	if err != nil {
		return err
	}
	page, skip := e.page, e.lines
	return eachLine(resp, func(text []byte) error {
		var it struct {
			Page uint64 `json:"page"`
		}
		if err := json.Unmarshal(text, &it); err != nil {
			return fmt.Errorf("export: %w", err)
		}
		if it.Page == page && skip > 0 {
			skip--
			return nil
		}
		if _, err := fmt.Fprintf(e.app.env.Out, "%s\n", text); err != nil {
			return fmt.Errorf("%w: %w", errOutput, err)
		}
		if it.Page != e.page {
			e.page, e.lines = it.Page, 0
		}
		e.lines++
		return nil
	})
}

// eachLine calls yield for each line of a stream that has something in it.
func eachLine(resp *http.Response, yield func([]byte) error) error {
	defer resp.Body.Close()
	sc := bufio.NewScanner(resp.Body)
	sc.Buffer(nil, maxLine)
	for sc.Scan() {
		if len(sc.Bytes()) == 0 {
			continue // it says that it is alive
		}
		if err := yield(sc.Bytes()); err != nil {
			return err
		}
	}
	if err := sc.Err(); err != nil {
		return fmt.Errorf("the answer was broken off: %w", err)
	}
	return nil
}
