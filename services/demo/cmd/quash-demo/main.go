// Command quash-demo is a guarded resource server as somebody else's would be.
package main

import (
	"context"
	"os"

	"github.com/quash-project/quash/services/demo"
	"github.com/quash-project/quash/shared/config"
	"github.com/quash-project/quash/shared/logging"
	"github.com/quash-project/quash/shared/process"
	"github.com/quash-project/quash/shared/tracing"
)

func main() {
	ctx, stop := process.Context()
	err := run(ctx, os.Args[1:])
	stop()
	process.Exit("quash-demo", err)
}

func run(ctx context.Context, args []string) error {
	cfg, err := config.Load[demo.Config](config.Source{Service: "demo", Args: args, Environ: config.Environ()})
	if err != nil {
		return err
	}
	log := logging.New(cfg.Log, os.Stderr).Named("demo")
	traces, stop, err := tracing.Open(cfg.Trace, "quash-demo", os.Getenv, log)
	if err != nil {
		return err
	}
	defer stop()
	s, err := demo.New(cfg, log, traces)
	if err != nil {
		return err
	}
	return process.Serve(ctx, cfg.Listen, s, log)
}
