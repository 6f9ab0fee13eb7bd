package redisview

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// fakeLog is a log and the ledgers of several replicas over it: a ledger here
// applies what is committed at once. It keeps the contract of Log.
type fakeLog struct {
	mu    sync.Mutex
	epoch uint64
	seq   uint64
	ids   map[uint64]string
	all   []wire.Stored
	reps  []*ledger
}

// ledger is the Log of one replica.
type ledger struct {
	log    *fakeLog
	view   *revoke.View
	mu     sync.Mutex
	obs    []*Writer
	down   error         // why it is not ready
	frozen chan struct{} // ticks wait for it; nil: they don't
}

func newFakeLog() *fakeLog {
	l := &fakeLog{ids: map[uint64]string{}}
	l.begin(uint64(time.Now().UnixMilli()), revoke.Stamp{})
	return l
}

func (l *fakeLog) begin(epoch uint64, d revoke.Stamp) {
	l.mu.Lock()
	l.epoch = epoch
	l.mu.Unlock()
	l.append(wire.Message{Kind: wire.KindEpoch, D: &d})
}

func (l *fakeLog) replica() *ledger {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := &ledger{log: l, view: revoke.NewView()}
	for _, s := range l.all {
		r.apply(s)
	}
	l.reps = append(l.reps, r)
	return r
}

func (l *fakeLog) append(m wire.Message) wire.Position {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seq++
	id, err := wire.NewID(rand.Reader)
	if err != nil {
		panic(err)
	}
	m.ID, m.Epoch = id, l.epoch
	l.ids[l.seq] = id
	s := wire.Stored{Sequence: l.seq, Message: m}
	l.all = append(l.all, s)
	for _, r := range l.reps {
		r.apply(s)
	}
	return s.Position()
}

// cut revokes keys and returns the position.
func (l *fakeLog) cut(keys ...revoke.Key) wire.Position {
	return l.append(wire.Message{
		Kind: wire.KindEntry, Cut: keys, At: time.Now().UnixMilli(), Until: time.Now().Add(time.Hour).Unix(),
	})
}

// goBack takes the log back to a sequence, with nobody at it, and begins no new
// epoch.
func (l *fakeLog) goBack(seq uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seq, l.reps = seq, nil
	l.all = slices.DeleteFunc(l.all, func(s wire.Stored) bool { return s.Sequence > seq })
	for s := range l.ids {
		if s > seq {
			delete(l.ids, s)
		}
	}
}

func (r *ledger) observe(w *Writer) {
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	w.Restarted()
	for _, s := range r.log.all {
		w.Applied(s)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.obs = append(r.obs, w)
}

func (r *ledger) apply(s wire.Stored) {
	for k, st := range s.Message.States(s.Position().Stamp) {
		r.view.Merge(k, st)
	}
	if e, ok := s.Message.EpochState(); ok {
		r.view.MergeEpoch(e)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, w := range r.obs {
		w.Applied(s)
	}
}

func (r *ledger) View() *revoke.View { return r.view }

func (r *ledger) Ready() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.down
}

func (r *ledger) freeze(ch chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.frozen = ch
}

func (r *ledger) Tick(ctx context.Context, _ bool) (wire.Position, error) {
	r.mu.Lock()
	frozen := r.frozen
	r.mu.Unlock()
	if frozen != nil {
		p := r.log.append(wire.Message{Kind: wire.KindTick})
		select {
		case <-frozen:
			return p, nil
		case <-ctx.Done():
			return p, ctx.Err()
		}
	}
	return r.log.append(wire.Message{Kind: wire.KindTick}), nil
}

func (r *ledger) WaitApplied(context.Context, revoke.Stamp) error { return nil }

func (r *ledger) Holds(p wire.Position) (has, known bool) {
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	id, known := r.log.ids[p.Seq]
	return known && id == p.ID, known || p.Seq > r.log.seq
}

// testKey returns a key of its own for each n.
func testKey(n int) revoke.Key {
	sum := sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(n)))
	return revoke.Key(sum[:16])
}

func testKeys(n int) (ks []revoke.Key) {
	for i := range n {
		ks = append(ks, testKey(i))
	}
	return ks
}

var errTest = errors.New("not now")

// waitFor waits until fn returns nil.
func waitFor(t testing.TB, what string, fn func() error) {
	t.Helper()
	deadline := time.Now().Add(enginetest.Patience())
	for {
		err := fn()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: still not: %v", what, err)
		}
		time.Sleep(2 * time.Millisecond) // between two looks at a condition
	}
}
