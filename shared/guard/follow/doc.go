// Package follow reads the log: it keeps a View equal to the fold of all that
// was committed, and knows how old that view can be at most.
//
// The one idea needed to read it: nothing that comes by itself proves
// freshness. A reader asks for a tick at t0; the service commits the tick after
// it was asked; once the reader has applied that very message, everything
// committed before t0 is in its view. Feed messages, heartbeats and answers to
// a sync keep the view up to date, but never make it look fresher.
//
//	r, err := follow.New(follow.Config{Source: src, Feed: feed, Log: log})
//	go r.Run(ctx)
//	...
//	staleness, err := r.Check() // err: accept nothing; it says why
//	if err == nil && staleness <= limit && !r.View().Hit(key, stamp) { ... }
//
// It guarantees: the watermark moves only over messages that follow one another
// in one history of the log; what was learnt once is never forgotten before its
// end; the claimed staleness is never less than the true one; Check says yes
// only to a complete view of a reader that is part of the fleet. It does not
// compare staleness with a limit: that is for whoever decides, since each route
// may have its own.
//
// The package knows NATS only through Source and Feed, so that all of it runs in
// a simulation (package followtest).
//
// Concurrency: every method is safe for concurrent use. Check, View, Position,
// Stamp and Status never wait for a writer.
package follow
