package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/quash-project/quash/shared/guard/wire"
)

// logBack lets the log go back: its files are copied while all nodes stand still,
// as a snapshot of their disks would have them; later all nodes end, the copy takes
// the place of the files, and they start again. The buckets stay: for them that
// is documented as a restore's business.
func (r *round) logBack(ctx context.Context, rng *rand.Rand) error {
	var group string
	if r.w.copies > 1 {
		var err error
		if group, err = r.w.logGroup(ctx); err != nil {
			return err
		}
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
	r.w.rec.with(func(h *History) { h.Backs = append(h.Backs, Back{copied, back, h.epoch()}) })
	r.w.log.again()
	sleep(ctx, r.lasts(rng, time.Second, 3*time.Second))
	return nil
}

// stillNATS does something while all nodes stand still, and returns when that was.
func (w *world) stillNATS(do func() error) (at time.Duration, err error) {
	all := func(s syscall.Signal) error {
		for _, name := range w.names("nats") {
			p, err := w.process(name)
			if err != nil {
				return fmt.Errorf("%s %s: %w", s, name, err)
			}
			signal(p, s)
		}
		return nil
	}
	if err := all(syscall.SIGSTOP); err != nil {
		return 0, err
	}
	at = w.rec.Now()
	return at, errors.Join(do(), all(syscall.SIGCONT))
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
		patterns := []string{"*/streams/" + wire.Stream}
		if group != "" {
			patterns = append(patterns, "*/_js_/"+group)
		}
		for _, pattern := range patterns {
			dirs, err := filepath.Glob(filepath.Join(w.dir, node, "jetstream", pattern))
			if err == nil && len(dirs) == 0 && w.copies == 1 {
				continue // it is another node's, which replicates it with nobody
			}
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
