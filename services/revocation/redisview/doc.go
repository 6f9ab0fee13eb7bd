// Package redisview writes the Redis view: the folded state of every target, for
// resource servers that ask Redis and not the log.
//
// The one idea needed to read it: Redis may lose anything at any time, and more
// than one replica may write. So nothing is believed that is not in the shard's
// meta now, and every write is a compare-and-set on the meta: entries and meta
// in one transaction, only if the meta is still what the writer has read. A
// writer that froze and comes back finds another meta, and writes nothing.
//
//	w, err := redisview.New(redisview.NewStore(client, false), log, redisview.Config{})
//	ledger.Observe(w)
//	go w.Run(ctx)
//
// It guarantees: a meta that says complete at position P stands beside the state
// of every target that an entry at or below P is about; beat k+1 is written only
// after the log's head, asked for after beat k was there, has been applied; a
// view that is missing, lower than before, evicted from or unfinished is rebuilt
// under a new generation, and says that it is not complete until that is done.
// It can't tell that a stranger who may write Redis has replaced a value; the
// count of keys shows missing ones, and the sweep mends the rest.
//
// The log's messages do not name the tenant of their targets. With more than one
// shard every state therefore stands in each of them.
package redisview
