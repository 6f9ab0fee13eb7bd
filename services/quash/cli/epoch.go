package cli

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/quash-project/quash/services/quash/api"
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
			body := map[string]any{"reason": reason}
			if backup != "" {
				if _, err := time.Parse(time.RFC3339Nano, backup); err != nil {
					return usage("--backup %q: want a time as in 2026-01-31T12:00:00Z", backup)
				}
				body["backup_at"] = backup
			}
			raw, err := a.call(cmd.Context(), api.Call{Method: http.MethodPost, Path: "/v1/epochs", Body: body})
			if err != nil {
				return err
			}
			if a.output == "json" {
				return a.json(raw)
			}
			return a.showEpoch(raw)
		},
	}
	c.Flags().StringVar(&reason, "reason", "", "why, for the audit (required)")
	c.Flags().StringVar(&backup, "backup", "", "when the backup was made, as in 2026-01-31T12:00:00Z")
	return c
}

func (a *app) showEpoch(raw json.RawMessage) error {
	var e struct {
		Epoch  uint64
		Shared struct{ Epoch, Sequence uint64 }
	}
	if err := json.Unmarshal(raw, &e); err != nil {
		return err
	}
	a.fields("epoch", fmt.Sprint(e.Epoch), "shared up to", fmt.Sprintf("%d.%d", e.Shared.Epoch, e.Shared.Sequence))
	return nil
}
