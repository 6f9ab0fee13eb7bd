// Report runs the benchmarks and prints each figure beside its limit, measured
// in the same run, and its goal. It fails if a benchmark does, and not because a
// goal is missed: that stands in its row.
//
//	go run ./services/bench/report [-count N] [ROW…]
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

func main() {
	count := flag.Int("count", 3, "rounds of each benchmark; the median counts")
	flag.Parse()
	if err := run(os.Stdout, *count, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(out io.Writer, count int, names []string) error {
	chosen, err := choose(names)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s, %s, %d processors, %s, commit %s\n\n", time.Now().UTC().Format("2006-01-02 15:04 UTC"), processor(), runtime.NumCPU(), runtime.Version(), commit())
	var failed error
	for _, bench := range chosen {
		fmt.Fprintf(os.Stderr, "bench: %s …\n", bench.name)
		text, err := bench.measure(count)
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

func choose(names []string) ([]benchmark, error) {
	if len(names) == 0 {
		return benchmarks, nil
	}
	var out []benchmark
	for _, name := range names {
		i := slices.IndexFunc(benchmarks, func(b benchmark) bool { return b.name == name })
		if i < 0 {
			var all []string
			for _, b := range benchmarks {
				all = append(all, b.name)
			}
			return nil, fmt.Errorf("no row %q; there are %s", name, strings.Join(all, ", "))
		}
		out = append(out, benchmarks[i])
	}
	return out, nil
}

// measure runs the benchmark by go test.
func (b *benchmark) measure(count int) (string, error) {
	args := []string{"test", "-run", "^$", "-bench", b.pattern, "-benchtime", b.time, "-timeout", "30m"}
	if b.once {
		count = 1
	}
	args = append(args, "-count", fmt.Sprint(count), b.pkg)
	cmd := exec.Command("go", args...)
	var text bytes.Buffer
	cmd.Stdout, cmd.Stderr = &text, &text
	err := cmd.Run()
	return text.String(), err
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
