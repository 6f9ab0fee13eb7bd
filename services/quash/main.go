// Command quash is the command line of Quash, and all of Quash in one process
// (quash dev).
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/quash-project/quash/services/quash/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := cli.Run(ctx, os.Args[1:], cli.System())
	stop()
	os.Exit(code)
}
