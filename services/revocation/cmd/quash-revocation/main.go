// Command quash-revocation commits revocations and tells how far they have come.
package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/quash-project/quash/services/revocation/app"
	"github.com/quash-project/quash/services/revocation/redisview"
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
	process.Exit("quash-revocation", err)
}

func run(ctx context.Context, args []string) error {
	cfg, err := config.Load[app.Config](config.Source{Service: "revocation", Args: args, Environ: config.Environ()})
	if err != nil {
		return err
	}
	log := logging.New(cfg.Log, os.Stderr).Named("revocation")
	redis.SetLogger(logging.Redis{Log: log.Named("redis")})
	traces, stop, err := tracing.Open(cfg.Trace, "quash-revocation", os.Getenv, log)
	if err != nil {
		return err
	}
	defer stop()
	d := app.Deps{Log: log, Traces: traces}
	if d.NATS, _, err = natsfeed.Connect(cfg.NATS.URL, cfg.NATS.Creds, "quash-revocation", log); err != nil {
		return err
	}
	defer d.NATS.Close()
	if d.Control, _, err = natsfeed.Connect(cfg.NATS.URL, cfg.NATS.ControlCreds, "quash-revocation-audit", log); err != nil {
		return err
	}
	defer d.Control.Close()
	if cfg.Redis.URLFile != "" {
		if d.Redis, err = connect(cfg.Redis.URLFile); err != nil {
			return err
		}
		defer d.Redis.Close()
	}
	s, err := app.New(ctx, cfg, d)
	if err != nil {
		return err
	}
	return process.Serve(ctx, cfg.Listen, s, log)
}

func connect(file string) (redis.UniversalClient, error) {
	url, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("redis.url_file: %w", err)
	}
	return redisview.ConnectURL(strings.TrimSpace(string(url)))
}
