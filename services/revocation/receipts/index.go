package receipts

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/guard/revoke"
)

// item is what is kept of each receipt in memory: some 80 bytes.
type item struct {
	at       revoke.Stamp
	id       string
	tenant   string // one string for all of a tenant
	under    string // incidentOf; empty: of none
	complete bool
}

func (a item) compare(b item) int {
	return cmp.Or(cmp.Compare(a.at.Epoch, b.at.Epoch), cmp.Compare(a.at.Seq, b.at.Seq), strings.Compare(a.id, b.id))
}

// receipts are in the order of the log.
type receipts []*item

func (l receipts) search(it item) (int, bool) {
	return slices.BinarySearchFunc(l, it, func(a *item, b item) int { return a.compare(b) })
}

// owner is a tenant, with what it has.
type owner struct {
	name  string
	items receipts
}

// index is all receipts that there are, in the order of the log. It follows the
// bucket, so that it may be behind: nothing is decided by it alone.
type index struct {
	store *store
	log   *zap.Logger

	mu         sync.Mutex
	items      receipts
	tenants    map[string]*owner
	incidents  map[string]receipts // by incidentOf; some may be gone
	incomplete int
	whole      bool // what there was at the start has been read
}

func newIndex(s *store, log *zap.Logger) *index {
	return &index{store: s, log: log, tenants: map[string]*owner{}, incidents: map[string]receipts{}}
}

func incidentOf(tenant, incident string) string { return tenant + "." + incident }

// take notes a receipt as it is stored.
func (x *index) take(id string, n note) {
	x.mu.Lock()
	defer x.mu.Unlock()
	of := x.tenants[n.Tenant]
	if of == nil {
		of = &owner{name: strings.Clone(n.Tenant)}
		x.tenants[of.name] = of
	}
	it := item{at: revoke.Stamp{Epoch: n.Epoch, Seq: n.Sequence}, id: id, tenant: of.name, complete: n.Complete}
	i, found := x.items.search(it)
	if found {
		if is := x.items[i]; it.complete && !is.complete { // an older version may come late
			is.complete = true
			x.incomplete--
		}
		return
	}
	if !it.complete {
		x.incomplete++
	}
	x.items = slices.Insert(x.items, i, &it)
	i, _ = of.items.search(it)
	of.items = slices.Insert(of.items, i, &it)
	if n.Incident != "" {
		it.under = incidentOf(n.Tenant, n.Incident)
		i, _ = x.incidents[it.under].search(it)
		x.incidents[it.under] = slices.Insert(x.incidents[it.under], i, &it)
	}
}

// find returns the receipt of the entry at a position.
func (x *index) find(at revoke.Stamp) (item, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	i, _ := x.items.search(item{at: at})
	if i < len(x.items) && x.items[i].at == at {
		return *x.items[i], true
	}
	return item{}, false
}

// lacks reports whether there was no receipt of that entry a moment ago.
func (x *index) lacks(at revoke.Stamp) bool {
	_, ok := x.find(at)
	x.mu.Lock()
	defer x.mu.Unlock()
	return !ok && x.whole
}

// drop forgets a receipt that is gone.
func (x *index) drop(it item) {
	x.mu.Lock()
	defer x.mu.Unlock()
	i, found := x.items.search(it)
	if !found {
		return
	}
	if !x.items[i].complete {
		x.incomplete--
	}
	under := x.items[i].under
	if n, found := x.incidents[under].search(it); found {
		x.incidents[under] = slices.Delete(x.incidents[under], n, n+1)
	}
	if len(x.incidents[under]) == 0 {
		delete(x.incidents, under)
	}
	x.items = slices.Delete(x.items, i, i+1)
	if of := x.tenants[it.tenant]; of != nil {
		if i, found := of.items.search(it); found {
			of.items = slices.Delete(of.items, i, i+1)
		}
	}
}

// of returns the receipts of a tenant that follow one in a list, newest first, and
// one more than limit if there are more; false: not all are known yet. After the zero
// item come the newest.
func (x *index) of(tenant string, after item, limit int) ([]item, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	of := x.tenants[tenant]
	if of == nil {
		return nil, x.whole
	}
	i := len(of.items)
	if after != (item{}) {
		i, _ = of.items.search(after)
	}
	out := make([]item, 0, min(i, limit+1))
	for len(out) < cap(out) {
		i--
		out = append(out, *of.items[i])
	}
	return out, x.whole
}

func (x *index) counts() (all, incomplete int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return len(x.items), x.incomplete
}

// run follows the bucket until ctx ends.
func (x *index) run(ctx context.Context) {
	for ctx.Err() == nil {
		err := x.follow(ctx)
		if ctx.Err() != nil {
			return
		}
		x.log.Warn("the list of receipts is not up to date; following again", zap.Error(err))
		select {
		case <-ctx.Done():
		case <-time.After(openAgain):
		}
	}
}

var errFollow = errors.New("the bucket does not bring what it has")

func (x *index) follow(ctx context.Context) error {
	opening, cancel := context.WithTimeout(ctx, openIn)
	defer cancel()
	c, err := x.store.js.OrderedConsumer(opening, Stream, jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverLastPerSubjectPolicy, HeadersOnly: true, FilterSubjects: []string{subject + receiptPrefix + "*"},
		MaxResetAttempts: 1, // it is followed anew
	})
	if err != nil {
		return err
	}
	left := uint64(0)
	if info := c.CachedInfo(); info != nil {
		left = info.NumPending
	}
	if left == 0 {
		x.loaded()
	}
	it, err := c.Messages(jetstream.PullMaxMessages(1024))
	if err != nil {
		return err
	}
	defer it.Stop()
	for {
		next, stop := ctx, context.CancelFunc(func() {})
		if left > 0 {
			next, stop = context.WithTimeout(ctx, openIn)
		}
		msg, err := it.Next(jetstream.NextContext(next))
		silent := next.Err() != nil && ctx.Err() == nil
		stop()
		if silent {
			return errFollow
		}
		if err != nil {
			return err
		}
		meta, err := msg.Metadata()
		if err != nil {
			return err
		}
		var n note
		if json.Unmarshal([]byte(msg.Headers().Get(noteHeader)), &n) == nil && n.Sequence != 0 {
			x.take(strings.TrimPrefix(msg.Subject(), subject+receiptPrefix), n)
		}
		if left = meta.NumPending; left == 0 {
			x.loaded()
		}
	}
}

func (x *index) loaded() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.whole = true
}
