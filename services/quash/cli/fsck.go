package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/quash-project/quash/services/fsck"
	"github.com/quash-project/quash/services/revocation/redisview"
	"github.com/quash-project/quash/shared/guard/revoke"
)

// fsckFlags say what is looked at, and as whom.
type fsckFlags struct{ natsURL, creds, control, redisFile string }

func (a *app) fsckCmd() *cobra.Command {
	var f fsckFlags
	c := &cobra.Command{
		Use: "fsck --creds FILE", Short: "Hold log, buckets, audit, Redis view and guards against each other", Args: cobra.NoArgs,
		Long: `Hold the log, the buckets, the audit trail, the Redis view and what guards report
against each other, and name each difference. It reads the streams itself, and trusts
no service. Services may run meanwhile.

--creds is the file of the user revocation, --control-creds that of control-reader. The
Redis view is looked at if there is a URL, in the file of --redis-url or in
QUASH_REDIS_URL; its user has to read keys, and for all of it to list them (scan) and
ask for their end (pttl). Guards are looked at if QUASH_URL is set. What was not looked
at is said. Exit codes: 0 nothing differs, 1 something does.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, done, err := a.fsckConfig(f)
			if err != nil {
				return err
			}
			defer done()
			r, err := fsck.Check(cmd.Context(), cfg)
			if err != nil {
				return err
			}
			if err := a.showFsck(r); err != nil {
				return err
			}
			if !r.OK {
				return &exit{Failed, nil}
			}
			return nil
		},
	}
	c.Flags().StringVar(&f.natsURL, "nats-url", "", "servers, separated by commas (default $QUASH_NATS_URL)")
	c.Flags().StringVar(&f.creds, "creds", "", "the credentials file of the user revocation (required)")
	c.Flags().StringVar(&f.control, "control-creds", "", "the credentials file of the user control-reader, for the buckets")
	c.Flags().StringVar(&f.redisFile, "redis-url", "", "a file with the URL of Redis (default the URL in $QUASH_REDIS_URL)")
	return c
}

// fsckConfig connects to whatever is to be looked at.
func (a *app) fsckConfig(f fsckFlags) (cfg fsck.Config, done func(), err error) {
	var open []func()
	done = func() {
		for _, end := range open {
			end()
		}
	}
	defer func() {
		if err != nil {
			done()
		}
	}()
	url := a.or(f.natsURL, "QUASH_NATS_URL")
	switch {
	case url == "":
		return cfg, done, usage("--nats-url is missing, and QUASH_NATS_URL is not set")
	case f.creds == "":
		return cfg, done, usage("--creds is missing: the credentials file of the user revocation")
	}
	cfg.Now = a.env.Now
	if cfg.Log, err = connectNATS(url, f.creds, func(error) {}); err != nil {
		return cfg, done, err
	}
	open = append(open, cfg.Log.Close)
	if f.control != "" {
		if cfg.Control, err = connectNATS(url, f.control, func(error) {}); err != nil {
			return cfg, done, err
		}
		open = append(open, cfg.Control.Close)
	}
	redisURL := a.env.Getenv("QUASH_REDIS_URL")
	if f.redisFile != "" {
		if redisURL, err = a.secretFrom(f.redisFile); err != nil {
			return cfg, done, err
		}
	}
	if redisURL != "" {
		client, err := redisview.ConnectURL(redisURL)
		if err != nil {
			return cfg, done, &exit{Usage, err}
		}
		cfg.Redis = client
		open = append(open, func() { _ = client.Close() })
	}
	if a.url != "" || a.env.Getenv("QUASH_URL") != "" {
		cfg.Fleet = a.guards
	}
	return cfg, done, nil
}

// guards are where the guards say that they are.
func (a *app) guards(ctx context.Context) ([]fsck.Guard, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	cl, err := a.connect()
	if err != nil {
		return nil, err
	}
	f, err := cl.Fleet(ctx)
	if err != nil {
		return nil, err
	}
	var out []fsck.Guard
	for _, g := range f.Value.Items {
		out = append(out, fsck.Guard{Name: g.Name, Instance: g.Instance, Position: revoke.Stamp{Epoch: uint64(g.Epoch), Seq: uint64(g.Sequence)}})
	}
	return out, nil
}

func (a *app) showFsck(r fsck.Report) error {
	return a.print(r, func() { a.tellFsck(r) })
}

func (a *app) tellFsck(r fsck.Report) {
	a.fields("head", r.Head, "messages", fmt.Sprint(r.Messages), "targets", fmt.Sprint(r.Targets),
		"audit items", fmt.Sprint(r.Items), "not yet audited", fmt.Sprint(r.Unaudited), "records", fmt.Sprint(r.Records), "receipts", fmt.Sprint(r.Receipts), "keys in Redis", fmt.Sprint(r.RedisKeys), "guards", fmt.Sprint(r.Guards))
	for _, what := range r.NotLookedAt {
		a.note("not looked at: %s", what)
	}
	if r.OK {
		a.note("nothing differs")
		return
	}
	var rows [][]string
	for _, d := range r.Differences {
		rows = append(rows, []string{d.Area, d.Name, d.At, d.Detail})
	}
	a.table([]string{"AREA", "DIFFERENCE", "AT", "WHAT"}, rows)
	for kind, n := range r.Left {
		a.note("and %d more of: %s", n, kind)
	}
}
