// Package guardtest is for tests of programs that use a guard: an issuer and a
// log in memory, without a broker, ports or files. The guard in front of it is
// the real one, and so is the reader that follows the log.
//
//	q := guardtest.New(t)
//	g := q.Guard() // running and ready
//	handler := guardhttp.Require(g, guard.Requirement{Scopes: []string{"orders:read"}})(orders)
//	token := q.Token(guardtest.Token{Subject: "alice", Scopes: []string{"orders:read"}})
//	... 200
//	q.Revoke("principal:alice") // the guard has applied it when this returns
//	... 401
//	q.Disconnect()              // nobody is answered any more
//	q.Advance(time.Minute)      // and time goes by
//	... 503
//
// Tests should cover the last as well: a guard that can't tell answers 503, and
// callers must be able to live with that.
package guardtest
