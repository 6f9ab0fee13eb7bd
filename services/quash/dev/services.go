package dev

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"

	"github.com/quash-project/quash/services/demo"
	issuerapp "github.com/quash-project/quash/services/issuer/app"
	revocationapp "github.com/quash-project/quash/services/revocation/app"
	"github.com/quash-project/quash/services/revocation/redisview"
	rotatorapp "github.com/quash-project/quash/services/rotator/app"
	"github.com/quash-project/quash/shared/engine"
	"github.com/quash-project/quash/shared/guard"
	"github.com/quash-project/quash/shared/httpapi"
	"github.com/quash-project/quash/shared/identity"
	"github.com/quash-project/quash/shared/tracing"
)

// buildServices wires the services as their mains do.
func (i *instance) buildServices(ctx context.Context) error {
	for _, build := range []func(context.Context) error{i.buildRevocation, i.buildRotator, i.buildIssuer, i.buildDemo} {
		if err := build(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (i *instance) buildRevocation(ctx context.Context) error {
	nc, err := i.connect(identity.Revocation)
	if err != nil {
		return err
	}
	control, err := i.connect(identity.ControlReader)
	if err != nil {
		return err
	}
	if i.view, err = redisview.ConnectURL(i.redis.URL(engine.RedisWriter)); err != nil {
		return err
	}
	traces, err := i.trace("revocation")
	if err != nil {
		return err
	}
	i.revocation, err = revocationapp.New(ctx, revocationapp.Config{
		URL: i.url, Trust: []string{i.trust}, SyncAlways: true, RedisEmbedded: true, ProofKEKFile: i.dir.file(proofKEKName),
		SecondPerson: revocationapp.SecondPerson{Mode: i.secondPerson},
		// The lock proves that no other process has these.
		Former: []string{identity.Revocation, identity.Rotator, identity.Issuer, demoGuard},
	}, revocationapp.Deps{Log: i.log.Named("revocation"), Traces: traces, NATS: nc, Control: control, Redis: i.view})
	return err
}

func (i *instance) buildRotator(ctx context.Context) error {
	nc, err := i.connect(identity.Rotator)
	if err != nil {
		return err
	}
	traces, err := i.trace("rotator")
	if err != nil {
		return err
	}
	// No lead time: nobody here reads the JWKS URL and keeps it.
	i.rotator, err = rotatorapp.New(ctx, rotatorapp.Config{
		Issuer: i.url, IdentityFile: i.dir.file(identityName), KEKFile: i.dir.file(kekName), NoLead: true,
	}, rotatorapp.Deps{Log: i.log.Named("rotator"), Traces: traces, NATS: nc})
	return err
}

func (i *instance) buildIssuer(ctx context.Context) error {
	nc, err := i.connect(identity.Issuer)
	if err != nil {
		return err
	}
	traces, err := i.trace("issuer")
	if err != nil {
		return err
	}
	i.issuer, err = issuerapp.New(ctx, issuerapp.Config{
		URL: i.url, Trust: []string{i.trust}, KEKFile: i.dir.file(kekName), OperatorKeyFile: i.dir.file(operatorName),
		Canary: canary,
	}, issuerapp.Deps{Log: i.log.Named("issuer"), Traces: traces, NATS: nc})
	return err
}

// buildDemo makes the demo's guard as anybody's: with a URL and a file.
func (i *instance) buildDemo(context.Context) error {
	traces, err := i.trace("demo")
	if err != nil {
		return err
	}
	log := i.log.Named("demo")
	i.demo, err = guard.New([]guard.Issuer{{URL: i.url, Trust: []string{i.trust}}},
		guard.WithNATS(i.nats.URL(), i.ids.Creds(demoGuard)), guard.WithLogger(log), guard.WithObserver(tracing.Decisions))
	if err == nil {
		i.demoHandler = demo.Handler(i.demo, log.Named("http"), traces)
	}
	return err
}

// trace returns what follows the requests of a service: each has its own, as each is
// a process of its own elsewhere. It is off without OTEL_EXPORTER_OTLP_ENDPOINT.
func (i *instance) trace(service string) (trace.TracerProvider, error) {
	traces, stop, err := tracing.Open(tracing.Config{}, "quash-"+service, os.Getenv, i.log.Named(service))
	i.traces = append(i.traces, stop)
	return traces, err
}

// runServices starts them all at once; each waits for what it needs.
func (i *instance) runServices() error {
	i.base = append(i.base, i.run("revocation", i.revocation.Run))
	i.above = append(i.above, i.run("rotator", i.rotator.Run), i.run("issuer", i.issuer.Run), i.run("demo", i.demo.Run))
	for n, h := range []http.Handler{i.routes(), i.demoHandler} {
		srv, l := i.servers[n], i.listeners[n]
		srv.Handler = h
		go func() {
			if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				i.failed <- fmt.Errorf("listener %s: %w", srv.Addr, err)
			}
		}()
	}
	return nil
}

// routes puts the three services under one URL. What nobody has is the issuer's
// to refuse.
func (i *instance) routes() http.Handler {
	mux := http.NewServeMux()
	for _, s := range []struct {
		service
		paths []string
	}{
		{i.revocation, []string{"/v1/revocations", "/v1/revocations/", "/v1/previews", "/v1/pending", "/v1/pending/", "/v1/receipts", "/v1/receipts/", "/v1/incidents", "/v1/incidents/", "/v1/fleet", "/v1/fleet/", "/v1/decisions", "/v1/feed", "/v1/epochs", "/v1/audit", "/v1/audit/", "/v1/slo", "/openapi/revocation.json", "/openapi/revocation.yaml", "/openapi/revocation-3.0.json", "/openapi/revocation-3.0.yaml"}},
		{i.rotator, []string{"/v1/rotations", "/v1/rotations/", "/v1/schedules", "/v1/schedules/", "/v1/signing-keys", "/v1/signing-keys/", "/openapi/rotator.json", "/openapi/rotator.yaml", "/openapi/rotator-3.0.json", "/openapi/rotator-3.0.yaml"}},
		{i.issuer, []string{"/"}},
	} {
		for _, path := range s.paths {
			mux.Handle(path, s.Handler())
		}
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !httpapi.IsClean(r) { // the mux would redirect it
			i.issuer.Handler().ServeHTTP(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// task is something that runs until it is told to end.
type task struct {
	end  context.CancelFunc
	done chan struct{}
}

func (i *instance) run(name string, f func(context.Context) error) *task {
	ctx, cancel := context.WithCancel(context.Background())
	t := &task{end: cancel, done: make(chan struct{})}
	go func() {
		defer close(t.done)
		err := f(ctx)
		switch {
		case ctx.Err() == nil && err == nil:
			i.failed <- fmt.Errorf("%s ended by itself", name)
		case ctx.Err() == nil:
			i.failed <- fmt.Errorf("%s: %w", name, err)
		case err != nil && !errors.Is(err, context.Canceled):
			i.log.Warn("did not end in order", zap.String("task", name), zap.Error(err))
		}
	}()
	return t
}

// How long each part may take to end; together under 2 s. What is cut off then
// loses nothing that was answered: that is on disk.
const (
	serversEnd = 400 * time.Millisecond
	guardsEnd  = 600 * time.Millisecond
	baseEnd    = 500 * time.Millisecond
	tracesEnd  = 300 * time.Millisecond
)

// stop ends everything that was started, in reverse order: first no new
// requests, then those who follow the log (they say that they are out), then
// the log, then the engines.
func (i *instance) stop() {
	if i.log != nil {
		i.log.Info("stopping")
	}
	i.closeServers()
	end(i.above, guardsEnd)
	end(i.base, baseEnd)
	i.endTraces()
	for _, nc := range i.conns {
		nc.Close()
	}
	if i.view != nil {
		_ = i.view.Close()
	}
	if i.redis != nil {
		i.redis.Close()
	}
	if i.nats != nil {
		i.nats.Shutdown()
	}
	i.dir.forget()
	if i.logFile != nil {
		i.log.Info("stopped")
		_ = i.logFile.Close()
	}
}

func (i *instance) closeServers() {
	ctx, cancel := context.WithTimeout(context.Background(), serversEnd)
	defer cancel()
	done := make(chan struct{}, len(i.servers))
	for n, srv := range i.servers {
		go func() {
			if srv.Shutdown(ctx) != nil {
				_ = srv.Close()
			}
			_ = i.listeners[n].Close() // Serve may never have been called
			done <- struct{}{}
		}()
	}
	for range i.servers {
		<-done
	}
}

// endTraces sends what is left of them, as far as the collector is quick.
func (i *instance) endTraces() {
	var tasks []*task
	for _, stop := range i.traces {
		t := &task{end: func() {}, done: make(chan struct{})}
		go func() {
			defer close(t.done)
			stop()
		}()
		tasks = append(tasks, t)
	}
	end(tasks, tracesEnd)
}

func end(tasks []*task, within time.Duration) {
	for _, t := range tasks {
		t.end()
	}
	timeout := time.After(within)
	for _, t := range tasks {
		select {
		case <-t.done:
		case <-timeout:
			return
		}
	}
}
