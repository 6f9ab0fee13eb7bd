package cli

import (
	"cmp"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/quash-project/quash/shared/client"
	"github.com/quash-project/quash/shared/client/api"
)

// attemptKind is the kind of what the feed tells of a first attempt.
const attemptKind = "attempt"

func (a *app) receiptAttemptsCmd() *cobra.Command {
	return &cobra.Command{
		Use: "attempts ID", Short: "Who still tries with what was revoked: where, from which network, how often", Args: cobra.ExactArgs(1),
		Long: `Tell who has tried since with what a receipt is of, as resource servers and the issuer
count what they refuse because of it: at which server, from which network, when first
and last, and how often. Somebody who is refused once and comes no more has noticed.

Counts come within some seconds, and are kept for 90 days after the last attempt. The
first one is also told by quash watch.`,
		ValidArgsFunction: a.completeIDs(receiptList),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.connect()
			if err != nil {
				return err
			}
			all, err := client.All(func(page api.RequestEditorFn) (api.Answer[api.ListAttempt], error) {
				return cl.ListReceiptAttempts(cmd.Context(), args[0], nil, page)
			})
			if err != nil {
				return err
			}
			return a.print(all.Raw, func() {
				var rows [][]string
				for _, t := range all.Value.Items {
					where := cmp.Or(t.Server, "-")
					if t.Instance != "" {
						where = guard(t.Server, t.Instance)
					}
					rows = append(rows, []string{where, t.Network, strconv.FormatInt(t.Count, 10), at(t.FirstSeen), at(t.LastSeen), cmp.Or(t.Target, "-")})
				}
				a.table([]string{"SERVER", "NETWORK", "COUNT", "FIRST", "LAST", "TARGET"}, rows)
			})
		},
	}
}
