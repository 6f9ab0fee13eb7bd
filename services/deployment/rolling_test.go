package deployment

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestRollingRestartRefusesNothingValidAndAcceptsNothingRevoked: every replica of
// every service, then every node of the log, is ended with SIGTERM and started
// again, one after the other, under load. What clients may do about it stands at
// patience.
func TestRollingRestartRefusesNothingValidAndAcceptsNothingRevoked(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts thirteen processes, and each of them twice")
	}
	r := up(t, t.TempDir(), Single)
	l, stop, err := begin(r, 3)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	for _, name := range []string{
		"revocation-1", "revocation-2", "rotator-1", "rotator-2", "issuer-1", "issuer-2", "demo-1", "demo-2", "nats-1", "nats-2", "nats-3",
	} {
		l.now(name)
		begun, uses, exchanges := time.Now(), l.uses.Load(), l.exchanges.Load()
		if err := Roll(ctx, r.dir, name); err != nil {
			t.Fatalf("%v\n%s", err, r.logs())
		}
		t.Logf("%-13s %5.2f s, meanwhile %d exchanges and %d uses", name, time.Since(begun).Seconds(), l.exchanges.Load()-exchanges, l.uses.Load()-uses)
	}
	l.now("after")
	// All of it works after it, not only until it.
	done := l.revocations.Load()
	for end := time.Now().Add(time.Minute); l.revocations.Load() < done+2 && time.Now().Before(end); {
		time.Sleep(20 * time.Millisecond)
	}
	stop()
	t.Logf("%d exchanges, %d uses, %d revocations complete, %d times refused what is revoked; asked again %d times (%s), the slowest valid request took %s",
		l.exchanges.Load(), l.uses.Load(), l.revocations.Load(), l.checks.Load(), l.retries.Load(), fmt.Sprint(l.again), time.Duration(l.slowest.Load()))
	for i, wrong := range l.wrong {
		if i == 20 {
			t.Errorf("and %d more", len(l.wrong)-i)
			break
		}
		t.Error(wrong)
	}
	if l.exchanges.Load() < 100 || l.uses.Load() < 500 || l.revocations.Load() < 5 || l.checks.Load() < 20 {
		t.Error("that was no load")
	}
	// Of those that were in flight at what ended, not of those that came meanwhile. The demo
	// servers have no balancer before them: whoever comes while one is away asks the other.
	all, hidden := l.exchanges.Load()+l.uses.Load()+l.checks.Load(), int64(0)
	for what, n := range l.again {
		if !strings.HasPrefix(what, "demo-") {
			hidden += int64(n)
		}
	}
	if hidden*100 > all || l.retries.Load()*10 > all {
		t.Errorf("%d of %d requests had to be asked again, %d of them of what is behind others: more than one in 100", l.retries.Load(), all, hidden)
	}
	if l.revocations.Load() < done+2 {
		t.Error("no revocation is complete any more after it")
	}
	r.fsck()
	metricsAreExplained(t, r)
}

// metricsAreExplained holds what the processes show to Prometheus against what
// operators are told of it. It is here because the processes are.
func metricsAreExplained(t *testing.T, r *running) {
	t.Helper()
	doc, err := os.ReadFile(filepath.Join(source, "docs", "operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	shown := map[string]bool{}
	for _, name := range []string{"issuer-1", "rotator-1", "revocation-1", "demo-1"} {
		a, err := http.Get(r.process(name).Addresses[1] + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(a.Body)
		_ = a.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^# HELP (quash_\w+)`).FindAllSubmatch(text, -1) {
			shown[string(m[1])] = true
		}
	}
	told := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(quash_\\w+)` \\|").FindAllSubmatch(doc, -1) {
		told[string(m[1])] = true
	}
	if len(shown) < 10 || !maps.Equal(shown, told) {
		t.Errorf("the processes show %q, docs/operations.md explains %q", slices.Sorted(maps.Keys(shown)), slices.Sorted(maps.Keys(told)))
	}
}
