package revoke

// State is what is known of one target: the fold of every entry about it. The
// zero State says that nothing hits.
type State struct {
	Cut      Stamp // everything under the target with a lower stamp is dead
	CutAt    int64 // the wall time of the newest cut, Unix milliseconds: for tokens without a stamp
	Ended    bool  // dead for good, whenever made
	Held     Stamp // the first position of the newest hold
	Released Stamp // the newest position of a hold that a release named
	Until    int64 // Unix seconds; nothing that this can hit lives longer, so readers drop it then
}

// Merge returns the greater of each part. It is commutative, associative and
// idempotent.
func (s State) Merge(o State) State {
	return State{
		Cut:      s.Cut.Max(o.Cut),
		CutAt:    max(s.CutAt, o.CutAt),
		Ended:    s.Ended || o.Ended,
		Held:     s.Held.Max(o.Held),
		Released: s.Released.Max(o.Released),
		Until:    max(s.Until, o.Until),
	}
}

// Blocked reports whether the target is held or ended: that hits whatever
// belongs to it, whenever it was made.
func (s State) Blocked(es Epochs) bool {
	return s.Ended || es.Clamp(s.Released).Less(s.Held)
}

// Hits reports whether something with this stamp of its birth is refused.
func (s State) Hits(stamp Stamp, es Epochs) bool {
	return s.Blocked(es) || es.Clamp(stamp).Less(s.Cut)
}

// HitsAt is Hits for a token of a foreign issuer, which has no stamp: issuedAt
// is its iat and skew what is allowed to that issuer's clock, both in
// milliseconds.
func (s State) HitsAt(issuedAt, skew int64, es Epochs) bool {
	return s.Blocked(es) || s.CutAt != 0 && issuedAt < s.CutAt+skew
}

// Newest returns the position of the newest entry that refuses something; cut says
// whether the cut does, beside a hold. It is zero if nothing does, or if it is not known.
func (s State) Newest(cut bool, es Epochs) Stamp {
	var newest Stamp
	if es.Clamp(s.Released).Less(s.Held) {
		newest = s.Held
	}
	if cut || s.Ended {
		newest = newest.Max(s.Cut)
	}
	return newest
}
