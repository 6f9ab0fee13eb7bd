// Package natsapi is how readers and the other services reach the revocation
// service over NATS. The subject names the NATS user who asks, so that the
// broker vouches for it.
package natsapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"

	"github.com/quash-project/quash/services/revocation/fleet"
	"github.com/quash-project/quash/services/revocation/ledger"
	"github.com/quash-project/quash/shared/guard/wire"
)

// queue is the group of which one replica answers.
const queue = "quash-revocation"

// Bounds of what is served at once. Probes wait for their tick, up to a second;
// commits wait for each other, so that many go together.
const (
	maxProbes  = 16384
	maxCommits = 4096
	maxOthers  = 256
	answerTime = 10 * time.Second
)

// Server serves readers and services.
type Server struct {
	NATS   *nats.Conn
	Ledger *ledger.Ledger
	Fleet  *fleet.Fleet
	Log    *zap.Logger
	Traces trace.TracerProvider // nil: none
	// Canaries measures those that services cut; nil: nobody does.
	Canaries Canaries
	// Attempts is told who still tries with what was cut; nil: nobody is.
	Attempts Attempts
	// Running is told which requests go on although what they were admitted with was cut;
	// nil: nobody is.
	Running Running
	Now     func() time.Time // default: time.Now

	asking                  questions
	probes, commits, others chan struct{}
	running                 sync.WaitGroup
	relay                   fleet.Relay
}

// Canaries measures how fast the revocation of a canary takes effect.
type Canaries interface {
	// Now is the moment at which one was asked for.
	Now() time.Time
	// Measure is told of one that was cut. It does not block.
	Measure(asked time.Time, e fleet.Entry)
	// Missed is told of one that could not be cut.
	Missed()
}

// Attempts takes what guards report of who still tries with what was cut.
type Attempts interface {
	// Heard is told by the guard with this NATS user. It does not block.
	Heard(server string, r wire.AttemptsReport)
}

// Running takes what guards report of requests that go on with what was cut.
type Running interface {
	// Heard is told by the guard with this NATS user. It does not block.
	Heard(server string, r wire.RunningReport)
}

// lookEvery is how often it is looked at whether the ledger is ready.
const lookEvery = 20 * time.Millisecond

// Run serves until ctx ends, and returns when everything that was accepted has
// been answered. It takes requests that any replica can answer only while its
// ledger is ready: another one may be.
func (s *Server) Run(ctx context.Context) error {
	if s.Log == nil {
		s.Log = zap.NewNop()
	}
	if s.Now == nil {
		s.Now = time.Now
	}
	s.probes, s.commits, s.others = make(chan struct{}, maxProbes), make(chan struct{}, maxCommits), make(chan struct{}, maxOthers)
	s.relay.Send = s.passOn
	// Accepted requests are answered after ctx has ended.
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	mine, err := s.subscribe(s.own(work))
	if err == nil {
		err = s.takeTurns(ctx, work)
	}
	err = errors.Join(err, drain(mine))
	s.running.Wait()
	return err
}

// takeTurns serves what one of the replicas answers, until ctx ends.
func (s *Server) takeTurns(ctx, work context.Context) (err error) {
	t := time.NewTicker(lookEvery)
	defer t.Stop()
	var subs []*nats.Subscription
	for {
		switch ready := s.Ledger.Ready() == nil; {
		case ready && subs == nil:
			if subs, err = s.subscribe(s.shared(work)); err != nil {
				return errors.Join(err, drain(subs))
			}
		case !ready && subs != nil && s.NATS.IsConnected(): // without a connection nobody asks
			err := drain(subs)
			if subs = nil; err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return drain(subs)
		case <-t.C:
		}
	}
}

// drain ends subscriptions, and returns when what had come was handed over.
func drain(subs []*nats.Subscription) error {
	var errs []error
	for _, sub := range subs {
		if err := sub.Drain(); err != nil && !errors.Is(err, nats.ErrConnectionClosed) && !errors.Is(err, nats.ErrConnectionReconnecting) {
			errs = append(errs, err)
		}
	}
	for _, sub := range subs {
		for end := time.Now().Add(time.Second); sub.IsValid() && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
	}
	return errors.Join(errs...)
}

// subject is one that is served.
type subject struct {
	name    string
	queue   string
	handler nats.MsgHandler
}

// own are those that every replica serves for itself.
func (s *Server) own(ctx context.Context) []subject {
	any := wire.GuardPrefix + "*."
	return []subject{
		{any + wire.OpPage + "." + s.Ledger.Replica(), "", s.asked(ctx, s.others, s.page)},
		{any + wire.OpSeen + "." + s.Ledger.Replica(), "", s.heardSeen},
		// One replica hears a guard, and tells the others where it is.
		{heardSubject + ".*", "", s.heardElsewhere},
	}
}

// shared are those that one of the replicas answers.
func (s *Server) shared(ctx context.Context) []subject {
	any := wire.GuardPrefix + "*."
	return []subject{
		{any + wire.OpSync, queue, s.asked(ctx, s.others, s.sync)},
		{any + wire.OpProbe, queue, s.probe(ctx)},
		{any + wire.OpReport, queue, s.heardReport},
		{any + wire.OpAttempts, queue, s.heardAttempts},
		{any + wire.OpRunning, queue, s.heardRunning},
		{any + wire.OpJoin, queue, s.asked(ctx, s.others, s.join)},
		{any + wire.OpOut, queue, s.asked(ctx, s.others, s.out)},
		{wire.CommitPrefix + "*", queue, s.asked(ctx, s.commits, s.traced("*", s.commit))},
		{wire.CommitPrefix + "*.*", queue, s.asked(ctx, s.others, s.traced("*.*", s.commitMore))},
	}
}

func (s *Server) subscribe(subjects []subject) (subs []*nats.Subscription, err error) {
	for _, x := range subjects {
		var sub *nats.Subscription
		if x.queue == "" {
			sub, err = s.NATS.Subscribe(x.name, x.handler)
		} else {
			sub, err = s.NATS.QueueSubscribe(x.name, x.queue, x.handler)
		}
		if err != nil {
			return subs, fmt.Errorf("subscribe to %s: %w", x.name, err)
		}
		subs = append(subs, sub)
	}
	return subs, nil
}

// reader returns the NATS user in a subject of guards: quash.guard.USER.op
func reader(subject string) string {
	rest := strings.TrimPrefix(subject, wire.GuardPrefix)
	name, _, _ := strings.Cut(rest, ".")
	return name
}

// asked answers each message in a goroutine of its own, as many as there are places.
func (s *Server) asked(ctx context.Context, places chan struct{}, op func(context.Context, *nats.Msg) *nats.Msg) nats.MsgHandler {
	return func(m *nats.Msg) {
		if m.Reply == "" {
			return
		}
		select {
		case places <- struct{}{}:
		default:
			s.respond(m, busy(m.Subject))
			return
		}
		s.running.Go(func() {
			defer func() { <-places }()
			ctx, cancel := context.WithTimeout(ctx, longest(m.Subject))
			defer cancel()
			s.respond(m, op(ctx, m))
		})
	}
}

func (s *Server) respond(m, answer *nats.Msg) {
	if err := m.RespondMsg(answer); err != nil {
		s.Log.Warn("an answer could not be sent", zap.String("subject", m.Subject), zap.Error(err))
	}
}

func answerJSON(v any) *nats.Msg {
	data, err := json.Marshal(v)
	if err != nil {
		data, _ = json.Marshal(refused("not_ready", err.Error()))
	}
	return &nats.Msg{Data: data}
}

type refusal struct {
	Error *wire.Refusal `json:"error"`
}

func refused(code, detail string) refusal {
	return refusal{Error: &wire.Refusal{Code: code, Detail: detail}}
}

func invalid(err error) *nats.Msg { return answerJSON(refused("invalid", err.Error())) }

func (s *Server) sync(ctx context.Context, m *nats.Msg) *nats.Msg {
	r, err := wire.DecodeRequest[wire.SyncRequest](m.Data)
	if err != nil {
		return invalid(err)
	}
	return answerJSON(s.Ledger.Sync(ctx, reader(m.Subject), r))
}

func (s *Server) page(ctx context.Context, m *nats.Msg) *nats.Msg {
	r, err := wire.DecodeRequest[wire.PageRequest](m.Data)
	if err != nil {
		return invalid(err)
	}
	data, err := s.Ledger.Page(ctx, r)
	var no *wire.Refusal
	if errors.As(err, &no) {
		return answerJSON(refusal{Error: no})
	}
	if err != nil {
		return answerJSON(refused("not_ready", err.Error()))
	}
	return &nats.Msg{Data: data}
}

func (s *Server) join(ctx context.Context, m *nats.Msg) *nats.Msg {
	r, err := wire.DecodeRequest[wire.JoinRequest](m.Data)
	if err != nil {
		return invalid(err)
	}
	return answerJSON(s.Fleet.Join(ctx, s.Ledger, reader(m.Subject), r))
}

func (s *Server) out(ctx context.Context, m *nats.Msg) *nats.Msg {
	r, err := wire.DecodeRequest[wire.OutRequest](m.Data)
	if err != nil {
		return invalid(err)
	}
	return answerJSON(s.Fleet.Leave(ctx, s.Ledger, reader(m.Subject), r))
}

// probe registers with the next tick in the order of arrival, and waits elsewhere.
func (s *Server) probe(ctx context.Context) nats.MsgHandler {
	return func(m *nats.Msg) {
		if m.Reply == "" {
			return
		}
		r, err := wire.DecodeRequest[wire.ProbeRequest](m.Data)
		if err != nil {
			s.respond(m, invalid(err))
			return
		}
		s.heard(m, r.Instance, r.Position)
		select {
		case s.probes <- struct{}{}:
		default:
			s.respond(m, busy(m.Subject))
			return
		}
		s.running.Go(func() {
			defer func() { <-s.probes }()
			ctx, cancel := context.WithTimeout(ctx, answerTime)
			defer cancel()
			answer := s.Ledger.Probe(ctx, reader(m.Subject), r)
			answer.SpreadMS = s.Fleet.Spread().Milliseconds()
			s.respond(m, answerJSON(answer))
		})
	}
}
