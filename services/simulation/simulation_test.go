package simulation

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
)

var (
	first  = flag.Uint64("first", 1, "the first seed; 0: a random one")
	seeds  = flag.Int("seeds", 30, "how many seeds")
	length = flag.Duration("length", 3*time.Minute, "virtual time of each")
	logs   = flag.Bool("logs", false, "show what the parts log")
)

func TestSimulation(t *testing.T) {
	from := *first
	if from == 0 {
		from = rand.Uint64() >> 16
	}
	total := map[string]int{}
	for seed := from; seed < from+uint64(*seeds); seed++ {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := zap.NewNop()
				if *logs {
					log = zaptest.NewLogger(t)
				}
				var trace []string
				r := Run(seed, *length, log, func(format string, args ...any) { trace = append(trace, fmt.Sprintf(format, args...)) })
				for name, n := range r.Counts {
					total[name] += n
				}
				if len(r.Broken) > 0 {
					t.Errorf("%d broken, the first: %s\n\nwhat had happened:\n  %s", len(r.Broken), strings.Join(r.Broken[:min(3, len(r.Broken))], "\n  "), strings.Join(trace, "\n  "))
				}
			})
		})
	}
	for _, name := range slices.Sorted(maps.Keys(total)) {
		t.Logf("%-28s %d", name, total[name])
	}
}
