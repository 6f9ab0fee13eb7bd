package running

import (
	"cmp"
	"slices"

	"github.com/quash-project/quash/services/revocation/receipts"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// MaxCounts bounds a record: some 400 KB.
const MaxCounts = 2000

// Record is what still runs of what one entry refuses. Times are Unix milliseconds.
type Record struct {
	Receipt  string  `json:"receipt"`
	Tenant   string  `json:"tenant"`
	Epoch    uint64  `json:"epoch"`
	Sequence uint64  `json:"sequence"`
	Counts   []Count `json:"counts"`
}

// Count is what one instance has told last of one target.
type Count struct {
	Server   string `json:"server"`
	Instance string `json:"instance"`
	Target   string `json:"target"` // as the receipt tells it
	Running  uint64 `json:"running"`
	Told     int64  `json:"told"`  // by the guard's clock: it grows with each change
	Heard    int64  `json:"heard"` // when this was heard, by the clock of the service
}

// At is where the entry stands.
func (r *Record) At() revoke.Stamp { return revoke.Stamp{Epoch: r.Epoch, Seq: r.Sequence} }

// source tells one count from every other.
type source struct {
	server, instance string
	target           revoke.Key
}

// heard is what was told of a count, and when.
type heard struct {
	wire.Running
	at int64
}

// merge takes what an instance has told of a target, and reports whether it says anything
// new. The order of reports does not matter; false, false: there is no room.
func (r *Record) merge(from source, target string, h heard) (changed, kept bool) {
	i := slices.IndexFunc(r.Counts, func(c Count) bool {
		return c.Server == from.server && c.Instance == from.instance && c.Target == target
	})
	if i < 0 {
		if len(r.Counts) >= MaxCounts && !r.endOne() {
			return false, false
		}
		i = len(r.Counts)
		r.Counts = append(r.Counts, Count{Server: from.server, Instance: from.instance, Target: target})
	}
	c := &r.Counts[i]
	if h.Told <= c.Told {
		return false, true
	}
	c.Running, c.Told, c.Heard = h.Count, h.Told, h.at
	return true, true
}

// endOne forgets the count that is at nothing for the longest.
func (r *Record) endOne() bool {
	oldest := -1
	for i, c := range r.Counts {
		if c.Running == 0 && (oldest < 0 || c.Heard < r.Counts[oldest].Heard) {
			oldest = i
		}
	}
	if oldest < 0 {
		return false
	}
	r.Counts = slices.Delete(r.Counts, oldest, oldest+1)
	return true
}

// Lines are what a receipt tells: the sum of each instance, by server and instance, with
// the time at which the newest part of it was heard.
func (r *Record) Lines() []receipts.Running {
	var out []receipts.Running
	for _, c := range r.Counts {
		i := slices.IndexFunc(out, func(l receipts.Running) bool { return l.Name == c.Server && l.Instance == c.Instance })
		if i < 0 {
			i = len(out)
			out = append(out, receipts.Running{Name: c.Server, Instance: c.Instance})
		}
		out[i].Count += c.Running
		out[i].At = max(out[i].At, c.Heard)
	}
	slices.SortFunc(out, func(a, b receipts.Running) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Instance, b.Instance))
	})
	return out
}
