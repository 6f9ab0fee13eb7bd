package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/quash-project/quash/services/quash/doctor"
)

// examineTime bounds the whole of it.
const examineTime = time.Minute

func (a *app) doctorCmd() *cobra.Command {
	return &cobra.Command{
		Use: "doctor", Short: "Look for what is wrong, from here", Args: cobra.NoArgs,
		Long: `Look for what is wrong, from here: clocks, certificates, the signing keys, how stale
guards are; NATS servers, rights and the log's stream; Redis role, ACL and policy.
Each finding that is wrong comes with its mend. What could not be looked at is said
so, with what would let it. Exit code 0: nothing is wrong; 1: something is.

Environment, beside QUASH_URL and QUASH_KEY_FILE; all of it is optional:
  QUASH_NATS_URL, QUASH_NATS_CREDS  what a guard here has
  QUASH_NATS_MONITOR_CREDS          of the user monitor: sync mode of each server, stream
  QUASH_NATS_REVOCATION_CREDS       of the user revocation: the stream as the service sees it
  QUASH_REDIS_URL                   what a reader here has
  QUASH_REDIS_WRITER_URL            what the revocation service has: eviction policy`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := a.connect()
			if err != nil {
				return err
			}
			who, err := a.signedIn()
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), examineTime)
			defer cancel()
			get := a.env.Getenv
			return a.tellFindings(doctor.Examine(ctx, doctor.Config{
				API: cl, SignedIn: who.KeyFile != "", HTTP: a.env.HTTP, Now: a.env.Now,
				NATSURL: get("QUASH_NATS_URL"), Creds: get("QUASH_NATS_CREDS"),
				MonitorCreds: get("QUASH_NATS_MONITOR_CREDS"), RevocationCreds: get("QUASH_NATS_REVOCATION_CREDS"),
				RedisURL: get("QUASH_REDIS_URL"), RedisWriterURL: get("QUASH_REDIS_WRITER_URL"),
			}))
		},
	}
}

func (a *app) tellFindings(found []doctor.Finding) error {
	healthy := true
	var rows [][]string
	for _, f := range found {
		healthy = healthy && f.OK
		mark := "ok"
		switch {
		case f.NotLooked:
			mark = "-"
		case !f.OK:
			mark = "WRONG"
		}
		rows = append(rows, []string{mark, f.Check, f.Detail})
	}
	err := a.print(map[string]any{"ok": healthy, "findings": found}, func() {
		a.table([]string{"", "CHECK", "FOUND"}, rows)
		for _, f := range found {
			if f.Mend != "" {
				a.note("%s: %s", clean(f.Check), clean(f.Mend))
			}
		}
	})
	if err == nil && !healthy {
		return &exit{Failed, nil}
	}
	return err
}
