// Command quash is the command line of Quash, and all of Quash in one process
// (quash dev).
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"

	"github.com/quash-project/quash/services/quash/cli"
	"github.com/quash-project/quash/shared/logging"
)

func main() {
	redis.SetLogger(logging.Redis{Log: zap.NewNop()}) // a terminal shows what a command says
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := cli.Run(ctx, os.Args[1:], cli.System())
	stop()
	os.Exit(code)
}
