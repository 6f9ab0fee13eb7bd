package chaos

import (
	"bytes"
	"context"
	"path/filepath"
	"testing"
	"time"
)

// The rounds of the test command: so few that they take less than a minute with
// the start of the deployment. Their seed is fixed; scripts/chaos has others.
const (
	testSeed   = 7
	testRounds = 4
)

// TestPromisesHoldWhileThingsFail plays rounds against a real deployment.
func TestPromisesHoldWhileThingsFail(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts thirteen processes")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute) // the deployment is ended before go test's own limit
	defer cancel()
	var out bytes.Buffer
	run, err := Play(ctx, Options{
		Dir: filepath.Join(t.TempDir(), "up"), Source: filepath.Join("..", ".."), Seed: testSeed, Rounds: testRounds, Out: &out,
	})
	if run != nil {
		run.Report(&out)
	}
	t.Log(out.String())
	if err != nil {
		t.Fatal(err)
	}
	if len(run.Broken) > 0 {
		t.Errorf("broken: %s", run.Broken[0])
	}
	if run.Played != testRounds {
		t.Errorf("%d rounds were played, want %d", run.Played, testRounds)
	}
	for _, what := range []string{sawChanges, sawLooks, sawAnew} {
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
