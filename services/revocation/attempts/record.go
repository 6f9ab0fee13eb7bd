package attempts

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"slices"
	"time"

	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// Bounds of a record: some 150 KB.
const (
	MaxCounts   = 500
	MaxNetworks = 1000
	MaxFormer   = 100
	// quiet is after how long without a word of a count it may be added to those that are
	// over. Guards end a count after half an hour without an attempt, and tell it again
	// half a minute after it has changed: nobody speaks of it any more.
	quiet = 2 * time.Hour
)

// Record is who has tried with what one entry refuses. Times are Unix milliseconds,
// those of attempts by the clocks of guards.
type Record struct {
	Receipt  string `json:"receipt"`
	Tenant   string `json:"tenant"`
	Epoch    uint64 `json:"epoch"`
	Sequence uint64 `json:"sequence"`
	// Committed is when the entry was; records from before it was kept have none.
	Committed int64  `json:"committed_at,omitempty"`
	Version   uint64 `json:"version"` // 1: the first attempt
	// Counts are those of guards that may still count.
	Counts []Count `json:"counts"`
	// Former are sums of counts that are over, if there were too many.
	Former []Former `json:"former,omitempty"`
	// Unkept says that there were too many guards at once: some counts stand nowhere.
	Unkept bool `json:"unkept,omitempty"`
}

// Count is what one instance has counted of one target since it began.
type Count struct {
	Server   string              `json:"server"`
	Instance string              `json:"instance"`
	Target   string              `json:"target"` // as the receipt tells it
	Began    int64               `json:"began"`
	First    int64               `json:"first"`
	Last     int64               `json:"last"`
	Sum      uint64              `json:"count"`
	Heard    int64               `json:"heard"` // when it last changed, by the clock of the service
	From     []wire.AttemptsFrom `json:"from"`
}

// Former is a sum.
type Former struct {
	Server string `json:"server"` // empty: of several
	Target string `json:"target"` // empty: of several
	First  int64  `json:"first"`
	Last   int64  `json:"last"`
	Sum    uint64 `json:"count"`
}

// At is where the entry stands.
func (r *Record) At() revoke.Stamp { return revoke.Stamp{Epoch: r.Epoch, Seq: r.Sequence} }

// source tells one count from every other.
type source struct {
	server, instance string
	target           revoke.Key
	began            int64
}

// merge takes a count of an instance, and returns by how much it is more than was known;
// changed is false if it says nothing new. The order of reports does not matter.
func (r *Record) merge(from source, target string, a *wire.Attempts, now int64) (more uint64, changed bool) {
	c := r.find(from, target, now)
	if c == nil {
		changed, r.Unkept = !r.Unkept, true
		return 0, changed
	}
	changed = c.Sum == 0
	if a.Count > c.Sum {
		more, c.Sum, changed = a.Count-c.Sum, a.Count, true
	}
	if c.First == 0 || a.First < c.First {
		c.First, changed = a.First, true
	}
	if a.Last > c.Last {
		c.Last, changed = a.Last, true
	}
	for _, f := range a.From {
		changed = c.mergeFrom(f) || changed
	}
	if changed {
		c.Heard = now
		r.trim()
	}
	return more, changed
}

func (r *Record) find(from source, target string, now int64) *Count {
	for i := range r.Counts {
		if c := &r.Counts[i]; c.Server == from.server && c.Instance == from.instance && c.Target == target && c.Began == from.began {
			return c
		}
	}
	if len(r.Counts) >= MaxCounts && !r.endOne(now) {
		return nil
	}
	r.Counts = append(r.Counts, Count{Server: from.server, Instance: from.instance, Target: target, Began: from.began, From: []wire.AttemptsFrom{}})
	return &r.Counts[len(r.Counts)-1]
}

// mergeFrom takes what is said of one network. One with a later beginning has taken the
// place of the other; a late word of that is left out.
func (c *Count) mergeFrom(f wire.AttemptsFrom) (changed bool) {
	i := slices.IndexFunc(c.From, func(is wire.AttemptsFrom) bool { return is.Network == f.Network })
	if i < 0 {
		c.From = append(c.From, f)
		return true
	}
	switch is := &c.From[i]; {
	case f.First > is.First:
		*is = f
		return true
	case f.First == is.First && (f.Count > is.Count || f.Last > is.Last):
		is.Count, is.Last = max(is.Count, f.Count), max(is.Last, f.Last)
		return true
	}
	return false
}

// trim forgets the networks that were not seen for the longest: what they have counts as
// of others.
func (r *Record) trim() {
	n := 0
	for i := range r.Counts {
		n += len(r.Counts[i].From)
	}
	for ; n > MaxNetworks; n-- {
		var in *Count
		at := 0
		for i := range r.Counts {
			c := &r.Counts[i]
			for j := range c.From {
				if in == nil || c.From[j].Last < in.From[at].Last {
					in, at = c, j
				}
			}
		}
		in.From = slices.Delete(in.From, at, at+1)
	}
}

// endOne adds the count that is over for the longest to the sums.
func (r *Record) endOne(now int64) bool {
	oldest := -1
	for i := range r.Counts {
		c := &r.Counts[i]
		if now-c.Heard >= quiet.Milliseconds() && (oldest < 0 || c.Heard < r.Counts[oldest].Heard) {
			oldest = i
		}
	}
	if oldest < 0 {
		return false
	}
	c := r.Counts[oldest]
	r.Counts = slices.Delete(r.Counts, oldest, oldest+1)
	find := func(server, target string) *Former {
		for i := range r.Former {
			if f := &r.Former[i]; f.Server == server && f.Target == target {
				return f
			}
		}
		return nil
	}
	f := find(c.Server, c.Target)
	if f == nil {
		if len(r.Former) >= MaxFormer {
			c.Server, c.Target = "", ""
			f = find("", "")
		}
		if f == nil {
			r.Former = append(r.Former, Former{Server: c.Server, Target: c.Target, First: c.First, Last: c.Last})
			f = &r.Former[len(r.Former)-1]
		}
	}
	f.First, f.Last, f.Sum = min(f.First, c.First), max(f.Last, c.Last), f.Sum+c.Sum
	return true
}

// What stands for a network where there is none.
const (
	Unknown = "unknown" // the guard could not tell
	Others  = "others"  // too many to keep each
)

// Line is one line of what a person sees.
type Line struct {
	Server, Instance, Target, Network string
	First, Last                       int64
	Count                             uint64
}

// Lines returns everything, the earliest first.
func (r *Record) Lines() []Line {
	var out []Line
	for i := range r.Counts {
		c := &r.Counts[i]
		left := c.Sum
		for _, f := range c.From {
			out = append(out, Line{c.Server, c.Instance, c.Target, cmp.Or(f.Network, Unknown), f.First, f.Last, f.Count})
			left -= min(left, f.Count)
		}
		if left > 0 {
			out = append(out, Line{c.Server, c.Instance, c.Target, Others, c.First, c.Last, left})
		}
	}
	for _, f := range r.Former {
		out = append(out, Line{f.Server, "", f.Target, Others, f.First, f.Last, f.Sum})
	}
	slices.SortFunc(out, func(a, b Line) int { return cmp.Compare(a.Key(), b.Key()) })
	return out
}

// Key sorts lines: one that goes on counting keeps its place. It is of a bounded length.
func (l *Line) Key() string {
	return fmt.Sprintf("%015d %s %s %x %s", l.First, l.Server, l.Instance, sha256.Sum256([]byte(l.Target)), l.Network)
}

// clamp holds an instance's clock against what can be: nobody tries before the entry was
// committed, or later than now.
func clamp(a wire.Attempts, committed, now int64) wire.Attempts {
	in := func(ms int64) int64 { return min(max(ms, committed), max(now, committed)) }
	a.First, a.Last = in(a.First), in(a.Last)
	a.From = slices.Clone(a.From)
	for i := range a.From {
		a.From[i].First, a.From[i].Last = in(a.From[i].First), in(a.From[i].Last)
	}
	return a
}

// joined is what two reports say of one count together.
func joined(a, b wire.Attempts) wire.Attempts {
	a.Count, a.First, a.Last = max(a.Count, b.Count), min(a.First, b.First), max(a.Last, b.Last)
	c := Count{From: slices.Clone(a.From)}
	for _, f := range b.From {
		c.mergeFrom(f)
	}
	a.From = c.From
	return a
}
