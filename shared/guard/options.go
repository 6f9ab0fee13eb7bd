package guard

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/guard/denylist"
	"github.com/quash-project/quash/shared/guard/follow"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// Reader is what a guard needs of who follows the log; *follow.Reader is one.
type Reader interface {
	// View is the fold of what was read.
	View() *revoke.View
	// Position is the watermark.
	Position() wire.Position
	// Check returns how stale the view is at most. An error says why nothing may
	// be accepted from it: not joined, incomplete, stopped.
	Check() (staleness time.Duration, err error)
	// Fresh proves freshness now, by a probe of its own.
	Fresh(ctx context.Context) error
	// WaitFor returns once the watermark has reached the stamp.
	WaitFor(ctx context.Context, s revoke.Stamp) error
	// Changed is closed when the view next changes.
	Changed() <-chan struct{}
	// Status says what Check says, and more, for people.
	Status() follow.Status
}

// Denylist is what a guard needs of the Redis view; *denylist.Reader is one.
type Denylist interface {
	Check(ctx context.Context, q denylist.Query) (denylist.Result, error)
	Know(s revoke.Stamp)
	Status() denylist.Status
	Run(ctx context.Context) error
}

// Option changes what New does by default.
type Option func(*options)

type options struct {
	reader   Reader
	follow   *follow.Config
	nats     *natsOptions
	redis    Denylist
	limit    time.Duration
	past     string
	wait     time.Duration
	cache    uint64
	log      *zap.Logger
	now      func() time.Time
	client   *http.Client
	observe  Observer
	exchange *Exchange
}

type natsOptions struct{ url, creds string }

const (
	defaultWait  = 500 * time.Millisecond
	defaultCache = 16 << 20
)

// WithReader has the guard decide by a reader that somebody else runs. Its
// owner hands key messages on: follow.Config.OnKey to Guard.OnKey.
func WithReader(r Reader) Option { return func(o *options) { o.reader = r } }

// WithFollow has the guard make and run a reader of its own, of this source and
// feed. Limit, Past, Log and Now are the guard's; OnKey and OnEntry are called
// after the guard's own.
func WithFollow(cfg follow.Config) Option { return func(o *options) { o.follow = &cfg } }

// WithNATS has the guard follow the log over NATS, with the credentials file
// that was made for it. Run connects, and goes on trying.
func WithNATS(url, credsFile string) Option {
	return func(o *options) { o.nats = &natsOptions{url, credsFile} }
}

// WithRedis gives the guard the Redis view. Alone it makes a guard without NATS:
// then every decision asks Redis, and each issuer needs a JWKSURL. Beside a
// reader it is asked past the limit, with WithPast(wire.PastRedis). Run runs it.
func WithRedis(d Denylist) Option { return func(o *options) { o.redis = d } }

// WithLimit sets the greatest staleness; 15 s by default, 60 s at most.
func WithLimit(limit time.Duration) Option { return func(o *options) { o.limit = limit } }

// WithPast sets what happens past the limit: wire.PastDeny (default) answers
// 503, PastRedis asks Redis, PastAllow allows and says so in the Decision.
func WithPast(past string) Option { return func(o *options) { o.past = past } }

// WithWait sets how long a request waits for a view that is behind the token's
// stamp; 500 ms by default.
func WithWait(wait time.Duration) Option { return func(o *options) { o.wait = wait } }

// WithCache sets how many bytes verified tokens may take in memory, about; 16
// MiB by default, 0 for no cache. A hit spares decoding and signature; every
// other check is made again.
func WithCache(bytes uint64) Option { return func(o *options) { o.cache = bytes } }

// WithLogger sets the logger; none by default.
func WithLogger(log *zap.Logger) Option { return func(o *options) { o.log = log } }

// WithClock sets the wall clock; time.Now by default.
func WithClock(now func() time.Time) Option { return func(o *options) { o.now = now } }

// WithHTTPClient sets who fetches JWKS URLs and exchanges API keys: for proxies and
// private roots.
func WithHTTPClient(c *http.Client) Option { return func(o *options) { o.client = c } }

// Observer is called before each decision with the context of its request, and
// what it returns is called with the outcome: so that it can be measured or traced
// by whatever the caller has, of which the guard knows nothing. The decision is made
// with the context that it returns. It runs in the goroutine of the request, many at
// once.
type Observer func(ctx context.Context) (context.Context, func(Decision))

// WithObserver sets who sees the decisions; nobody by default. A Decision names the
// token's owner: keep out of a trace what does not belong there.
func WithObserver(o Observer) Option { return func(opts *options) { opts.observe = o } }

func newOptions(opts []Option) (options, error) {
	o := options{limit: wire.DefaultLimit, past: wire.PastDeny, wait: defaultWait, cache: defaultCache, log: zap.NewNop(), now: time.Now}
	for _, opt := range opts {
		opt(&o)
	}
	return o, o.validate()
}

func (o *options) validate() error {
	var errs []error
	sources := 0
	for _, given := range []bool{o.reader != nil, o.follow != nil, o.nats != nil} {
		if given {
			sources++
		}
	}
	switch {
	case sources > 1:
		errs = append(errs, errors.New("more than one of WithNATS, WithFollow and WithReader"))
	case sources == 0 && o.redis == nil:
		errs = append(errs, errors.New("nothing says what is revoked: give WithNATS, WithRedis or both"))
	case sources == 0 && o.past != wire.PastDeny:
		errs = append(errs, errors.New("WithPast without WithNATS: there is no view to be past its limit"))
	}
	if o.limit <= 0 || o.limit > wire.MaxLimit {
		errs = append(errs, fmt.Errorf("limit %s: want more than 0 and at most %s", o.limit, wire.MaxLimit))
	}
	switch o.past {
	case wire.PastDeny, wire.PastAllow:
	case wire.PastRedis:
		if o.redis == nil {
			errs = append(errs, errors.New("WithPast(redis) without WithRedis"))
		}
	default:
		errs = append(errs, fmt.Errorf("past %.20q: want deny, redis or allow", o.past))
	}
	if o.wait < 0 || o.wait > 10*time.Second {
		errs = append(errs, fmt.Errorf("wait %s: want 0 to 10s", o.wait))
	}
	if o.log == nil || o.now == nil {
		errs = append(errs, errors.New("WithLogger and WithClock: nil"))
	}
	return errors.Join(errs...)
}

// follows reports whether there is a log to follow, and not Redis alone.
func (o *options) follows() bool { return o.reader != nil || o.follow != nil || o.nats != nil }
