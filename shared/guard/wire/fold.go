package wire

import (
	"fmt"
	"iter"
	"strconv"
	"time"

	"github.com/quash-project/quash/shared/guard/revoke"
)

// States yields what a message at the position pos says of each of its
// targets; merge that into a View. Only entries say anything.
//
// An end says where it stands by a cut, which adds nothing to what it hits and
// lets readers tell since when. A cut stands at its own position, a hold at its first one if it was committed
// again. An entry that was committed again because its history was lost counts
// as where it stood then: at its own position it would also hit what was made
// since, and would undo a release.
func (m Message) States(pos revoke.Stamp) iter.Seq2[revoke.Key, revoke.State] {
	if m.Recommitted != nil {
		pos = *m.Recommitted
	}
	return func(yield func(revoke.Key, revoke.State) bool) {
		if m.Kind != KindEntry {
			return
		}
		for _, k := range m.Cut {
			if !yield(k, revoke.State{Cut: pos, CutAt: m.At, Until: m.Until}) {
				return
			}
		}
		for _, k := range m.End {
			if !yield(k, revoke.State{Cut: pos, CutAt: m.At, Ended: true, Until: m.Until}) {
				return
			}
		}
		for _, k := range m.Hold {
			held, again := m.First[k]
			if !again {
				held = pos
			}
			if !yield(k, revoke.State{Held: held, Until: m.Until}) {
				return
			}
		}
		for k, released := range m.Release {
			if !yield(k, revoke.State{Released: released, Until: m.Until}) {
				return
			}
		}
	}
}

// EpochState returns the history that an epoch message begins.
func (m Message) EpochState() (e revoke.Epoch, ok bool) {
	if m.Kind != KindEpoch || m.D == nil {
		return revoke.Epoch{}, false
	}
	return revoke.Epoch{Number: m.Epoch, D: *m.D, Restore: m.Restore}, true
}

// Position returns where the message stands.
func (s Stored) Position() Position {
	return Position{Stamp: revoke.Stamp{Epoch: s.Message.Epoch, Seq: s.Sequence}, ID: s.Message.ID}
}

// FromHeader reads a message of the feed from its headers (a nats.Header). The
// last Nats-Sequence counts: a publisher can set one itself, and the broker
// appends its own. When the message can't be read, Sequence and Time are there
// all the same if they could be; for the errors see Decode.
func FromHeader(h map[string][]string) (Stored, error) {
	var s Stored
	seqs, times, bodies := h["Nats-Sequence"], h["Nats-Time-Stamp"], h[Header]
	if len(seqs) == 0 || len(times) == 0 {
		return s, fmt.Errorf("%w: not a republished message: no Nats-Sequence or Nats-Time-Stamp", ErrMalformed)
	}
	seq, err := strconv.ParseUint(seqs[len(seqs)-1], 10, 64)
	if err != nil || seq == 0 {
		return s, fmt.Errorf("%w: Nats-Sequence %.40q", ErrMalformed, seqs[len(seqs)-1])
	}
	s.Sequence = seq
	at, err := time.Parse(time.RFC3339Nano, times[len(times)-1])
	if err != nil {
		return s, fmt.Errorf("%w: Nats-Time-Stamp %.40q", ErrMalformed, times[len(times)-1])
	}
	s.Time = at.UnixMilli()
	if len(bodies) != 1 {
		return s, fmt.Errorf("%w: %d headers %s, want one", ErrMalformed, len(bodies), Header)
	}
	s.Message, err = Decode([]byte(bodies[0]))
	return s, err
}
