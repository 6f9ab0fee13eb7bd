package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
)

// enclosedName tells a program that it runs in a network of its own.
const enclosedName = "QUASH_CHAOS_ENCLOSED"

func enclosed() bool { return os.Getenv(enclosedName) != "" }

// Enclose runs this program again in a network of its own, which has nothing but
// loopback, and returns its exit code: only there may packets be dropped. again is false
// where that can't be had (it takes root, and ip and nft), and in that network itself:
// the caller goes on. Source is the root of the repository: what a build needs is
// fetched first, since nothing can be there. It is for the main goroutine, before
// anything else has begun.
func Enclose(ctx context.Context, source string) (code int, again bool, err error) {
	if enclosed() {
		out, err := exec.CommandContext(ctx, "ip", "link", "set", "lo", "up").CombinedOutput()
		if err != nil {
			err = fmt.Errorf("a network of its own: %w: %s", err, out)
		}
		return 0, false, err
	}
	for _, name := range []string{"ip", "nft"} {
		if _, err := exec.LookPath(name); err != nil || os.Geteuid() != 0 {
			return 0, false, nil //nolint:nilerr // it goes on without
		}
	}
	fetch := exec.CommandContext(ctx, "go", "list", "-deps", "./services/...", "github.com/nats-io/nats-server/v2")
	fetch.Dir, fetch.Stderr = source, os.Stderr
	if err := fetch.Run(); err != nil {
		return 0, false, fmt.Errorf("fetch what a build needs: %w", err)
	}
	// Whoever kills this one means both: the signal is tied to this thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, "/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), enclosedName+"=yes")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGTERM}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	if err := cmd.Start(); err != nil {
		return 0, false, nil //nolint:nilerr // root without the right: it goes on without
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return max(exit.ExitCode(), 1), true, nil // killed: -1
	}
	return 0, true, err
}
