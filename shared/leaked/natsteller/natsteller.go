// Package natsteller tells the issuer over NATS of secrets that stood in URLs.
package natsteller

import (
	"context"
	"net/http"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"github.com/quash-project/quash/shared/guard/peer"
	"github.com/quash-project/quash/shared/guard/wire"
	frame "github.com/quash-project/quash/shared/httpapi"
	"github.com/quash-project/quash/shared/leaked"
	"github.com/quash-project/quash/shared/natsapi"
)

const (
	within = 5 * time.Second // for one leaked.Request
	queue  = 100             // requests that wait to be told of; more are dropped
	guess  = 20              // of those in which there only may be a secret
	pace   = time.Second     // between two of the latter: anybody can send what is refused
	burst  = 60              // of them at once
	quiet  = time.Minute     // between two words about what was not told
)

// Teller tells the issuer, one request after the other. It is safe for concurrent use.
type Teller struct {
	nats     *nats.Conn
	log      *zap.Logger
	certain  chan leaked.Request
	guessed  chan leaked.Request
	rate     *rate.Limiter // of what is guessed
	complain *rate.Limiter
}

// New returns a teller that asks over a connection which may: that of the rotator, or of
// control-reader; nil: nobody is told. Run works.
func New(nc *nats.Conn, log *zap.Logger) *Teller {
	return &Teller{
		nats: nc, log: log, certain: make(chan leaked.Request, queue), guessed: make(chan leaked.Request, guess),
		rate: rate.NewLimiter(rate.Every(pace), burst), complain: rate.NewLimiter(rate.Every(quiet), 1),
	}
}

// Leaks is what a service's HTTP handler does with secrets in URLs.
func (t *Teller) Leaks() frame.Leaks {
	return frame.Leaks{
		Told: func(r *http.Request, where string, texts []string) { t.tell(t.certain, r, where, texts) },
		Suspected: func(r *http.Request, where string, texts []string) {
			if t.rate.Allow() {
				t.tell(t.guessed, r, where, texts)
			}
		},
	}
}

func (t *Teller) tell(queue chan<- leaked.Request, r *http.Request, where string, texts []string) {
	req := leaked.Request{Where: where, From: peer.Proxies(nil).Caller(r)}
	for _, text := range texts[:min(len(texts), leaked.MaxSecrets)] {
		req.Secrets = append(req.Secrets, leaked.Of(text))
	}
	select {
	case queue <- req:
	default:
		t.warn("the issuer is not told of what stood in a URL: too much waits for that", zap.String("request_id", frame.RequestID(r.Context())))
	}
}

func (t *Teller) warn(what string, fields ...zap.Field) {
	if t.complain.Allow() {
		t.log.Warn(what, fields...)
	}
}

// Run tells until ctx ends, of what is certain first.
func (t *Teller) Run(ctx context.Context) error {
	for {
		select {
		case req := <-t.certain:
			t.send(ctx, req)
			continue
		default:
		}
		select {
		case req := <-t.certain:
			t.send(ctx, req)
		case req := <-t.guessed:
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
		t.warn("the issuer was not told of what stood in a URL", zap.String("where", req.Where), zap.Error(err))
	}
}
