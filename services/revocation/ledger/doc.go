// Package ledger keeps the log: the one JetStream stream of which every view is
// a fold. It is the only code that publishes there.
//
// The one idea needed to read it: an entry is accepted when the broker has
// stored and acknowledged it, and nothing before that counts. So Commit answers
// after the acknowledgement; a tick proves the head of the log because it was
// committed after somebody asked; and an outcome that is not known is said to
// be unknown.
//
//	l, err := ledger.New(ledger.Config{NATS: nc, Log: log, Replicas: 1, SyncAlways: true})
//	go l.Run(ctx)                      // creates the stream, replays it, follows it
//	answer, err := l.Commit(ctx, request, "issuer")
//
// A Ledger answers nothing before its own view has reached a tick that was asked
// for then. It notices when the log has gone back (a restored backup, a stream
// made anew, a lost tail), begins a new epoch and commits again what its memory
// and Redis hold and the log lacks.
//
// All methods are safe for concurrent use. One goroutine, Run, applies messages,
// in the order of the log; observers are called by it.
package ledger
