package revoke

import "sync/atomic"

// Merge adds what is said of a target to what is known of it.
func (v *View) Merge(k Key, s State) {
	if s == (State{}) {
		return // says nothing
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.newest = max(v.newest, s.CutAt)
	k0, k1 := words(&k)
	t := v.shards[k0&0xff].Load()
	if t == nil {
		t = newTable(groupsFor(1))
		v.add(t, k0, k1, s)
		v.shards[k0&0xff].Store(t)
		v.count.Add(1)
		return
	}
	if have := t.find(k0, k1, v.seed); have != nil {
		v.update(t, have, s)
		return
	}
	if t.used >= maxLoad*len(t.tags) {
		t = v.rebuild(t, groupsFor(t.used+t.used/6+1), nil)
		v.shards[k0&0xff].Store(t)
	}
	v.add(t, k0, k1, s)
	v.count.Add(1)
}

// Rehold is Merge, but that of the target's releases nothing counts any more except what s
// says. It is for a reader that has seen a release which the log has lost, so that the
// log holds what the reader would let through.
func (v *View) Rehold(k Key, s State) {
	v.Merge(k, s)
	v.mu.Lock()
	defer v.mu.Unlock()
	t, at := v.find(&k)
	if at == nil || at.what>>kindShift != kindOver {
		return // it has never had a release
	}
	have := v.load(t, at)
	have.Released = s.Released
	(*t.over.Load())[at.what-1].Store(&have)
}

// MergeEpoch adds a history.
func (v *View) MergeEpoch(e Epoch) {
	v.mu.Lock()
	defer v.mu.Unlock()
	es := v.Epochs().With(e)
	v.epochs.Store(&es)
}

// SettleEpochs takes over the histories that a log has; see Epochs.AsIn.
func (v *View) SettleEpochs(log Epochs) {
	v.mu.Lock()
	defer v.mu.Unlock()
	es := v.Epochs().AsIn(log)
	v.epochs.Store(&es)
}

// add puts a new key into a table that has room; readers may be in it.
func (v *View) add(t *table, k0, k1 uint64, s State) {
	what, when, ok := v.pack(t, s)
	if !ok {
		what, when = t.spill(s), 0
	}
	t.put(slot{k0: k0, k1: k1, what: what, when: when}, v.seed)
}

// update merges into a slot that readers may be looking at.
func (v *View) update(t *table, at *slot, s State) {
	have := v.load(t, at)
	merged := have.Merge(s)
	if merged == have {
		return
	}
	if at.what>>kindShift == kindOver {
		// It stays there until the table is made anew.
		(*t.over.Load())[at.what-1].Store(&merged)
		return
	}
	what, when, ok := v.pack(t, merged)
	if !ok {
		atomic.StoreUint64(&at.what, t.spill(merged))
		return
	}
	if when != at.when {
		atomic.StoreUint64(&at.when, when)
	}
	if what != at.what {
		atomic.StoreUint64(&at.what, what)
	}
}

// rebuild returns a table of so many groups with the entries that keep wants,
// all for nil. Readers of the old one are not disturbed.
func (v *View) rebuild(old *table, groups int, keep func(State) bool) *table {
	t := newTable(groups)
	// With the base of the old table, packed words stay as they are.
	shift := old.hasCut && v.newest-old.base > baseBack+baseBack/2
	if t.hasCut = old.hasCut && !shift; t.hasCut {
		t.base = old.base
	}
	for s := range old.all() {
		var state State
		kind := s.what >> kindShift
		repack := kind == kindOver || shift
		if repack || keep != nil {
			state = v.load(old, s)
		}
		if keep != nil && !keep(state) {
			continue
		}
		what, when := s.what, s.when
		if repack {
			var ok bool
			if what, when, ok = v.pack(t, state); !ok {
				what, when = t.spill(state), 0
			}
		}
		t.put(slot{k0: s.k0, k1: s.k1, what: what, when: when}, v.seed)
	}
	return t
}

// Drop forgets the targets whose Until is before now (Unix seconds) and
// returns how many. It is the writer's to call, every minute or so: it looks at
// every entry, a shard at a time, so that merging goes on in between.
func (v *View) Drop(now int64) int {
	dropped := 0
	for i := range v.shards {
		dropped += v.dropShard(i, now)
	}
	return dropped
}

func (v *View) dropShard(i int, now int64) int {
	v.mu.Lock()
	defer v.mu.Unlock()
	t := v.shards[i].Load()
	if t == nil {
		return 0
	}
	n := 0
	for s := range t.all() {
		if v.load(t, s).Until < now {
			n++
		}
	}
	switch n {
	case 0:
		return 0
	case t.used:
		v.shards[i].Store(nil)
	default:
		left := t.used - n
		v.shards[i].Store(v.rebuild(t, groupsFor(left+left/10), func(s State) bool { return s.Until >= now }))
	}
	v.count.Add(-int64(n))
	return n
}
