// Command quash-chaos lets a deployment fail at random and holds it against its
// promises: see scripts/chaos.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"

	"github.com/quash-project/quash/services/chaos"
	"github.com/quash-project/quash/shared/logging"
	"github.com/quash-project/quash/shared/process"
)

func main() {
	ctx, stop := process.Context()
	code, again, err := chaos.Enclose(ctx, ".")
	if !again && err == nil {
		code, err = run(ctx, os.Args[1:])
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "quash-chaos:", err)
		code = max(code, 2)
	}
	os.Exit(code)
}

// run returns the exit code: 1 for a broken promise, 2 for what was not played.
func run(ctx context.Context, args []string) (code int, err error) {
	o := chaos.Options{Source: ".", Out: os.Stdout, Seeds: make([]uint64, 1)}
	fs := flag.NewFlagSet("quash-chaos", flag.ContinueOnError)
	fs.DurationVar(&o.For, "for", 0, "begin rounds for so `long`")
	fs.Uint64Var(&o.Seeds[0], "seed", rand.Uint64()>>40, "`number` from which all choices come; a fresh one by default")
	fs.IntVar(&o.Rounds, "rounds", 0, "play `n` rounds at most")
	fs.IntVar(&o.First, "first", 1, "the `number` of the first round, to play one again")
	fs.IntVar(&o.Copies, "log-copies", 3, "`copies` of the log: 3, or 1, which commits what comes together in batches")
	fs.BoolVar(&o.Short, "short", false, "rounds of some two seconds, with nodes that notice sooner that a leader is gone")
	fs.StringVar(&o.Dir, "dir", "", "the `directory` for the deployment, new; a temporary one by default, kept only when a promise is broken")
	fs.Func("only", "`faults` to have, with commas: "+strings.Join(chaos.Faults(), ", "), func(text string) error {
		o.Only = strings.Split(text, ",")
		return nil
	})
	if err := fs.Parse(args); err != nil {
		return 2, nil //nolint:nilerr // it was printed
	}
	if o.For == 0 && o.Rounds == 0 || fs.NArg() > 0 {
		return 2, errors.New("want --for DURATION or --rounds N, and no other argument")
	}
	temporary := o.Dir == ""
	if temporary {
		if o.Dir, err = os.MkdirTemp("", "quash-chaos-"); err != nil {
			return 2, err
		}
	}
	redis.SetLogger(logging.Redis{Log: zap.NewNop()}) // that Redis is away is no news here
	fmt.Printf("seed %d\n", o.Seeds[0])
	began := time.Now()
	played, err := chaos.Play(ctx, o)
	if played != nil {
		played.Report(os.Stdout)
		fmt.Printf("%s\n", time.Since(began).Round(time.Second))
	}
	switch {
	case played != nil && len(played.Broken) > 0:
		fmt.Printf("logs and history: %s\n", o.Dir)
		return 1, err
	case err != nil:
		fmt.Printf("logs: %s\n", o.Dir)
		return 2, err
	case len(played.Missing()) > 0:
		return 2, fmt.Errorf("%d rounds, and not all that should happen sometimes did", played.Played)
	case temporary:
		return 0, os.RemoveAll(o.Dir)
	}
	return 0, nil
}
