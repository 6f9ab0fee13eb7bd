package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/quash-project/quash/shared/client/api"
)

func (a *app) epochCmd() *cobra.Command {
	return group("epoch", "Histories of the log", a.epochNewCmd())
}

func (a *app) epochNewCmd() *cobra.Command {
	var reason, backup string
	c := &cobra.Command{
		Use: "new --reason TEXT", Short: "Begin a new epoch, after the log was restored by other means than quash restore", Args: cobra.NoArgs,
		Long: `Begin a new epoch, after the log was restored by other means than quash restore (from
a copy of the files, say). Whatever was made after the backup then counts as made
before it, so that no revocation misses it; sign-ins of before are void.

By default the time of the backup is taken from the first silence of 10 s and more
that the log shows in the last hour, else an hour ago. Say --backup if you know it: it
must not be later than the backup.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if reason == "" {
				return usage("--reason is missing: it stands in the audit")
			}
			if backup != "" {
				if _, err := time.Parse(time.RFC3339Nano, backup); err != nil {
					return usage("--backup %q: want a time as in 2026-01-31T12:00:00Z", backup)
				}
			}
			cl, err := a.connect()
			if err != nil {
				return err
			}
			begun, err := cl.BeginEpoch(cmd.Context(), api.BeginEpochJSONRequestBody{Reason: reason, BackupAt: backup})
			if err != nil {
				return err
			}
			e := begun.Value
			return a.print(begun.Raw, func() {
				a.fields("epoch", fmt.Sprint(e.Epoch), "shared up to", fmt.Sprintf("%d.%d", e.Shared.Epoch, e.Shared.Sequence))
			})
		},
	}
	c.Flags().StringVar(&reason, "reason", "", "why, for the audit (required)")
	c.Flags().StringVar(&backup, "backup", "", "when the backup was made, as in 2026-01-31T12:00:00Z")
	return c
}
