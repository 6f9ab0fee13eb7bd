package follow

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"time"

	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/guard/wire"
)

// Source is one revocation service, as a reader sees it: any replica may answer
// any request, except that the pages of a snapshot come from the replica that
// announced it. An error means that there was no usable answer; a Refusal
// stands in the answer. Every method returns soon after ctx has ended.
type Source interface {
	Sync(ctx context.Context, req wire.SyncRequest) (wire.SyncAnswer, error)
	Page(ctx context.Context, replica string, req wire.PageRequest) ([]byte, error)
	Probe(ctx context.Context, req wire.ProbeRequest) (wire.ProbeAnswer, error)
	Join(ctx context.Context, req wire.JoinRequest) (wire.JoinAnswer, error)
	Out(ctx context.Context, req wire.OutRequest) (wire.JoinAnswer, error)
	Report(ctx context.Context, report wire.Report) error
}

// Feed is the live republication of the log. Subscribe delivers each message in
// the order of arrival, one at a time; with an error when it could not be
// decoded (Sequence and Time are set if they could be). lost is called whenever
// messages may have been missed: after a reconnect, or when this reader was too
// slow. Once it has returned, what is published from then on is delivered.
type Feed interface {
	Subscribe(deliver func(wire.Stored, error), lost func()) (stop func(), err error)
}

// Config is what a reader needs. Source and Feed are required.
type Config struct {
	Source Source
	Feed   Feed
	Log    *zap.Logger      // default: none
	Now    func() time.Time // the wall clock; default: time.Now
	Rand   io.Reader        // default: crypto/rand.Reader; for the instance and for jitter

	// Limit is the largest staleness with which anything is decided; default
	// wire.DefaultLimit. Probes go out at a third of it.
	Limit time.Duration
	// Past is what is done past the limit: wire.PastDeny (default), PastRedis or
	// PastAllow.
	Past string
	// NoJoin is for a reader that decides nothing (a writer of a view, the log's
	// own service while it starts): it is no part of the fleet, and sends no
	// reports.
	NoJoin bool

	// OnKey is called with every key message, in the order of the log; again
	// with all that are known whenever a whole state was loaded.
	OnKey func(wire.Message)
	// OnEntry is called with every message of the log that was applied in its
	// place, whatever its kind, after it was applied. What comes in a whole state
	// is not passed to it.
	//
	// Both are called one at a time and hold the reader up. They may call Check,
	// View, Position, Stamp and Status, but no method that waits.
	OnEntry func(wire.Stored)
}

// Why a reader can't decide anything; Check and Status name them.
var (
	ErrNotStarted = errors.New("not started: the log was not read yet")
	ErrIncomplete = errors.New("incomplete")
	ErrNotJoined  = errors.New("not joined: the log does not name this reader yet")
	ErrUnproved   = errors.New("no probe was answered yet")
	ErrClock      = errors.New("this machine's clock is wrong, or the broker's")
	ErrStopped    = errors.New("stopped")

	// The reasons of being incomplete; each is also an ErrIncomplete.
	ErrWentBack  = fmt.Errorf("%w: the log went back; waiting for its new epoch", ErrIncomplete)
	ErrNewEpoch  = fmt.Errorf("%w: loading the state of a new epoch", ErrIncomplete)
	ErrUnknown   = fmt.Errorf("%w: the log has a message that this version can't read", ErrIncomplete)
	errMalformed = errors.New("malformed answer")
)

// withDefaults checks c and fills in what was left out.
func (c Config) withDefaults() (Config, error) {
	var errs []error
	if c.Source == nil {
		errs = append(errs, errors.New("source: required"))
	}
	if c.Feed == nil {
		errs = append(errs, errors.New("feed: required"))
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Rand == nil {
		c.Rand = rand.Reader
	}
	if c.Limit == 0 {
		c.Limit = wire.DefaultLimit
	}
	if c.Past == "" {
		c.Past = wire.PastDeny
	}
	if c.OnKey == nil {
		c.OnKey = func(wire.Message) {}
	}
	if c.OnEntry == nil {
		c.OnEntry = func(wire.Stored) {}
	}
	errs = append(errs, checkLimit(c.Limit, c.Past))
	if err := errors.Join(errs...); err != nil {
		return c, fmt.Errorf("follow: %w", err)
	}
	return c, nil
}

// checkLimit leaves the upper bound to the service: it is the deployment's.
func checkLimit(limit time.Duration, past string) error {
	switch {
	case limit < 10*time.Millisecond || limit > time.Hour:
		return fmt.Errorf("limit %s: want 10ms to 1h", limit)
	case past != wire.PastDeny && past != wire.PastRedis && past != wire.PastAllow:
		return fmt.Errorf("past %.20q: want deny, redis or allow", past)
	}
	return nil
}
