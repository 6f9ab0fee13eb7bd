// Package natsapi serves typed functions over NATS request and reply, the same
// functions that serve HTTP: requests are decoded strictly, answered by a
// bounded number of goroutines (a full house answers "unavailable" at once), and
// errors travel as problem documents with the header Quash-Error.
//
//	s, err := natsapi.Serve(nc, wire.APIRevocation, natsapi.Config{Auth: httpapi.ByGuard(g, "default"), Log: log},
//		natsapi.On("revocations", rights.Revoke, revoke))
//	...
//	s.Stop(ctx) // what was accepted is answered
//
// A server subscribes with a wildcard, because who may create a consumer can
// make the broker publish on any literal subject of its account.
package natsapi
