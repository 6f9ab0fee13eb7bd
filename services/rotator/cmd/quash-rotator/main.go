// Command quash-rotator makes signing keys and decides which of them signs.
package main

import (
	"context"
	"os"

	"github.com/quash-project/quash/services/rotator/app"
	"github.com/quash-project/quash/shared/config"
	"github.com/quash-project/quash/shared/guard/natsfeed"
	"github.com/quash-project/quash/shared/logging"
	"github.com/quash-project/quash/shared/process"
	"github.com/quash-project/quash/shared/tracing"
)

func main() {
	ctx, stop := process.Context()
	err := run(ctx, os.Args[1:])
	stop()
	process.Exit("quash-rotator", err)
}

func run(ctx context.Context, args []string) error {
	cfg, err := config.Load[app.Config](config.Source{Service: "rotator", Args: args, Environ: config.Environ()})
	if err != nil {
		return err
	}
	log := logging.New(cfg.Log, os.Stderr).Named("rotator")
	traces, stop, err := tracing.Open(cfg.Trace, "quash-rotator", os.Getenv, log)
	if err != nil {
		return err
	}
	defer stop()
	nc, _, err := natsfeed.Connect(cfg.NATS.URL, cfg.NATS.Creds, "quash-rotator", log)
	if err != nil {
		return err
	}
	defer nc.Close()
	s, err := app.New(ctx, cfg, app.Deps{Log: log, Traces: traces, NATS: nc})
	if err != nil {
		return err
	}
	return process.Serve(ctx, cfg.Listen, s, log)
}
