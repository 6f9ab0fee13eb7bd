package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/quash-project/quash/shared/client/api"
)

func (a *app) sloCmd() *cobra.Command {
	var check bool
	c := &cobra.Command{
		Use: "slo", Short: "How fast revocations take effect here", Args: cobra.NoArgs,
		Long: `How fast revocations take effect here, measured by tokens that are issued and cut every few
seconds (canary in the issuer's configuration). With several replicas of the revocation
service the one that answers tells of those that it has committed.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := a.connect()
			if err != nil {
				return err
			}
			got, err := cl.GetSLO(cmd.Context())
			if err != nil {
				return err
			}
			if err := a.print(got.Raw, func() { a.showSLO(got.Value) }); err != nil {
				return err
			}
			if w := got.Value.Windows; check && (len(w) < 2 || !w[1].Met) {
				return &exit{Failed, errors.New("the objective was not met in the last hour")}
			}
			return nil
		},
	}
	c.Flags().BoolVar(&check, "check", false, "exit code 1 if the objective was not met in the last hour")
	return c
}

func (a *app) showSLO(s api.SLO) {
	a.fields("objective", fmt.Sprintf("%g %% of revocations are in effect everywhere within %s", 100*s.Share, s.Within))
	spread := func(runs, missed int64, p50, p99, most string) []string {
		return []string{fmt.Sprint(runs), fmt.Sprint(missed), p50, p99, most}
	}
	var rows [][]string
	for _, w := range s.Windows {
		met := "no"
		if w.Met {
			met = "yes"
		}
		rows = append(rows, append([]string{"last " + w.Window, met}, spread(w.Runs, w.Missed, w.P50, w.P99, w.Max)...))
	}
	for _, g := range s.Guards {
		rows = append(rows, append([]string{clean(g.Name), ""}, spread(g.Runs, g.Missed, g.P50, g.P99, g.Max)...))
	}
	a.table([]string{"", "MET", "RUNS", "MISSED", "P50", "P99", "MAX"}, rows)
}
