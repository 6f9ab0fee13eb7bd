package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/quash-project/quash/shared/client/api"
)

func (a *app) fleetCmd() *cobra.Command {
	c := &cobra.Command{
		Use: "fleet", Short: "All guards: where they are, and what bounds them", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := a.connect()
			if err != nil {
				return err
			}
			f, err := cl.Fleet(cmd.Context())
			if err != nil {
				return err
			}
			return a.print(f.Raw, func() {
				var rows [][]string
				for _, g := range f.Value.Items {
					rows = append(rows, []string{g.Name, g.Instance, string(g.State), g.Limit, string(g.Past), fmt.Sprintf("%d.%d", g.Epoch, g.Sequence), at(g.LastSeen)})
				}
				a.table([]string{"NAME", "INSTANCE", "STATE", "LIMIT", "PAST IT", "POSITION", "LAST SEEN"}, rows)
			})
		},
	}
	var reason string
	out := &cobra.Command{
		Use: "out INSTANCE", Short: "Declare a guard out: it accepts nothing until it joins again", Args: cobra.ExactArgs(1),
		ValidArgsFunction: a.completeIDs(fleetList),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.connect()
			if err != nil {
				return err
			}
			declared, err := cl.DeclareOut(cmd.Context(), args[0], api.DeclareOutJSONRequestBody{Reason: reason})
			if err != nil {
				return err
			}
			return a.print(declared.Raw, func() { a.fields("out", args[0]) })
		},
	}
	out.Flags().StringVar(&reason, "reason", "", "why, for the audit")
	c.AddCommand(out)
	return c
}
