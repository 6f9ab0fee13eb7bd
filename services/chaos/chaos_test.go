package chaos

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/logging"
)

// The rounds of the test command: short ones, of a fixed seed and of a fresh one.
const (
	testSeed   = 7
	testRounds = 20
)

func TestMain(m *testing.M) {
	code, again, err := Enclose(context.Background(), filepath.Join("..", ".."))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	if !again {
		code = m.Run()
	}
	os.Exit(code)
}

// TestPromisesHoldWhileThingsFail plays rounds against a real deployment.
func TestPromisesHoldWhileThingsFail(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts fourteen processes")
	}
	fresh := rand.Uint64() >> 40
	t.Logf("seeds %d and, fresh, %d", testSeed, fresh)
	ctx := t.Context()
	if end, ok := t.Deadline(); ok { // the deployment is ended before go test's own limit
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, end.Add(-30*time.Second))
		defer cancel()
	}
	redis.SetLogger(logging.Redis{Log: zap.NewNop()}) // that Redis is away is no news here
	var out bytes.Buffer
	run, err := Play(ctx, Options{
		Dir: filepath.Join(t.TempDir(), "up"), Source: filepath.Join("..", ".."),
		Seeds: []uint64{testSeed, fresh}, Rounds: testRounds, Short: true, Out: &out,
	})
	if run != nil {
		run.Report(&out)
	}
	t.Log(out.String())
	if err != nil {
		t.Fatal(err)
	}
	if len(run.Broken) > 0 {
		t.Fatalf("broken in %s: %s", run.BrokeIn, run.Broken[0])
	}
	if run.Played != 2*testRounds {
		t.Errorf("%d rounds were played, want %d", run.Played, 2*testRounds)
	}
	for _, what := range []string{
		sawChanges, sawLooks, sawAnew, sawStale, sawRedis, sawLostAnswer, sawKill, sawRebuild, sawGap, sawWhole, sawEpoch, sawNoAck,
	} {
		if run.Counts[what] == 0 {
			t.Errorf("there was never %s", what)
		}
	}
}

// A fault that does not exist is told, and nothing is started.
func TestUnknownFaultIsRefused(t *testing.T) {
	if _, err := Play(t.Context(), Options{Dir: t.TempDir(), Only: []string{"earthquake"}}); err == nil {
		t.Error("taken")
	}
}
