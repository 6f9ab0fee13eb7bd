// Package denylist reads the Redis view of the log: whether a token's targets
// are revoked, and whether the view is whole enough to say so.
//
// The one idea needed to read it: Redis can be flushed, lost, rolled back and
// evicted from, so a missing key alone says nothing. Each read is one MGET of
// all targets of a token and of the shard's meta, and only the meta makes a
// missing key mean "not revoked": it must be there, finished, at or above all
// that the reader and the token know, and its beat must prove that it followed
// the log a moment ago. Everything else is Incomplete, never Clean (promise 2).
//
//	r, err := denylist.Open(os.Getenv("QUASH_REDIS_URL"), denylist.Config{Log: log})
//	go r.Run(ctx)
//	res, err := r.Check(ctx, denylist.Query{Tenant: "default", Keys: keys, Stamp: stamp})
//	switch res.Outcome {
//	case denylist.Hit: // refuse, whatever err says
//	case denylist.Clean: // not revoked, as of res.Staleness ago at most
//	default: // err says why the view can't tell
//	}
//
// No clock is shared with anyone: staleness is proved by beats. A writer counts
// a beat up each second, and fetches the log's head for each only after the
// beat before was written. So whoever saw beat j at t1 and sees j+2 of the same
// series on the same connection knows that the view holds all that was
// committed before t1.
//
// All methods are safe for concurrent use.
package denylist
