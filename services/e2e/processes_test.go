package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/quash-project/quash/services/deployment"
)

// deploymentVariable chooses what the tests of one Quash run on: quash dev, one
// for each test, or with "processes" what scripts/up starts, one for all. Tests
// that kill or restart their Quash are for the former; package deployment kills
// processes of the latter.
const deploymentVariable = "QUASH_TEST_ON"

// processes is what all tests share, nil with quash dev.
var processes *quash

// startProcesses starts it, in directory dir.
func startProcesses(dir string) (down func(), err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute) // it builds the programs
	defer cancel()
	out := &logBuffer{}
	down = func() {
		if err := deployment.Down(context.Background(), dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	if err := deployment.Up(ctx, dir, deployment.Options{Source: filepath.Join("..", "..")}, out); err != nil {
		return down, errors.Join(err, errors.New(out.String()))
	}
	text, err := os.ReadFile(filepath.Join(dir, "up.env"))
	if err != nil {
		return down, err
	}
	q := &quash{dir: dir, env: map[string]string{}, out: out}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		value = strings.Trim(value, "'") // the directory has none in its name
		// Also for this process: its HTTP clients trust the deployment's authority.
		if err := os.Setenv(name, value); err != nil {
			return down, err
		}
		if strings.HasPrefix(name, "QUASH_") {
			q.env[name] = value
		}
	}
	processes = q
	return down, nil
}

// forTest is the shared deployment in the hands of one test.
func (q *quash) forTest(t testing.TB, args []string) *quash {
	t.Helper()
	if len(args) > 0 {
		t.Skip("it starts quash dev in a way of its own")
	}
	return &quash{t: t, dir: q.dir, env: maps.Clone(q.env), out: q.out}
}
