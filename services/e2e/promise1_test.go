package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// acked is a revocation that was answered.
type acked struct {
	key, target string
	answer      receipt
}

// committer revokes one made-up credential after the other until the service is
// gone, and keeps what was answered.
type committer struct {
	mu   sync.Mutex
	done []acked
}

func (c *committer) len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.done)
}

func (c *committer) run(q *quash, token, prefix string, callers int) *sync.WaitGroup {
	var wg sync.WaitGroup
	for caller := range callers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := 0; ; i++ {
				a := acked{key: fmt.Sprintf("%s-%d-%d", prefix, caller, i)}
				a.target = "token:" + a.key
				status, body, err := q.post("/v1/revocations", token,
					map[string]any{"op": "revoke", "targets": []string{a.target}, "reason": "test"}, "Idempotency-Key", a.key)
				if err != nil {
					return // it is gone
				}
				if status/100 != 2 {
					continue
				}
				if json.Unmarshal(body, &a.answer) != nil || a.answer.Sequence == 0 {
					return // cut off in the middle of the answer
				}
				c.mu.Lock()
				c.done = append(c.done, a)
				c.mu.Unlock()
			}
		}()
	}
	return &wg
}

// check holds what was answered against the log, and against the repeated request.
func (c *committer) check(t *testing.T, q *quash) {
	t.Helper()
	token := q.operatorToken()
	seen := map[string]string{}
	for _, a := range c.done {
		place := fmt.Sprintf("%d.%d", a.answer.Epoch, a.answer.Sequence)
		if other, ok := seen[place]; ok {
			t.Errorf("%s and %s were both answered with %s", other, a.target, place)
		}
		seen[place] = a.target
	}
	for _, a := range c.done {
		status, body, err := q.post("/v1/revocations", token,
			map[string]any{"op": "revoke", "targets": []string{a.target}, "reason": "test"}, "Idempotency-Key", a.key)
		if err != nil || status/100 != 2 {
			t.Fatalf("repeat of %s: status %d, %v: %s", a.key, status, err, body)
		}
		var again receipt
		if err := json.Unmarshal(body, &again); err != nil {
			t.Fatal(err)
		}
		if again.Sequence != a.answer.Sequence || again.Epoch != a.answer.Epoch || again.ID != a.answer.ID {
			t.Errorf("LOST: %s was answered with %d.%d; repeated it is %d.%d", a.target, a.answer.Epoch, a.answer.Sequence, again.Epoch, again.Sequence)
		}
	}
}

// TestPromise1Killed kills the whole of Quash at random points under load and
// wants every answered revocation to stand afterwards.
func TestPromise1Killed(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	q := start(t, t.TempDir())
	key := q.newKey("alice", "--scope", "orders:read")
	victim := q.token(key)
	var c committer
	for round := range 5 {
		wg := c.run(q, q.operatorToken(), fmt.Sprintf("r%d", round), 8)
		want := c.len() + 1 + rnd.IntN(60)
		eventually(t, "some revocations are answered", func() error {
			if n := c.len(); n < want {
				return fmt.Errorf("%d of %d", n, want)
			}
			return nil
		})
		if round == 3 {
			q.revoke("key:" + key.ID)
		}
		q.kill()
		wg.Wait()
		q.start()
		if want := map[bool]int{true: http.StatusUnauthorized, false: http.StatusOK}[round >= 3]; q.orders(victim) != want {
			t.Errorf("round %d: the demo answers %d, want %d", round, q.orders(victim), want)
		}
	}
	c.check(t, q)
	q.fsck()
	t.Logf("%d revocations answered over 5 kills, all stand", len(c.done))
}

// TestPromise1PowerCut cuts the power: the data lies on a file system of its own
// on a loop device, and what is copied of its image is what had reached the
// disk; dirty pages above it are lost.
func TestPromise1PowerCut(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: it mounts a file system on a loop device")
	}
	dir := t.TempDir()
	img, mnt := filepath.Join(dir, "img"), filepath.Join(dir, "mnt")
	sh(t, "truncate", "-s", "256M", img)
	sh(t, "mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", img)
	mount(t, img, mnt)
	q := start(t, filepath.Join(mnt, "data"))
	var c committer
	wg := c.run(q, q.operatorToken(), "p", 8)
	eventually(t, "some revocations are answered", func() error {
		if n := c.len(); n < 200 {
			return fmt.Errorf("%d of 200", n)
		}
		return nil
	})
	// What was answered by now must be in the copy that is made from now on.
	c.mu.Lock()
	promised := committer{done: append([]acked(nil), c.done...)}
	c.mu.Unlock()
	// The process stands still meanwhile, so that the copy is of one moment.
	if err := q.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	cut := filepath.Join(dir, "cut")
	sh(t, "cp", "--sparse=always", img, cut)
	q.kill()
	wg.Wait()

	after := filepath.Join(dir, "after")
	mount(t, cut, after)
	q2 := start(t, filepath.Join(after, "data"))
	promised.check(t, q2)
	q2.fsck()
	t.Logf("%d revocations answered before the cut, all stand", len(promised.done))
	q2.stop()
}

func sh(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, bytes.TrimSpace(out))
	}
}

func mount(t *testing.T, img, at string) {
	t.Helper()
	if err := os.MkdirAll(at, 0o700); err != nil {
		t.Fatal(err)
	}
	sh(t, "mount", "-o", "loop", img, at)
	t.Cleanup(func() {
		if err := syscall.Unmount(at, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

// TestPromise1DiskFull wants 503 and never 200 when the log can't commit: here
// its disk is full.
func TestPromise1DiskFull(t *testing.T) {
	t.Parallel() // it waits for most of its time
	if os.Getuid() != 0 {
		t.Skip("needs root: it mounts a small file system")
	}
	mnt := filepath.Join(t.TempDir(), "mnt")
	if err := os.MkdirAll(mnt, 0o700); err != nil {
		t.Fatal(err)
	}
	sh(t, "mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", mnt)
	t.Cleanup(func() { _ = syscall.Unmount(mnt, syscall.MNT_DETACH) })
	q := start(t, filepath.Join(mnt, "data"))
	token := q.operatorToken()
	filler := filepath.Join(mnt, "filler")
	_ = exec.Command("dd", "if=/dev/zero", "of="+filler, "bs=64k").Run() // until it is full
	refused := false
	var c committer
	for i := 0; i < 2000 && !refused; i++ {
		began := time.Now()
		a := acked{key: fmt.Sprintf("d-%d", i), target: fmt.Sprintf("token:d%d", i)}
		status, body, err := q.post("/v1/revocations", token,
			map[string]any{"op": "revoke", "targets": []string{a.target}, "reason": "test"}, "Idempotency-Key", a.key)
		if took := time.Since(began); took > 45*time.Second {
			t.Errorf("whoever revokes is told after %s that the log can't commit", took)
		}
		switch {
		case err != nil:
			t.Fatalf("full disk: %v", err)
		case status == http.StatusServiceUnavailable:
			refused = true
		case status/100 != 2:
			t.Fatalf("full disk: status %d, want 503: %s", status, body)
		default:
			if err := json.Unmarshal(body, &a.answer); err != nil {
				t.Fatal(err)
			}
			c.done = append(c.done, a)
		}
	}
	if !refused {
		t.Error("full disk: 2,000 revocations were answered and none refused")
	}
	// With room again and started again, all agree, and what was answered stands.
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	q.kill()
	q.start()
	c.check(t, q)
	q.fsck()
}
