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
// For an API that takes API keys (guard.WithExchange), keys are made by APIKey, and
// exchanged by the guard in memory:
//
//	g := q.Guard(guard.WithExchange(q.Exchange()))
//	key := q.APIKey(guardtest.Token{Subject: "alice", Scopes: []string{"orders:read"}})
//	... 200 with the key in the header Authorization, and after
//	q.Revoke(q.KeyTarget(key))
//	... 401
//	q.StopIssuer()
//	... 503 for a key that was not exchanged yet
//
// Tests should cover the last as well: a guard that can't tell answers 503, and
// callers must be able to live with that.
package guardtest
