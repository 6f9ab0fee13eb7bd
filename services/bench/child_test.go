package bench

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// childVariable makes a process of this test's program one of the children: it has
// the name and, after a space, what the child is told.
const childVariable = "QUASH_BENCH_CHILD"

// children are what runs in a process of its own, to be measured by itself. They end
// when their input does, so also when the process that started them is killed.
var children = map[string]func(told string, in *bufio.Reader) error{
	"signer": serveBare,
	"issuer": serveIssuer,
	"bucket": readBucket,
}

func TestMain(m *testing.M) {
	name, told, isChild := strings.Cut(os.Getenv(childVariable), " ")
	if !isChild {
		os.Exit(m.Run())
	}
	if err := children[name](told, bufio.NewReader(os.Stdin)); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
}

// startChild starts one, which ends with the benchmark or when its input is closed.
func startChild(b *testing.B, name, told string) (in io.WriteCloser, out *bufio.Reader) {
	b.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"="+name+" "+told)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = in.Close(); _ = cmd.Wait() })
	return in, bufio.NewReader(stdout)
}

// endOf is closed when nothing more comes.
func endOf(in io.Reader) <-chan struct{} {
	ended := make(chan struct{})
	go func() { defer close(ended); _, _ = io.Copy(io.Discard, in) }()
	return ended
}
