package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quash-project/quash/shared/client"
	"github.com/quash-project/quash/shared/client/api"
	"github.com/quash-project/quash/shared/guard/revoke"
)

// line is how a person reads what the feed says of one entry.
func line(e api.Happening) string {
	what := []string{at(e.At), fmt.Sprintf(" %d.%d", e.Epoch, e.Sequence), " " + string(e.Kind)}
	if e.Op != "" {
		what[2] = " " + string(e.Op)
	}
	what = append(what, e.Targets...)
	switch {
	case e.Kid != "":
		what = append(what, revoke.KindSigningKey.String()+":"+e.Kid)
	case e.Kind == attemptKind:
		what = append(what, "with receipt "+e.Receipt, "at", guard(e.Name, e.Instance), "from", e.Network)
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
			cl, err := a.connect()
			if err != nil {
				return err
			}
			for {
				err := a.follow(cmd.Context(), cl)
				if cmd.Context().Err() != nil {
					return nil
				}
				var refused *client.Refused
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

func (a *app) follow(ctx context.Context, cl *client.Client) error {
	body, err := cl.WatchFeed(ctx)
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
		var e api.Happening
		if err := json.Unmarshal([]byte(data), &e); err != nil {
			return fmt.Errorf("feed: %w", err)
		}
		if e.Missed && a.output == asTable {
			a.note("quash: some of the feed was missed: this watcher was too slow")
		}
		if err := a.event(json.RawMessage(data), func() string { return line(e) }); err != nil {
			return err
		}
	}
	return sc.Err()
}
