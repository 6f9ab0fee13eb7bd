package enginetest

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/redis/go-redis/v9"
)

// RedisServer is a real redis-server process of a test.
type RedisServer struct {
	Addr   string
	Client *redis.Client // with every right; closed at the end of the test

	dir  string
	port int
	args []string
	cmd  *exec.Cmd
	done chan struct{}
}

// Redis starts a redis-server that keeps nothing on disk, with noeviction. Extra
// arguments go to its command line ("--maxmemory", "2mb").
func Redis(t testing.TB, args ...string) *RedisServer {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Fatal("this test needs a real redis-server: apt-get install -y --no-install-recommends redis-server")
	}
	r := &RedisServer{dir: t.TempDir(), args: args}
	for try := 0; ; try++ { // somebody may take the free port before redis-server does
		r.port = freePort(t)
		r.Addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(r.port))
		err := r.start(t)
		if err == nil {
			break
		}
		if try == 4 {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		_ = r.Client.Close()
		r.Kill()
	})
	return r
}

func (r *RedisServer) start(t testing.TB) error {
	t.Helper()
	logFile, err := os.OpenFile(filepath.Join(r.dir, "redis.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer logFile.Close()
	r.cmd = exec.Command("redis-server", append([]string{
		"--bind", "127.0.0.1", "--port", strconv.Itoa(r.port), "--save", "", "--appendonly", "no",
		"--maxmemory-policy", "noeviction", "--dir", r.dir,
	}, r.args...)...)
	r.cmd.Stdout, r.cmd.Stderr = logFile, logFile
	if err := r.cmd.Start(); err != nil {
		return err
	}
	done := make(chan struct{})
	r.done = done
	go func(cmd *exec.Cmd) {
		_ = cmd.Wait()
		close(done)
	}(r.cmd)
	if r.Client == nil || r.Client.Options().Addr != r.Addr {
		r.Client = redis.NewClient(&redis.Options{Addr: r.Addr, DisableIdentity: true})
	}
	var failed error
	Eventually(t, "redis-server on "+r.Addr, func() error {
		select {
		case <-done:
			text, _ := os.ReadFile(filepath.Join(r.dir, "redis.log"))
			failed = fmt.Errorf("redis-server ended at once: %s", text)
			return nil
		default:
		}
		return r.Client.Ping(context.Background()).Err()
	})
	return failed
}

// Kill ends the process at once; what it held is gone.
func (r *RedisServer) Kill() {
	_ = r.cmd.Process.Kill()
	<-r.done
}

// Restart kills the process and starts it again, empty, on the same port.
func (r *RedisServer) Restart(t testing.TB) {
	t.Helper()
	r.Kill()
	r.Start(t)
}

// Start starts a killed one again, empty, on the same port.
func (r *RedisServer) Start(t testing.TB) {
	t.Helper()
	if err := r.start(t); err != nil {
		t.Fatal(err)
	}
}

// Dump returns a dump of all that it holds.
func (r *RedisServer) Dump(t testing.TB) []byte {
	t.Helper()
	if err := r.Client.Save(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(r.dump())
	if err == nil {
		err = os.Remove(r.dump()) // else the next start would load it
	}
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// Load kills the process and starts it again with a dump.
func (r *RedisServer) Load(t testing.TB, dump []byte) {
	t.Helper()
	r.Kill()
	if err := os.WriteFile(r.dump(), dump, 0o600); err != nil {
		t.Fatal(err)
	}
	r.Start(t)
	if err := os.Remove(r.dump()); err != nil {
		t.Fatal(err)
	}
}

func (r *RedisServer) dump() string { return filepath.Join(r.dir, "dump.rdb") }

// FlushAll empties it.
func (r *RedisServer) FlushAll(t testing.TB) {
	t.Helper()
	if err := r.Client.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
}

func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
