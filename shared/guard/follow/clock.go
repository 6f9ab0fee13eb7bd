package follow

import (
	"encoding/binary"
	"io"
	"time"
)

// instant is one moment on both clocks of this machine. The wall clock jumps
// when somebody sets it; the monotonic one stands still on many machines while
// they sleep. So each is asked, and whichever says more counts.
type instant struct {
	wall int64 // Unix nanoseconds
	mono int64 // nanoseconds since the reader was made
}

// since returns how long ago earlier was at most.
func (i instant) since(earlier instant) time.Duration {
	return time.Duration(max(i.wall-earlier.wall, i.mono-earlier.mono, 0))
}

// before orders instants of one process; the monotonic clock never goes back.
func (i instant) before(o instant) bool { return i.mono < o.mono }

// now reads both clocks. The monotonic one is not taken from Config.Now, whose
// answer may have lost it (UTC and Round strip it): waiting goes by it too, and
// nobody can set it.
func (r *Reader) now() instant { return r.at(r.cfg.Now()) }

func (r *Reader) at(wall time.Time) instant {
	return instant{wall: wall.UnixNano(), mono: int64(time.Since(r.base))}
}

// jitter returns a random duration below limit, so that a fleet which lost
// something together does not ask together.
func (r *Reader) jitter(limit time.Duration) time.Duration {
	if limit <= 0 {
		return 0
	}
	r.randMu.Lock()
	defer r.randMu.Unlock()
	var b [8]byte
	if _, err := io.ReadFull(r.cfg.Rand, b[:]); err != nil {
		return limit / 2 // jitter spreads load; nothing rests on it
	}
	return time.Duration(binary.BigEndian.Uint64(b[:]) % uint64(limit))
}

// add returns the instant that comes d after i.
func (i instant) add(d time.Duration) instant {
	return instant{wall: i.wall + int64(d), mono: i.mono + int64(d)}
}

// until returns how long it is from now to i, by the monotonic clock: it is for
// waiting.
func (i instant) until(now instant) time.Duration { return time.Duration(i.mono - now.mono) }
