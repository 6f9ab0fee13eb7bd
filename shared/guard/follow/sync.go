package follow

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// How long a reader waits for an answer, and between tries.
const (
	requestTimeout = 5 * time.Second
	firstBackoff   = 100 * time.Millisecond
	lastBackoff    = 5 * time.Second
	// pageWindow is how many pages are asked for ahead.
	pageWindow = 4
	maxWholes  = 3 // whole states in one sync; after that, wait before the next
)

// want is why a sync is wanted; of several the greatest counts.
type want uint8

const (
	wantNothing want = iota
	wantGap          // something on the feed is missing, or out of turn
	wantTick         // a tick was announced and has not come
	wantSilence      // probes go unanswered
	wantLost         // a reconnect, or this reader was too slow
	wantEpoch        // the log begins a new epoch
	wantProof        // the log went back
	wantStart        // nothing was read yet
)

// spread is how long at most a reader waits before it asks, so that a fleet that
// lost something together does not ask together.
func (w want) spread() time.Duration {
	switch w {
	case wantGap:
		return 300 * time.Millisecond
	case wantSilence, wantLost, wantEpoch:
		return time.Second
	}
	return 50 * time.Millisecond // rare, or by chance already
}

// syncState belongs to state.
type syncState struct {
	want  want
	busy  bool
	round uint64 // counts the syncs that began
	load  *load
	// above: what was loaded is of an epoch before the newest that was heard of. The log
	// may have lost that one, and nobody else may know of it: the reader shows it.
	above bool
}

// load is a whole state on its way in. It is merged into the view as it comes;
// the watermark moves once it is all there.
type load struct {
	track
	epochs revoke.Epochs // of the log that is read
}

// want asks for a sync. The caller holds mu.
func (r *Reader) want(w want) {
	r.sync.want = max(r.sync.want, w)
	kick(r.kickSync)
}

var errAgain = errors.New("something was lost meanwhile")

func (r *Reader) syncLoop(ctx context.Context, _ *sync.WaitGroup) {
	backoff := firstBackoff
	for {
		r.mu.Lock()
		w, limit, hurry := r.sync.want, r.limit()/10, r.probes.waited() || r.pastHalf()
		r.mu.Unlock()
		if w == wantNothing {
			if !sleep(ctx, time.Hour, r.kickSync) {
				return
			}
			continue
		}
		limit = min(w.spread(), limit)
		if hurry {
			limit = min(limit, 20*time.Millisecond)
		}
		if w != wantStart && !sleep(ctx, r.jitter(limit), nil) {
			return
		}
		err := r.syncOnce(ctx)
		if ctx.Err() != nil {
			return
		}
		switch {
		case err == nil:
			backoff = firstBackoff
			continue
		case !errors.Is(err, errAgain):
			r.setWaiting("sync", err)
		}
		if !sleep(ctx, backoff/2+r.jitter(backoff/2), nil) {
			return
		}
		backoff = min(2*backoff, lastBackoff)
	}
}

// syncOnce brings the position up to the service's head.
func (r *Reader) syncOnce(ctx context.Context) (err error) {
	req, w, ok := r.beginSync()
	if !ok {
		return nil // the gap was filled meanwhile
	}
	defer func() { r.endSync(err, w) }()
	for wholes := 0; ; {
		ans, err := r.ask(ctx, req)
		if err != nil {
			return err
		}
		if ans.Whole == nil {
			more, next, err := r.takeTail(ans)
			if err != nil || !more {
				return err
			}
			req = next
			continue
		}
		if wholes++; wholes > maxWholes {
			return errors.New("the service's log does not hold what its whole state goes up to")
		}
		epochs, err := r.loadPages(ctx, *ans.Whole)
		if err != nil {
			return err
		}
		req = r.takeWhole(*ans.Whole, epochs)
	}
}

func (r *Reader) ask(ctx context.Context, req wire.SyncRequest) (wire.SyncAnswer, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	ans, err := r.cfg.Source.Sync(ctx, req)
	switch {
	case err != nil:
		if errors.Is(err, wire.ErrUnknownKind) || errors.Is(err, wire.ErrUnknownOp) {
			r.mu.Lock()
			r.unreadable(0)
			r.publish()
			r.mu.Unlock()
		}
		return ans, err
	case ans.Error != nil:
		if ans.Error.Code == codeWentBack {
			r.refused(req.Position.Epoch)
		}
		return ans, ans.Error
	case ans.Whole != nil && (ans.Whole.Pages < 1 || ans.Whole.Pages > wire.MaxPages || ans.Whole.Position.Check() != nil || ans.Whole.Position.ID == ""):
		return ans, fmt.Errorf("%w: whole state of %d pages", errMalformed, ans.Whole.Pages)
	}
	return ans, nil
}

// beginSync makes the request, and reports whether one is still wanted.
func (r *Reader) beginSync() (wire.SyncRequest, want, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	w := r.sync.want
	if w == wantNothing {
		return wire.SyncRequest{}, w, false
	}
	r.sync.want, r.sync.busy, r.following = wantNothing, true, false
	r.sync.round++
	if !r.loaded && r.sync.load == nil {
		r.sync.load = &load{}
	}
	return r.syncRequest(), w, true
}

func (r *Reader) syncRequest() wire.SyncRequest {
	if l := r.sync.load; l != nil {
		// What was read before may belong to a history that the log has left, and
		// would be taken for proof of that again.
		q := wire.SyncRequest{Instance: r.instance, Position: l.pos.JSON()}
		if r.sync.above {
			q.Recent = []wire.PositionJSON{r.toldTop.JSON()}
		}
		return q
	}
	return wire.SyncRequest{Instance: r.instance, Position: r.pos.JSON(), Recent: r.shown()}
}

// shown is what the reader shows of what it has read.
func (r *Reader) shown() []wire.PositionJSON {
	if r.back != nil {
		return r.recent.recent(r.back.have...)
	}
	return r.recent.recent()
}

// takeTail applies what came after the position that was asked with.
func (r *Reader) takeTail(ans wire.SyncAnswer) (more bool, next wire.SyncRequest, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer r.publish()
	t, l := &r.track, r.sync.load
	if l != nil {
		t = &l.track
	}
	for _, m := range ans.Tail {
		switch {
		case m.Sequence <= t.pos.Seq || m.Message.Epoch == 0 || m.Message.ID == "":
			return false, next, fmt.Errorf("%w: a tail that goes back", errMalformed)
		case t == &r.track && m.Message.Epoch > t.pos.Epoch:
			r.learn(m) // a new epoch begins here: from now on the whole state is wanted
			return false, next, errAgain
		case !r.apply(m, t):
			return false, next, ErrUnknown
		}
		if e, ok := m.Message.EpochState(); ok && l != nil {
			l.epochs = l.epochs.With(e)
		}
	}
	if !ans.More {
		return false, next, r.arrive(ans)
	}
	if len(ans.Tail) == 0 {
		return false, next, fmt.Errorf("%w: an empty tail that goes on", errMalformed)
	}
	return true, r.syncRequest(), nil
}

// arrive ends a sync that has reached the service's head.
func (r *Reader) arrive(ans wire.SyncAnswer) error {
	if r.sync.load != nil || r.probes.proved && r.now().since(r.probes.proof) >= wire.JoinLife {
		r.unjoin()
	}
	if l := r.sync.load; l != nil {
		r.sync.load = nil
		if err := r.adopt(l); err != nil {
			return err
		}
	} else if r.back != nil && r.back.round < r.sync.round {
		// The service was shown the proof, and its log holds our position: so it is
		// the log that was read. Still a probe must prove that.
		r.back = nil
	}
	if !r.loaded {
		return errAgain // a new epoch was heard of meanwhile
	}
	if u := r.unread; u != nil && u.round < r.sync.round && u.seq <= r.pos.Seq {
		r.unread = nil
	}
	if ans.Stamp.Epoch <= r.pos.Epoch {
		r.synced = ans.Stamp
		r.settle()
	}
	if w := r.sync.want; w > wantGap && w != wantEpoch {
		return errAgain
	}
	r.sync.want = wantNothing
	r.drain()
	if r.following && r.waiting != "" {
		r.log.Info("following the log again", zap.Stringer("position", r.pos.Stamp))
		r.waiting = ""
	}
	kick(r.kickProbe)
	kick(r.kickJoin)
	return nil
}

// adopt makes a whole state that is all there the reader's own.
func (r *Reader) adopt(l *load) error {
	switch {
	case l.pos.Epoch == 0:
		return errors.New("the log has no epoch yet")
	case !r.view.Epochs().Has(l.pos.Epoch):
		return fmt.Errorf("%w: the state of an epoch that it does not name", errMalformed)
	case l.pos.Epoch < r.top:
		r.sync.above = true
		return fmt.Errorf("the service has not heard of epoch %d yet", r.top)
	case l.pos.Less(r.pos.Stamp):
		return fmt.Errorf("the service is at %s, before what was read, %s", l.pos.Stamp, r.pos.Stamp)
	case r.back != nil && l.pos.Epoch == r.pos.Epoch:
		return errors.New("the log went back, and has no new epoch yet")
	}
	if l.pos.Epoch > r.pos.Epoch {
		r.recent = l.recent // the sequences of another history mean nothing in this one
	} else {
		for _, p := range l.recent.places {
			if p.at.Seq > r.pos.Seq {
				r.recent.add(p)
			}
		}
	}
	r.view.SettleEpochs(l.epochs)
	if !r.loaded {
		r.log.Info("loaded the state of the log", zap.Stringer("position", l.pos.Stamp), zap.Int("targets", r.view.Len()))
	}
	r.pos, r.loaded, r.back = l.pos, true, nil
	r.sync.above = false
	r.stamp = r.stamp.Max(l.stamp).Max(revoke.Stamp{Epoch: l.pos.Epoch})
	r.reportSoon()
	r.changed.send()
	r.settle()
	return nil
}

// endSync sees to it that a sync that failed is tried again.
func (r *Reader) endSync(err error, w want) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sync.busy = false
	if err != nil {
		if (w == wantSilence || w == wantTick) && r.sync.want == wantNothing && r.complete() && r.sync.load == nil {
			r.drain() // nothing is known to be missing: the feed goes on meanwhile
		}
		r.want(w)
	}
	r.publish()
}

// takeWhole goes on from the position up to which the pages went.
func (r *Reader) takeWhole(w wire.Whole, epochs revoke.Epochs) wire.SyncRequest {
	r.mu.Lock()
	defer r.mu.Unlock()
	if w.Position.Epoch > r.top {
		r.beginEpoch(w.Position.Position())
	}
	r.sync.load = &load{track: track{pos: w.Position.Position()}, epochs: epochs}
	r.publish()
	return r.syncRequest()
}

// loadPages merges every page of a whole state into the view, and returns the epochs that
// it names.
func (r *Reader) loadPages(ctx context.Context, w wire.Whole) (revoke.Epochs, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type fetched struct {
		page wire.Page
		err  error
	}
	pages := make([]chan fetched, w.Pages)
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel()
	fetch := func(n int) {
		ch := make(chan fetched, 1)
		pages[n] = ch
		asking.Go(func() {
			page, err := r.fetchPage(ctx, w, n)
			ch <- fetched{page, err}
		})
	}
	for n := range min(pageWindow, w.Pages) {
		fetch(n)
	}
	var epochs revoke.Epochs
	for n := range w.Pages {
		f := <-pages[n]
		pages[n] = nil
		if f.err != nil {
			return nil, fmt.Errorf("page %d of %d: %w", n, w.Pages, f.err)
		}
		if next := n + pageWindow; next < w.Pages {
			fetch(next)
		}
		for _, e := range f.page.Epochs {
			epochs = epochs.With(e)
		}
		r.mergePage(f.page, w.Position.Epoch)
	}
	return epochs, nil
}

func (r *Reader) fetchPage(ctx context.Context, w wire.Whole, n int) (wire.Page, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	data, err := r.cfg.Source.Page(ctx, w.Replica, wire.PageRequest{Snapshot: w.Snapshot, Page: n})
	if err != nil {
		return wire.Page{}, err
	}
	page, err := wire.DecodePage(data)
	if err == nil && (page.Snapshot != w.Snapshot || page.Number != n || page.Pages != w.Pages) {
		err = fmt.Errorf("%w: another page than was asked for", errMalformed)
	}
	return page, err
}

// mergePage adds what a page says that was made in an epoch. Its keys are handed on at
// once: each message about a key stands by itself. Of what was known before, everything
// stays that refuses; but where the log has lost a release that was read here, and holds,
// it is held.
func (r *Reader) mergePage(p wire.Page, epoch uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range p.Epochs {
		r.view.MergeEpoch(e)
	}
	epochs, another := r.view.Epochs(), epoch > r.pos.Epoch
	for _, t := range p.States {
		if another && epochs.Clamp(t.State.Released).Less(t.State.Held) {
			r.view.Rehold(t.Key, t.State)
		} else {
			r.view.Merge(t.Key, t.State)
		}
	}
	for _, k := range p.Keys {
		r.cfg.OnKey(wire.Message{Kind: wire.KindKey, KeyID: k.KeyID, Until: k.Until, JWS: k.JWS})
	}
}
