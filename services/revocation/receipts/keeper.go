package receipts

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/tink-crypto/tink-go/v2/tink"
	"go.uber.org/zap"

	"github.com/quash-project/quash/services/revocation/fleet"
	"github.com/quash-project/quash/services/revocation/ledger"
	"github.com/quash-project/quash/services/revocation/proof"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// Log is what a Keeper needs of the ledger.
type Log interface {
	Ready() error
	Epoch() uint64
	View() *revoke.View
	WaitApplied(ctx context.Context, s revoke.Stamp) error
	Find(ctx context.Context, id string) (ledger.Event, wire.Stored, error)
	EventAt(ctx context.Context, s wire.Stored) (ledger.Event, error)
}

// Fleet tells how far an entry has come.
type Fleet interface {
	Wait(ctx context.Context, e fleet.Entry, d time.Duration) fleet.Confirmation
}

// Config is what a Keeper needs. NATS, KEK, Ledger and Fleet are required.
type Config struct {
	NATS     *nats.Conn // of the revocation service
	KEK      tink.AEAD  // seals the proof keys
	Ledger   Log
	Fleet    Fleet
	Replicas int
	Now      func() time.Time
	Rand     io.Reader
	Log      *zap.Logger
	// From tells from where in the log on entries are of a tenant, and not of an earlier one
	// of its name. See revocation.Service.From.
	From func(ctx context.Context, tenant string) (revoke.Stamp, error)
	// Settle is how long after its commit an entry is looked at first: by then most
	// are complete, and are written once. Each replica waits up to five times as
	// long, so that mostly one of them writes. Default 500 ms.
	Settle time.Duration
}

// Bounds of the work in the background.
const (
	// maxQueue is how many entries wait in memory. What is above gets its first receipt,
	// and is brought forward by whoever asks for it.
	maxQueue = 1 << 16
	// maxChunk is how many are looked at together.
	maxChunk = 256
	// idle is how long the work rests for the time that it took: what serves
	// requests goes first.
	idle     = 3
	maxPause = 5 * time.Second
	// afterError is how long it rests after something has failed.
	afterError = time.Second
	// giveUp is the age at which an incomplete receipt is left as it stands: an open
	// guard holds it up for ever. Whoever asks for it later still brings it forward,
	// as long as the log has its entry.
	giveUp = 50 * time.Minute
	// saveCursor spaces how often the position is kept up to which all is done.
	saveCursor = 30 * time.Second
)

// Keeper keeps the receipts. As a ledger.Observer it must be registered before the
// ledger runs.
type Keeper struct {
	Keys *proof.Keys

	cfg   Config
	log   *zap.Logger
	store *store
	index *index

	most int // entries in the queue

	mu       sync.Mutex
	queue    queue
	again    bool         // the log has to be read again
	catching bool         // it is being read
	looking  bool         // at what was taken out of the queue
	from     revoke.Stamp // after which; zero: after the cursor
	read     revoke.Stamp // the newest entry that was queued, or read

	saved struct { // by Run's goroutine alone
		cursor revoke.Stamp
		at     time.Time
	}
	written, failed atomic.Uint64
}

// New returns a Keeper. It asks nothing of NATS yet.
func New(cfg Config) (*Keeper, error) {
	if cfg.NATS == nil || cfg.KEK == nil || cfg.Ledger == nil || cfg.Fleet == nil {
		return nil, errors.New("receipts: a connection, a key-encryption key, the ledger and the fleet are needed")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	cfg.Settle = cmp.Or(cfg.Settle, 500*time.Millisecond)
	s, err := newStore(cfg.NATS, cfg)
	if err != nil {
		return nil, err
	}
	k := &Keeper{cfg: cfg, log: cfg.Log, store: s, index: newIndex(s, cfg.Log), most: maxQueue, again: true}
	k.Keys = proof.New(proof.Config{Bucket: s.late.Bucket, KEK: cfg.KEK, Now: cfg.Now, Rand: cfg.Rand, Log: cfg.Log})
	return k, nil
}

// Restarted implements ledger.Observer: what the log has lost needs no receipt, and
// the positions of what it has may be others.
func (k *Keeper) Restarted() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.queue, k.again, k.catching = nil, true, false
	k.from, k.read = revoke.Stamp{}, revoke.Stamp{}
}

// Applied implements ledger.Observer.
func (k *Keeper) Applied(s wire.Stored) {
	k.mu.Lock()
	defer k.mu.Unlock()
	at := s.Position().Stamp
	if k.again || s.Message.Kind != wire.KindEntry {
		return // what is in the log by now is read there
	}
	if len(k.queue) >= k.most {
		if k.again = true; !k.catching {
			k.from = k.read
		}
		return
	}
	k.read = k.read.Max(at)
	k.queue.add(pending{stored: bare(s), due: k.cfg.Now().Add(k.first()), owed: true})
}

// bare is a message without its targets: a queue of them would take as much as the view.
func bare(s wire.Stored) wire.Stored {
	m := s.Message
	s.Message = wire.Message{Kind: m.Kind, ID: m.ID, Epoch: m.Epoch, At: m.At, Until: m.Until, HoldEnd: m.HoldEnd, Then: m.Then}
	return s
}

// first is how long an entry is left alone at first.
func (k *Keeper) first() time.Duration {
	return k.cfg.Settle + time.Duration(mathrand.Int64N(int64(4*k.cfg.Settle)))
}

// Run works until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	if k.store.run(ctx) != nil {
		return nil // ctx has ended
	}
	if _, _, err := k.Keys.Signer(ctx); err != nil && ctx.Err() == nil {
		k.log.Warn("receipts can't be signed yet", zap.Error(err))
	}
	var following sync.WaitGroup
	following.Go(func() { k.index.run(ctx) })
	defer following.Wait()
	for ctx.Err() == nil {
		began := time.Now() // for the pause; no clock of anybody's
		least := k.cfg.Settle / 2
		if k.cfg.Ledger.Ready() == nil {
			if err := k.round(ctx); err != nil && ctx.Err() == nil {
				k.log.Warn("receipts could not be brought forward; trying again", zap.Error(err))
				least = afterError
			}
		}
		pause := max(least, min(idle*time.Since(began), maxPause))
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
	return nil
}

// round does what is due.
func (k *Keeper) round(ctx context.Context) error {
	k.mu.Lock()
	again := k.again
	chunk := k.queue.due(k.cfg.Now(), maxChunk)
	k.looking = len(chunk) > 0
	k.mu.Unlock()
	err := k.look(ctx, chunk)
	k.mu.Lock()
	k.looking = false
	k.mu.Unlock()
	if err != nil {
		return err
	}
	if again {
		if err := k.catchUp(ctx); err != nil {
			return err
		}
	}
	return k.keepCursor(ctx)
}

var errRestarted = errors.New("the log is being read anew")

// catchUp reads the log from where this process has got to, at first from the cursor,
// and takes up whatever is not done. What the queue has no room for has its first
// receipt then, and is left: open guards must not hold up what comes after.
func (k *Keeper) catchUp(ctx context.Context) error {
	from, err := k.beginCatchingUp(ctx)
	if err != nil {
		return err
	}
	var chunk []pending
	last := from
	takeUp := func() error {
		if err := k.look(ctx, chunk); err != nil {
			return err
		}
		chunk = nil
		k.mu.Lock()
		defer k.mu.Unlock()
		if !k.catching {
			return errRestarted
		}
		k.from = last
		return nil
	}
	err = k.store.broker.Read(ctx, from.Seq+1, func(r ledger.Raw) (bool, error) {
		m, err := wire.Decode([]byte(r.Header.Get(wire.Header)))
		if err != nil {
			return false, fmt.Errorf("message at %d: %w", r.Sequence, err)
		}
		s := wire.Stored{Sequence: r.Sequence, Time: r.Time.UnixMilli(), Message: m}
		if m.Kind == wire.KindEntry {
			last = s.Position().Stamp
			chunk = append(chunk, pending{stored: bare(s), unplaced: true})
		}
		if len(chunk) < maxChunk {
			return true, nil
		}
		began := time.Now()
		if err := takeUp(); err != nil {
			return false, err
		}
		if err := k.keepCursor(ctx); err != nil {
			return false, err
		}
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-time.After(min(idle*time.Since(began), maxPause)):
			return true, nil
		}
	})
	if err == nil {
		err = takeUp()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.catching = false
	if err != nil {
		k.again = true
		// What was taken up of the chunk that failed is read once more.
		k.queue.drop(func(p *pending) bool { return p.reread && p.stored.Sequence > k.from.Seq })
		return err
	}
	k.read = k.read.Max(last)
	return nil
}

// beginCatchingUp returns after which position the log is read.
func (k *Keeper) beginCatchingUp(ctx context.Context) (revoke.Stamp, error) {
	k.mu.Lock()
	from := k.from
	k.mu.Unlock()
	if from.IsZero() {
		c, err := k.store.readCursor(ctx)
		if err != nil {
			return from, err
		}
		from = revoke.Stamp{Epoch: c.Epoch, Seq: c.Sequence}
	}
	if from.Epoch > k.cfg.Ledger.Epoch() {
		from = revoke.Stamp{} // of a log that is gone
	}
	// What was lost is read again under the number that it has now.
	from = k.cfg.Ledger.View().Epochs().Clamp(from)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.again, k.catching, k.from = false, true, from // what comes from now on is queued, and is perhaps read too
	return from, nil
}

// keepCursor notes up to where everything is done.
func (k *Keeper) keepCursor(ctx context.Context) error {
	now := k.cfg.Now()
	if age := now.Sub(k.saved.at); age >= 0 && age < saveCursor {
		return nil
	}
	k.mu.Lock()
	to := k.read
	if k.again || k.catching {
		to = k.from
	}
	for _, p := range k.queue {
		if at := p.stored.Position().Stamp; !to.Less(at) {
			to = revoke.Stamp{Epoch: at.Epoch, Seq: at.Seq - 1}
		}
	}
	k.mu.Unlock()
	if !k.saved.cursor.Less(to) {
		return nil
	}
	// A log that went back gives sequences out again: nothing is noted while that is in doubt.
	if to.Epoch != k.cfg.Ledger.Epoch() || k.cfg.Ledger.Ready() != nil {
		return nil
	}
	if err := k.store.moveCursor(ctx, cursor{to.Epoch, to.Seq}); err != nil {
		return err
	}
	k.saved.cursor, k.saved.at = to, now
	return nil
}
