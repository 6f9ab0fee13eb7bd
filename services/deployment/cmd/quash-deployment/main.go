// Command quash-deployment starts and ends all of Quash as separate processes on
// this machine: see scripts/up and scripts/down.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"

	"github.com/quash-project/quash/services/deployment"
	"github.com/quash-project/quash/shared/logging"
	"github.com/quash-project/quash/shared/process"
)

func main() {
	ctx, stop := process.Context()
	err := run(ctx, os.Args[1:])
	stop()
	if errors.Is(err, flag.ErrHelp) {
		os.Exit(2)
	}
	process.Exit("quash-deployment", err)
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New("want up, down or balance")
	}
	fs := flag.NewFlagSet("quash-deployment "+args[0], flag.ContinueOnError)
	switch args[0] {
	case "up", "down":
		dir := fs.String("dir", ".quash/up", "the `directory` for all data")
		o := deployment.Options{Source: ".", Redis: deployment.Single}
		if args[0] == "up" {
			fs.Func("redis", "how Redis runs: `single`, sentinel or cluster", func(text string) (err error) {
				o.Redis, err = deployment.ParseRedis(text)
				return err
			})
		}
		if err := fs.Parse(args[1:]); err != nil {
			return err
		}
		if fs.NArg() > 0 {
			return fmt.Errorf("unknown argument %q", fs.Arg(0))
		}
		if args[0] == "down" {
			return deployment.Down(ctx, *dir)
		}
		return deployment.Up(ctx, *dir, o, os.Stdout)
	case "balance":
		return balance(ctx, fs, args[1:])
	}
	return fmt.Errorf("%q: want up, down or balance", args[0])
}

func balance(ctx context.Context, fs *flag.FlagSet, args []string) error {
	b := &deployment.Balancer{Log: logging.New(logging.Config{}, os.Stderr).Named("balancer")}
	listen := fs.String("listen", "", "`host:port`")
	fs.Func("to", "`ADDR=ADMIN` of a backend; repeatable", func(text string) error { return b.Add(text) })
	if err := fs.Parse(args); err != nil {
		return err
	}
	l, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	return b.Serve(ctx, l)
}
