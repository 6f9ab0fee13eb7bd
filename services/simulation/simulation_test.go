package simulation

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

var (
	first  = flag.Uint64("first", 1, "the first seed; 0: a random one")
	seeds  = flag.Int("seeds", 300, "how many seeds")
	length = flag.Duration("length", 3*time.Minute, "virtual time of each")
	logs   = flag.Bool("logs", false, "show what the parts log")
)

func TestSimulation(t *testing.T) {
	if raceDetector {
		t.Skip("it runs without the race detector, which makes it many times slower: scripts/test has a step of its own")
	}
	// It makes much garbage, and keeps little.
	former := debug.SetGCPercent(800)
	t.Cleanup(func() { debug.SetGCPercent(former) })
	from := *first
	if from == 0 {
		from = rand.Uint64() >> 16
	}
	var mu sync.Mutex
	total := map[string]int{}
	var enough atomic.Bool // with -failfast: one has failed
	began := time.Now()
	t.Cleanup(func() {
		t.Logf("seeds %d to %d, %s of virtual time each, in %s", from, from+uint64(*seeds)-1, *length, time.Since(began).Round(time.Second))
		for _, name := range slices.Sorted(maps.Keys(total)) {
			t.Logf("%-28s %d", name, total[name])
		}
	})
	for seed := from; seed < from+uint64(*seeds); seed++ {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			t.Parallel()
			if enough.Load() {
				t.Skip("another one has failed")
			}
			synctest.Test(t, func(t *testing.T) {
				log := zap.NewNop()
				var said bytes.Buffer
				if *logs {
					enc := zap.NewDevelopmentEncoderConfig()
					enc.EncodeTime = zapcore.TimeEncoderOfLayout("15:04:05.000")
					log = zap.New(zapcore.NewCore(zapcore.NewConsoleEncoder(enc), zapcore.Lock(zapcore.AddSync(&said)), zap.DebugLevel))
				}
				var trace notes
				r := Run(seed, *length, log, trace.add)
				mu.Lock()
				for name, n := range r.Counts {
					total[name] += n
				}
				mu.Unlock()
				if len(r.Broken) > 0 {
					enough.Store(flag.Lookup("test.failfast").Value.String() == "true")
					t.Errorf("%d broken, the first: %s\n\nwhat had happened:\n  %s", len(r.Broken), strings.Join(r.Broken[:min(3, len(r.Broken))], "\n  "), strings.Join(trace.lines, "\n  "))
					if *logs {
						t.Log(said.String())
					}
				}
			})
		})
	}
}

// notes is what happened in a run. It is safe for concurrent use.
type notes struct {
	mu    sync.Mutex
	lines []string
}

func (n *notes) add(format string, args ...any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lines = append(n.lines, fmt.Sprintf(format, args...))
}
