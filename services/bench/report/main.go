// Report runs the benchmarks and prints each figure beside its limit, measured
// in the same run, and its goal. It fails if a benchmark does, and not because a
// goal is missed: that stands in its row.
//
//	go run ./services/bench/report [-deployment] [-count N] [-stored N] [ROW…]
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

func main() {
	count := flag.Int("count", 0, "rounds of each benchmark; the median counts (default 3, and 1 with -deployment)")
	stored := flag.Int("stored", 0, "how many records the rows keys and role store (default 1,000,000 keys and 100,000 bindings)")
	against := flag.Bool("deployment", false, "measure a deployment of separate processes")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt) // it ends what it has built
	defer stop()
	if err := run(ctx, os.Stdout, *against, asked{*count, *stored}, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// asked is how much is to be measured; zeros: as usual.
type asked struct{ count, stored int }

func run(ctx context.Context, out io.Writer, against bool, much asked, names []string) error {
	from, programs := benchmarks, ""
	if against {
		from = deployed
	}
	chosen, err := choose(from, names)
	if err != nil {
		return err
	}
	if against {
		programs, err = build(ctx)
		defer os.RemoveAll(programs)
		if err != nil {
			return err
		}
	}
	fmt.Fprintf(out, "%s, %s, %d processors, %s, commit %s\n\n", time.Now().UTC().Format("2006-01-02 15:04 UTC"), processor(), runtime.NumCPU(), runtime.Version(), commit())
	var failed error
	for _, bench := range chosen {
		if ctx.Err() != nil {
			return errors.Join(failed, context.Cause(ctx))
		}
		fmt.Fprintf(os.Stderr, "bench: %s …\n", bench.name)
		text, err := bench.measure(programs, much)
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w\n%s", bench.name, err, text))
			continue
		}
		figures := parse(text)
		table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		fmt.Fprintf(table, "%s\tmeasured\tlimit\tratio\tgoal\t\n", strings.ToUpper(bench.name))
		for _, row := range bench.rows {
			line, err := row.line(figures)
			if err != nil {
				failed = errors.Join(failed, fmt.Errorf("%s: %w\n%s", bench.name, err, text))
				continue
			}
			fmt.Fprintln(table, line)
		}
		_ = table.Flush() // as Fprintln to the same
		fmt.Fprintln(out)
	}
	return failed
}

func choose(from []benchmark, names []string) ([]benchmark, error) {
	if len(names) == 0 {
		return from, nil
	}
	var out []benchmark
	for _, name := range names {
		i := slices.IndexFunc(from, func(b benchmark) bool { return b.name == name })
		if i < 0 {
			var all []string
			for _, b := range from {
				all = append(all, b.name)
			}
			return nil, fmt.Errorf("no row %q; there are %s", name, strings.Join(all, ", "))
		}
		out = append(out, from[i])
	}
	return out, nil
}

// measure runs the benchmark: by go test, or by what was built for a deployment.
func (b *benchmark) measure(programs string, much asked) (string, error) {
	cmd := b.command(much)
	if programs != "" {
		cmd = deployedCommand(b, programs, max(much.count, 1))
	}
	var text bytes.Buffer
	cmd.Stdout, cmd.Stderr = &text, &text
	err := cmd.Run()
	return text.String(), err
}

func (b *benchmark) command(much asked) *exec.Cmd {
	count := much.count
	if count == 0 {
		count = 3
	}
	if b.once {
		count = 1
	}
	args := []string{"test", "-run", "^$", "-bench", b.pattern, "-benchtime", b.time, "-timeout", "30m", "-count", fmt.Sprint(count), b.pkg}
	if b.stored && much.stored > 0 {
		args = append(args, "-stored", fmt.Sprint(much.stored))
	}
	return exec.Command("go", args...)
}

func processor() string {
	data, err := os.ReadFile("/proc/cpuinfo")
	if err == nil {
		for line := range strings.Lines(string(data)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				return strings.TrimSpace(value)
			}
		}
	}
	return runtime.GOARCH
}

func commit() string {
	out, err := exec.Command("git", "describe", "--always", "--dirty").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}
