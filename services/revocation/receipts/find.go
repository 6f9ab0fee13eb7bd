package receipts

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/quash-project/quash/services/revocation/ledger"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/problem"
)

// maxRaces is how often a receipt is read again that others write meanwhile.
const maxRaces = 10

var errMissing = problem.New(problem.NotFound, "there is no such receipt, or it has ended")

// Find returns a receipt of the tenant, as far as it has come now, and waits up to
// wait for it to be complete. It is made from the log where none was written yet,
// and what is told stands in the bucket first: no two answers contradict each other.
func (k *Keeper) Find(ctx context.Context, tenant, id string, wait time.Duration) (Receipt, error) {
	from, err := k.cfg.From(ctx, tenant)
	if err != nil {
		return Receipt{}, err
	}
	for try := 0; try < maxRaces; try++ {
		w, changed, err := k.now(ctx, tenant, id, wait)
		if err == nil && w.receipt.At().Less(from) {
			return Receipt{}, errMissing
		}
		if err != nil || !changed {
			return w.receipt, err
		}
		err = k.store.put(ctx, &w)
		if err == nil {
			k.noteWritten(&w.receipt)
			return w.receipt, nil
		}
		if !errors.Is(err, errRaced) {
			return Receipt{}, err
		}
		wait = 0
	}
	return Receipt{}, problem.New(problem.Unavailable, "others write the receipt at the same time; ask again")
}

// now returns a receipt as it should be by now, and whether that is not written yet.
func (k *Keeper) now(ctx context.Context, tenant, id string, wait time.Duration) (w write, changed bool, err error) {
	if !isID(id) {
		return w, false, errMissing
	}
	r, rev, err := k.store.get(ctx, id)
	known := err == nil
	if !known && problem.KindOf(err) != problem.NotFound {
		return w, false, err
	}
	if known && r.Tenant != tenant {
		return w, false, errMissing
	}
	if err := k.cfg.Ledger.Ready(); err != nil {
		if known && r.Complete {
			return write{receipt: r}, false, nil // whatever the log says: that was proved
		}
		return w, false, err
	}
	epoch := k.cfg.Ledger.Epoch()
	ev, s, err := k.cfg.Ledger.Find(ctx, id)
	switch {
	case errors.Is(err, ledger.ErrNoMessage) && known:
		return write{receipt: r}, false, nil // the log has it no more: it stays as it was judged last
	case errors.Is(err, ledger.ErrNoMessage):
		return w, false, errMissing
	case err != nil:
		return w, false, problem.Wrap(problem.Unavailable, err, "the log can't be read now; try again")
	case ev.Data.Tenant != tenant || !needsOne(ev):
		return w, false, errMissing
	}
	if !known || r.Message != s.Message.ID && r.At().Less(s.Position().Stamp) {
		r, known = begin(ev, s), false
	}
	if r.Complete || r.Message != s.Message.ID {
		return write{receipt: r}, false, nil
	}
	next := r.With(k.judge(ctx, r.entry(), epoch, wait), k.cfg.Now())
	return write{receipt: next, revision: rev}, !known || r.provesMore(&next), nil
}

// isID reports whether text can be the id of an entry: SHA-256 in base64url.
func isID(text string) bool {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	return err == nil && len(raw) == sha256.Size && len(text) == 43 // the decoder passes over newlines
}

// Listed names one receipt of a list.
type Listed struct {
	ID              string
	Epoch, Sequence uint64
	item            item
}

// List returns those of a tenant's receipts that follow after, newest first, and one
// more than limit if there are more. After the zero Listed come the newest.
func (k *Keeper) List(tenant string, after Listed, limit int) ([]Listed, error) {
	items, whole := k.index.of(tenant, item{at: revoke.Stamp{Epoch: after.Epoch, Seq: after.Sequence}, id: after.ID}, limit)
	if !whole {
		return nil, problem.New(problem.Unavailable, "the list of receipts is being read; try again in a moment")
	}
	out := make([]Listed, len(items))
	for i, it := range items {
		out[i] = Listed{it.id, it.at.Epoch, it.at.Seq, it}
	}
	return out, nil
}

// readAtOnce is how many receipts of a list are read at the same time.
const readAtOnce = 16

// Read returns receipts of a list as they stand; those that have ended meanwhile are
// left out.
func (k *Keeper) Read(ctx context.Context, list []Listed) ([]Receipt, error) {
	read := make([]*Receipt, len(list))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(readAtOnce)
	for i, l := range list {
		g.Go(func() error {
			r, _, err := k.store.get(ctx, l.ID)
			switch {
			case err != nil && problem.KindOf(err) == problem.NotFound, err == nil && (r.At() != l.item.at || r.Tenant != l.item.tenant):
				k.index.drop(l.item)
				return nil
			case err != nil:
				return err
			}
			read[i] = &r
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	out := make([]Receipt, 0, len(read))
	for _, r := range read {
		if r != nil {
			out = append(out, *r)
		}
	}
	return out, nil
}

// Status tells how the keeping of receipts goes.
type Status struct {
	Receipts, Incomplete, Waiting int
	CatchingUp                    bool
	Written, Failed               uint64
}

// Status returns it as it is now.
func (k *Keeper) Status() Status {
	s := Status{Written: k.written.Load(), Failed: k.failed.Load()}
	s.Receipts, s.Incomplete = k.index.counts()
	k.mu.Lock()
	defer k.mu.Unlock()
	s.Waiting, s.CatchingUp = len(k.queue), k.again
	return s
}
