// Package guard decides, inside a resource server, whether an access token may
// do what a request asks for: it verifies the token, authorizes by scope and
// role, and refuses what was revoked, within milliseconds of the revocation and
// without asking anybody.
//
// The one idea needed to read it: a guard follows the log of revocations and
// keeps a view of it in memory. Each token carries the position of the log at
// which it was issued (its stamp); a cut of its user, client or role hits it if
// it stands above that. No clock decides that. What clocks are for is the other
// question, how old the view is: the guard proves that by probes, and past its
// limit it answers 503 instead of guessing.
//
//	g, err := guard.New(
//		[]guard.Issuer{{URL: os.Getenv("QUASH_URL"), Trust: []string{os.Getenv("QUASH_TRUST")}}},
//		guard.WithNATS(os.Getenv("QUASH_NATS_URL"), os.Getenv("QUASH_NATS_CREDS")),
//	)
//	if err != nil {
//		return err
//	}
//	go g.Run(ctx)
//	mux.Handle("GET /orders", guardhttp.Require(g, guard.Requirement{Scopes: []string{"orders:read"}})(orders))
//	mux.HandleFunc("GET /readyz", ready(g.Ready))
//
// It guarantees: nothing is accepted before the guard is part of the fleet and
// its view is complete; a token that was seen before is held against the current
// view, its expiry, its key and the request's scopes each time; staleness is
// never claimed to be less than it is; 401 and 403 are about the token, and 503
// about the guard; the zero Decision refuses. No token, or part of one, stands in
// an error, a reason or a log line; a decision's Token is what was proved.
//
// It does not: end what was admitted before, unless that watches the context of
// Watch; protect against who holds a signing key of a trusted issuer, until that
// key is revoked; notice a clock of a foreign issuer that is further ahead than
// Issuer.Skew, since tokens of foreign issuers carry no stamp.
//
// Ways to follow: WithNATS keeps the view in memory. WithRedis alone asks the
// Redis view for each decision and needs no NATS; a decision is then up to three
// seconds old, and takes a round trip. Both together ask Redis when the view is
// past its limit (WithPast).
//
// What a route asks for is a Requirement: scopes, roles, and the conditions of
// Require. It can describe itself for the route's document.
//
// An API whose clients send API keys, and are not to change, takes them WithExchange:
// the guard exchanges a key at the issuer, keeps the token, and decides about that. It
// is a mode of its own because it has a price: the first request with a key, and one
// every ten minutes, waits for or needs the issuer, and what holds the key for longer
// than a request is every proxy and client that it goes through. A guard without it
// refuses keys.
//
// Concurrency: every method of Guard is safe for concurrent use. Run owns all
// goroutines, and none is left when it returns.
package guard
