package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/quash-project/quash/shared/guard/wire"
)

func (r *round) flushRedis(ctx context.Context, _ *rand.Rand) error {
	r.did("flush Redis")
	_ = r.w.admin.FlushAll(ctx).Err() // another fault may have stopped it
	return nil
}

func (w *world) dumpFile() string { return filepath.Join(w.dir, "redis-1", "dump.rdb") }

// oldRedis puts an older dump of Redis in its place: one of a moment ago, or of
// some rounds ago.
func (r *round) oldRedis(ctx context.Context, rng *rand.Rand) error {
	dump := r.w.dump
	if dump == nil || rng.IntN(2) == 0 {
		if err := r.w.admin.Save(ctx).Err(); err != nil {
			return nil //nolint:nilerr // another fault has stopped it: then there is nothing to restore
		}
		var err error
		if dump, err = os.ReadFile(r.w.dumpFile()); err != nil {
			return err
		}
		r.w.dump = dump
		sleep(ctx, r.lasts(rng, 500*time.Millisecond, 2*time.Second))
	}
	r.did("put an old dump of Redis (%d bytes) in its place", len(dump))
	if err := r.w.kill("redis-1"); err != nil {
		return err
	}
	if err := os.WriteFile(r.w.dumpFile(), dump, 0o600); err != nil {
		return err
	}
	if err := r.w.restart("redis-1"); err != nil {
		return err
	}
	// It is read at the start; at the next one it shall be as shipped, and empty.
	_ = until(ctx, time.Now().Add(3*time.Second), func() error { return r.w.admin.Ping(ctx).Err() })
	if err := os.Remove(r.w.dumpFile()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// evictRedis gives Redis the policy that is forbidden, and too little memory.
func (r *round) evictRedis(ctx context.Context, rng *rand.Rand) error {
	info, err := r.w.admin.Info(ctx, "memory").Result()
	if err != nil {
		return nil //nolint:nilerr // another fault has stopped it
	}
	used := 0
	for line := range strings.Lines(info) {
		if text, ok := strings.CutPrefix(line, "used_memory:"); ok {
			used, _ = strconv.Atoi(strings.TrimSpace(text))
		}
	}
	least := used - rng.IntN(20_000)
	r.did("let Redis evict above %d of %d bytes", least, used)
	for _, set := range [][2]string{{"maxmemory-policy", "allkeys-random"}, {"maxmemory", strconv.Itoa(least)}} {
		_ = r.w.admin.ConfigSet(ctx, set[0], set[1]).Err() // it may be stopped meanwhile
	}
	sleep(ctx, r.lasts(rng, 500*time.Millisecond, 2*time.Second))
	r.w.restoreRedis(ctx)
	return nil
}

// restoreRedis gives it its settings back, if it is there; a new process has them.
func (w *world) restoreRedis(ctx context.Context) {
	_ = w.admin.ConfigSet(ctx, "maxmemory", "0").Err()
	_ = w.admin.ConfigSet(ctx, "maxmemory-policy", "noeviction").Err()
}

// logBack lets the log go back: its files are copied while all nodes stand still,
// as a snapshot of their disks would have them; later all nodes end, the copy takes
// the place of the files, and they start again. The buckets stay: for them that
// is documented as a restore's business.
func (r *round) logBack(ctx context.Context, rng *rand.Rand) error {
	group, err := r.w.logGroup(ctx)
	if err != nil {
		return err
	}
	old := filepath.Join(r.w.dir, "old")
	if err := os.RemoveAll(old); err != nil {
		return err
	}
	copied, err := r.w.stillNATS(func() error { return r.w.copyLog(group, old, false) })
	if err != nil {
		return err
	}
	if err := r.someCommits(ctx, rng); err != nil {
		return err
	}
	back, err := r.withoutNATS(ctx, func() error { return r.w.copyLog(group, old, true) })
	if err != nil {
		return err
	}
	r.did("put the log back by %s", (back - copied).Round(time.Millisecond))
	r.w.rec.with(func(h *History) { h.Backs = append(h.Backs, Back{copied, back}) })
	r.w.log.again()
	sleep(ctx, r.lasts(rng, time.Second, 3*time.Second))
	return nil
}

// stillNATS does something while all nodes stand still, and returns when that was.
func (w *world) stillNATS(do func() error) (at time.Duration, err error) {
	signal := func(s syscall.Signal) error {
		for _, name := range w.names("nats") {
			p, err := w.process(name)
			if err == nil {
				err = syscall.Kill(p.PID, s)
			}
			if err != nil {
				return fmt.Errorf("%s %s: %w", s, name, err)
			}
		}
		return nil
	}
	if err := signal(syscall.SIGSTOP); err != nil {
		return 0, err
	}
	at = w.rec.Now()
	return at, errors.Join(do(), signal(syscall.SIGCONT))
}

// withoutNATS does something while no node runs, and returns when that was. The
// load goes on, and gets nothing done.
func (r *round) withoutNATS(ctx context.Context, do func() error) (at time.Duration, err error) {
	for _, name := range r.w.names("nats") {
		if err := r.w.kill(name); err != nil {
			return 0, err
		}
	}
	at = r.w.rec.Now()
	err = do()
	for _, name := range r.w.names("nats") {
		err = errors.Join(err, r.w.restart(name))
	}
	return at, err
}

// someCommits waits until the log takes changes again, and has some more.
func (r *round) someCommits(ctx context.Context, rng *rand.Rand) error {
	done := func() (n int) {
		r.w.rec.with(func(h *History) {
			for _, x := range h.Changes {
				n += len(x.Answers)
			}
		})
		return n
	}
	want := done() + 1 + rng.IntN(15)
	return until(ctx, time.Now().Add(quietTime), func() error {
		if n := done(); n < want {
			return fmt.Errorf("the log takes no changes: %d of %d", n, want)
		}
		return nil
	})
}

// copyLog copies the files of the log, of every node, to old or from there.
func (w *world) copyLog(group, old string, restore bool) error {
	for _, node := range w.names("nats") {
		for _, pattern := range []string{"*/streams/" + wire.Stream, "*/_js_/" + group} {
			dirs, err := filepath.Glob(filepath.Join(w.dir, node, "jetstream", pattern))
			if err != nil || len(dirs) != 1 {
				return errors.Join(err, fmt.Errorf("%s has %d directories %s", node, len(dirs), pattern))
			}
			from, to := dirs[0], filepath.Join(old, node, filepath.Base(dirs[0]))
			if restore {
				from, to = to, from
				if err := os.RemoveAll(to); err != nil {
					return err
				}
			}
			if err := os.CopyFS(to, os.DirFS(from)); err != nil {
				return err
			}
		}
	}
	return nil
}

// logGroup is the name under which the nodes replicate the log.
func (w *world) logGroup(ctx context.Context) (string, error) {
	p, err := w.process("nats-1")
	if err != nil {
		return "", err
	}
	var state struct {
		Accounts []struct {
			Streams []struct {
				Name  string
				Group string `json:"stream_raft_group"`
			} `json:"stream_detail"`
		} `json:"account_details"`
	}
	err = until(ctx, time.Now().Add(10*time.Second), func() error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.Addresses[2]+"/jsz?accounts=true&streams=true&raft=true", nil)
		if err != nil {
			return err
		}
		status, text := w.fetch(req)
		if status != http.StatusOK {
			return errors.New(text)
		}
		return json.Unmarshal([]byte(text), &state)
	})
	if err != nil {
		return "", err
	}
	for _, a := range state.Accounts {
		for _, s := range a.Streams {
			if s.Name == wire.Stream && s.Group != "" {
				return s.Group, nil
			}
		}
	}
	return "", errors.New("NATS does not tell the group of the log")
}
