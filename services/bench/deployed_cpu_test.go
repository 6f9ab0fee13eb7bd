package bench

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/quash-project/quash/services/deployment"
)

// spent is the processor time that was used, by the kind of process; "callers" is
// this one.
type spent map[string]time.Duration

// spent reads it, for what runs now.
func (d *deployed) spent(b *testing.B) spent {
	b.Helper()
	list, err := deployment.Processes(d.dir)
	if err != nil {
		b.Fatal(err)
	}
	out := spent{}
	for _, p := range list {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID))
		if err != nil {
			continue // it was killed
		}
		// Fields 14 and 15, in clock ticks of 10 ms (proc(5)); the name may have spaces.
		f := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
		for _, i := range []int{11, 12} {
			if n, err := strconv.Atoi(f[i]); err == nil {
				out[strings.TrimRight(p.Name, "-0123456789")] += time.Duration(n) * 10 * time.Millisecond
			}
		}
	}
	var self syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &self); err != nil {
		b.Fatal(err)
	}
	out["callers"] = time.Duration(self.Utime.Nano() + self.Stime.Nano())
	return out
}

// since is what was spent after before.
func (s spent) since(before spent) spent {
	out := spent{}
	for name, t := range s {
		out[name] = t - before[name]
	}
	return out
}

func (s spent) add(more spent) {
	for name, t := range more {
		s[name] += t
	}
}

// per tells how much it is for each of n, the greatest first.
func (s spent) per(n float64) string {
	var names []string
	for name := range s {
		names = append(names, name)
	}
	slices.SortFunc(names, func(x, y string) int { return int(s[y] - s[x]) })
	var out []string
	for _, name := range names {
		if each := time.Duration(float64(s[name]) / n); each >= time.Microsecond {
			out = append(out, fmt.Sprintf("%s %s", name, each.Round(time.Microsecond)))
		}
	}
	return strings.Join(out, ", ")
}
