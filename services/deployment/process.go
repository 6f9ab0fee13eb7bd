package deployment

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Process is one that runs, as it stands in processes.json.
type Process struct {
	Name      string   `json:"name"` // nats-1, revocation-2
	PID       int      `json:"pid"`
	Addresses []string `json:"addresses"`
	// Started is when it started, in clock ticks since the machine did: another
	// process may have the same PID later.
	Started uint64 `json:"started"`
}

// processesFile is where they stand.
const processesFile = "processes.json"

// Processes returns what runs, or ran, in the directory, in the order in which it
// was started.
func Processes(dir string) ([]Process, error) {
	data, err := os.ReadFile(filepath.Join(dir, processesFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list []Process
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, processesFile), err)
	}
	return list, nil
}

func writeProcesses(dir string, list []Process) error {
	data, err := json.MarshalIndent(list, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, processesFile), append(data, '\n'))
}

// writeFile replaces a file of mode 0600 whole.
func writeFile(path string, data []byte) error {
	next := path + ".new"
	if err := os.WriteFile(next, data, 0o600); err != nil {
		return err
	}
	return os.Rename(next, path)
}

// Runs reports whether it still does.
func (p Process) Runs() bool {
	started, err := startOf(p.PID)
	return err == nil && started == p.Started
}

// startOf reads when a process started: field 22 of /proc/PID/stat (proc(5)).
// One that has ended and was not waited for counts as ended, once the last of its threads
// has: until then it has its ports.
func startOf(pid int) (uint64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The name, in parentheses, may have spaces and parentheses itself.
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(fields) < 20 {
		return 0, os.ErrProcessDone
	}
	if threads, err := strconv.Atoi(fields[17]); fields[0] == "Z" && (err != nil || threads <= 1) {
		return 0, os.ErrProcessDone
	}
	return strconv.ParseUint(fields[19], 10, 64)
}

// launch is how a process was started. It has no secret but the paths of some.
type launch struct {
	Program string   `json:"program"`
	Args    []string `json:"args"`
	Env     []string `json:"env"`
}

func launchFile(dir, name string) string { return filepath.Join(dir, "launch", name+".json") }

// Restart starts a process that has ended again, as it was started.
func Restart(dir, name string) error {
	list, err := Processes(dir)
	if err != nil {
		return err
	}
	for i, p := range list {
		if p.Name != name {
			continue
		}
		if p.Runs() {
			return fmt.Errorf("%s runs", name)
		}
		data, err := os.ReadFile(launchFile(dir, name))
		if err != nil {
			return err
		}
		var l launch
		if err := json.Unmarshal(data, &l); err != nil {
			return err
		}
		if list[i], err = start(dir, name, p.Addresses, l); err != nil {
			return err
		}
		return writeProcesses(dir, list)
	}
	return fmt.Errorf("there is no process %q in %s", name, dir)
}

// start starts a program that goes on when this one has ended. What it writes
// goes to a file in logs.
func start(dir, name string, addresses []string, l launch) (Process, error) {
	logs := filepath.Join(dir, "logs")
	if err := os.MkdirAll(logs, 0o700); err != nil {
		return Process{}, err
	}
	out, err := os.OpenFile(filepath.Join(logs, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return Process{}, err
	}
	defer out.Close()
	cmd := exec.Command(l.Program, l.Args...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, l.Env, out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // no signal of our terminal
	if err := cmd.Start(); err != nil {
		return Process{}, fmt.Errorf("start %s: %w", name, err)
	}
	go func() { _ = cmd.Wait() }() // as long as this one runs
	started, err := startOf(cmd.Process.Pid)
	if err != nil {
		return Process{}, fmt.Errorf("%s ended at once; see %s", name, out.Name())
	}
	return Process{Name: name, PID: cmd.Process.Pid, Addresses: addresses, Started: started}, nil
}

// stopTime is how long a process may take to end after SIGTERM.
const stopTime = 20 * time.Second

// Down ends what runs in the directory, the last one first: services before
// their engines. Whatever does not end by SIGTERM is killed.
func Down(ctx context.Context, dir string) error {
	list, err := Processes(dir)
	if err != nil {
		return err
	}
	for len(list) > 0 {
		// All of one kind together.
		from := len(list) - 1
		for from > 0 && kind(list[from-1].Name) == kind(list[from].Name) {
			from--
		}
		end(ctx, list[from:])
		list = list[:from]
	}
	if err := os.Remove(filepath.Join(dir, environmentFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	err = os.Remove(filepath.Join(dir, processesFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func kind(name string) string { return strings.TrimRight(name, "-0123456789") }

func end(ctx context.Context, list []Process) {
	signal := func(s syscall.Signal) (left bool) {
		for _, p := range list {
			if p.Runs() {
				left = true
				_ = syscall.Kill(p.PID, s) // it may have ended just now
			}
		}
		return left
	}
	signal(syscall.SIGTERM)
	signal(syscall.SIGCONT) // one that is stopped can't end
	deadline := time.After(stopTime)
	for {
		running := false
		for _, p := range list {
			running = running || p.Runs()
		}
		if !running {
			return
		}
		select {
		case <-time.After(20 * time.Millisecond):
			continue
		case <-deadline:
		case <-ctx.Done():
		}
		signal(syscall.SIGKILL)
		deadline = time.After(time.Second)
	}
}

// Fsck returns the arguments of quash that check a deployment whole: everything of it
// against everything else. It reads what up.env says besides.
func Fsck(dir string) []string {
	creds := filepath.Join(dir, "identities", "creds")
	return []string{
		"fsck", "--creds", filepath.Join(creds, "revocation.creds"), "--control-creds", filepath.Join(creds, "control-reader.creds"),
		"--redis-url", filepath.Join(dir, "secrets", "redis-writer-1.url"),
	}
}
