// Package natsfeed connects a reader of the log (package follow) to NATS: the
// feed is a core subscription, the questions to the revocation service are
// requests on subjects that carry the reader's NATS user, so that the broker
// vouches for who asks.
//
//	nc, user, err := natsfeed.Connect(url, credsFile, "orders", log)
//	link, err := natsfeed.New(nc, user)
//	r, err := follow.New(follow.Config{Source: link, Feed: link, Log: log})
//
// The connection need not be up yet, and may come and go: after each gap the
// reader is told that something may be lost. It is the caller's to close.
package natsfeed
