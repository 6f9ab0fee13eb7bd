package ledger

import "github.com/quash-project/quash/shared/guard/wire"

// ring keeps the newest messages of the log in the order of their sequences: to
// serve tails, and to tell whether a position that somebody speaks of is one of
// this log. It is owned by the Ledger's mutex.
type ring struct {
	items []item // used as a ring once it is full
	first int    // the oldest
	size  int
	// from is the first sequence of which everything is here that was in the
	// log when it was read.
	from uint64
}

// item is a message in short: the decoded form of an entry is several times as large.
type item struct {
	seq   uint64
	time  int64
	epoch uint64
	id    string
	raw   string // the wire part
}

func newRing(size int) *ring { return &ring{size: size} }

func (r *ring) len() int { return len(r.items) }

// at returns the i-th item, the oldest being 0.
func (r *ring) at(i int) *item { return &r.items[(r.first+i)%len(r.items)] }

// add appends a message that follows all others.
func (r *ring) add(it item) {
	if len(r.items) < r.size {
		if len(r.items) == 0 && r.from == 0 {
			r.from = it.seq
		}
		r.items = append(r.items, it)
		return
	}
	r.from = r.items[r.first].seq + 1
	r.items[r.first] = it
	r.first = (r.first + 1) % len(r.items)
}

// search returns the index of the first item at or after seq.
func (r *ring) search(seq uint64) int {
	lo, hi := 0, len(r.items)
	for lo < hi {
		mid := (lo + hi) / 2
		if r.at(mid).seq < seq {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

// find returns the message at seq.
func (r *ring) find(seq uint64) (*item, bool) {
	if i := r.search(seq); i < len(r.items) && r.at(i).seq == seq {
		return r.at(i), true
	}
	return nil, false
}

// positions returns the newest n positions, newest first.
func (r *ring) positions(n int) []wire.Position {
	n = min(n, len(r.items))
	out := make([]wire.Position, 0, n)
	for i := range n {
		out = append(out, r.at(len(r.items)-1-i).position())
	}
	return out
}

func (it *item) position() wire.Position {
	p := wire.Position{ID: it.id}
	p.Epoch, p.Seq = it.epoch, it.seq
	return p
}

func (it *item) stored() (wire.Stored, error) {
	m, err := wire.Decode([]byte(it.raw))
	return wire.Stored{Sequence: it.seq, Time: it.time, Message: m}, err
}
