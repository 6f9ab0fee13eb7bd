// Package natsteller tells the issuer over NATS of secrets that stood in URLs.
package natsteller

import (
	"context"
	"net/http"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/guard/wire"
	frame "github.com/quash-project/quash/shared/httpapi"
	"github.com/quash-project/quash/shared/leaked"
	"github.com/quash-project/quash/shared/natsapi"
)

const (
	within = 5 * time.Second // for one leaked.Request
	queue  = 100             // requests that wait to be told of; more are dropped, and logged
)

// Teller tells the issuer, one request after the other. It is safe for concurrent use.
type Teller struct {
	nats    *nats.Conn
	log     *zap.Logger
	waiting chan leaked.Request
}

// New returns a teller that asks over a connection which may: that of the rotator, or of
// control-reader; nil: nobody is told. Run works.
func New(nc *nats.Conn, log *zap.Logger) *Teller {
	return &Teller{nats: nc, log: log, waiting: make(chan leaked.Request, queue)}
}

// Leaks is what a service's HTTP handler does with secrets in URLs.
func (t *Teller) Leaks() frame.Leaks { return frame.Leaks{Told: t.tell, Suspected: t.tell} }

func (t *Teller) tell(r *http.Request, where string, texts []string) {
	req := leaked.Request{Where: where, From: frame.Proxies(nil).Caller(r)}
	for _, text := range texts[:min(len(texts), leaked.MaxSecrets)] {
		req.Secrets = append(req.Secrets, leaked.Of(text))
	}
	select {
	case t.waiting <- req:
	default:
		t.log.Warn("the issuer is not told of what stood in a URL: too much waits for that", zap.String("request_id", frame.RequestID(r.Context())))
	}
}

// Run tells until ctx ends.
func (t *Teller) Run(ctx context.Context) error {
	for {
		select {
		case req := <-t.waiting:
			t.send(ctx, req)
		case <-ctx.Done():
			return nil
		}
	}
}

func (t *Teller) send(ctx context.Context, req leaked.Request) {
	if t.nats == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	if _, err := natsapi.Call[leaked.Answer](ctx, t.nats, wire.RecordsIssuer+leaked.Operation, "", req); err != nil {
		t.log.Warn("the issuer was not told of what stood in a URL", zap.String("where", req.Where), zap.Error(err))
	}
}
