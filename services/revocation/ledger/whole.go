package ledger

import (
	"context"
	"sync"
	"time"

	"github.com/quash-project/quash/shared/guard/wire"
)

// snapshots keeps the pages of the whole state, made once for all who ask within
// its life. The one before stays for those who are fetching it.
type snapshots struct {
	mu      sync.Mutex
	current *snapshot
	former  *snapshot
}

type snapshot struct {
	made  time.Time
	whole wire.Whole
	pages [][]byte
}

// forget makes the next who asks get a new one.
func (s *snapshots) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.former, s.current = s.current, nil
}

// announce returns a whole state that is younger than SnapshotLife.
func (l *Ledger) announce() (wire.Whole, error) {
	s := &l.whole
	s.mu.Lock() // held while the pages are made: the others want the same ones
	defer s.mu.Unlock()
	if s.current != nil && time.Since(s.current.made) < l.cfg.SnapshotLife {
		if has, known := l.Holds(s.current.whole.Position.Position()); has && known {
			return s.current.whole, nil
		}
	}
	id, err := wire.NewID(l.cfg.Rand)
	if err != nil {
		return wire.Whole{}, err
	}
	snap := wire.Snapshot{ID: id}
	// The position first: what the view gets meanwhile is merged by the reader
	// a second time.
	l.mu.Lock()
	head := l.head
	for _, k := range l.keys {
		snap.Keys = append(snap.Keys, wire.KeyMessage{KeyID: k.Message.KeyID, Until: k.Message.Until, JWS: k.Message.JWS})
	}
	l.mu.Unlock()
	snap.Epochs, snap.States = l.view.Epochs(), l.view.All
	pages, err := wire.EncodePages(snap)
	if err != nil {
		return wire.Whole{}, err
	}
	s.former = s.current
	s.current = &snapshot{
		made: time.Now(), pages: pages,
		whole: wire.Whole{Replica: l.replica, Snapshot: id, Pages: len(pages), Position: head.JSON()},
	}
	return s.current.whole, nil
}

// Page returns one page of a snapshot that Sync has announced. The caller must
// not change it.
func (l *Ledger) Page(_ context.Context, r wire.PageRequest) ([]byte, error) {
	l.whole.mu.Lock()
	defer l.whole.mu.Unlock()
	for _, s := range []*snapshot{l.whole.current, l.whole.former} {
		if s != nil && s.whole.Snapshot == r.Snapshot && r.Page < len(s.pages) {
			return s.pages[r.Page], nil
		}
	}
	return nil, &wire.Refusal{Code: "unknown_snapshot", Detail: "sync again"}
}
