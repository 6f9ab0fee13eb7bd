package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/quash-project/quash/services/quash/api"
	"github.com/quash-project/quash/shared/guard/revoke"
)

type fleetAnswer struct {
	Items []struct {
		Name      string `json:"name"`
		Instance  string `json:"instance"`
		Limit     string `json:"limit"`
		Past      string `json:"past"`
		State     string `json:"state"`
		Epoch     uint64 `json:"epoch"`
		Sequence  uint64 `json:"sequence"`
		Staleness string `json:"staleness"`
		LastSeen  string `json:"last_seen"`
	} `json:"items"`
}

func (a *app) fleetCmd() *cobra.Command {
	c := &cobra.Command{
		Use: "fleet", Short: "All guards: where they are, and what bounds them", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			raw, err := a.call(cmd.Context(), api.Call{Method: http.MethodGet, Path: "/v1/fleet"})
			if err != nil {
				return err
			}
			if a.output == "json" {
				return a.json(raw)
			}
			var f fleetAnswer
			if err := json.Unmarshal(raw, &f); err != nil {
				return err
			}
			var rows [][]string
			for _, g := range f.Items {
				rows = append(rows, []string{g.Name, g.Instance, g.State, g.Limit, g.Past, fmt.Sprintf("%d.%d", g.Epoch, g.Sequence), g.LastSeen})
			}
			a.table([]string{"NAME", "INSTANCE", "STATE", "LIMIT", "PAST IT", "POSITION", "LAST SEEN"}, rows)
			return nil
		},
	}
	var reason string
	out := &cobra.Command{
		Use: "out INSTANCE", Short: "Declare a guard out: it accepts nothing until it joins again", Args: cobra.ExactArgs(1),
		ValidArgsFunction: a.completeIDs("/v1/fleet"),
		RunE: func(cmd *cobra.Command, args []string) error {
			body := map[string]any{}
			if reason != "" {
				body["reason"] = reason
			}
			raw, err := a.call(cmd.Context(), api.Call{
				Method: http.MethodPost, Path: "/v1/fleet/" + url.PathEscape(args[0]) + "/out", Body: body, Key: uuid.NewString(),
			})
			if err != nil {
				return err
			}
			if a.output == "json" {
				return a.json(raw)
			}
			a.fields("out", args[0])
			return nil
		},
	}
	out.Flags().StringVar(&reason, "reason", "", "why, for the audit")
	c.AddCommand(out)
	return c
}

// event is what the feed says of one entry, readable.
type event struct {
	Epoch    uint64   `json:"epoch"`
	Sequence uint64   `json:"sequence"`
	Kind     string   `json:"kind"`
	Op       string   `json:"op"`
	Issuer   string   `json:"issuer"`
	Targets  []string `json:"targets"`
	Name     string   `json:"name"`
	Instance string   `json:"instance"`
	KeyID    string   `json:"kid"`
	Missed   bool     `json:"missed"`
	Actor    string   `json:"actor"`
	Reason   string   `json:"reason"`
	At       string   `json:"at"`
}

// line is how a person reads it.
func (e event) line() string {
	what := []string{e.At, fmt.Sprintf(" %d.%d", e.Epoch, e.Sequence), " " + e.Kind}
	if e.Op != "" {
		what[2] = " " + e.Op
	}
	what = append(what, e.Targets...)
	switch {
	case e.KeyID != "":
		what = append(what, revoke.KindSigningKey.String()+":"+e.KeyID)
	case e.Instance != "":
		what = append(what, e.Name, e.Instance)
	}
	if e.Issuer != "" {
		what = append(what, "of issuer "+e.Issuer)
	}
	if e.Actor != "" {
		what = append(what, " by "+e.Actor)
	}
	if e.Reason != "" {
		what = append(what, " ("+e.Reason+")")
	}
	return strings.Join(what, " ")
}

func (a *app) watchCmd() *cobra.Command {
	return &cobra.Command{
		Use: "watch", Short: "The live feed, readable; ends with Ctrl-C", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := a.api()
			if err != nil {
				return err
			}
			for {
				err := a.follow(cmd.Context(), cl)
				if cmd.Context().Err() != nil {
					return nil
				}
				var refused *api.Refused
				if errors.As(err, &refused) && refused.Status/100 == 4 {
					return err
				}
				if err == nil {
					err = errors.New("the feed ended")
				}
				a.note("quash: %s; trying again", explain(err))
				select {
				case <-cmd.Context().Done():
					return nil
				case <-time.After(time.Second):
				}
			}
		},
	}
}

func (a *app) follow(ctx context.Context, cl *api.Client) error {
	body, err := cl.Stream(ctx, api.Call{Method: http.MethodGet, Path: "/v1/feed"})
	if err != nil {
		return err
	}
	defer body.Close()
	a.note("watching the feed of %s", cl.Base())
	sc := bufio.NewScanner(body)
	sc.Buffer(nil, 2<<20)
	for sc.Scan() {
		data, ok := strings.CutPrefix(sc.Text(), "data:")
		if !ok {
			continue
		}
		if a.output == "json" { // one a line, for programs that read a stream
			if _, err := fmt.Fprintln(a.env.Out, strings.TrimSpace(data)); err != nil {
				return err
			}
			continue
		}
		var e event
		if err := json.Unmarshal([]byte(data), &e); err != nil {
			return fmt.Errorf("feed: %w", err)
		}
		if e.Missed {
			a.note("quash: some of the feed was missed: this watcher was too slow")
		}
		if _, err := fmt.Fprintln(a.env.Out, clean(e.line())); err != nil {
			return err
		}
	}
	return sc.Err()
}
