package guard

import (
	"context"
	"net/http"
	"time"

	"go.uber.org/zap"

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
	// Changed is closed when the next entry has been applied.
	Changed() <-chan struct{}
}

// Option changes what New does by default.
type Option func(*options)

type options struct {
	reader  Reader
	natsURL string
	creds   string
	name    string
	limit   time.Duration
	past    string
	wait    time.Duration
	cache   uint64
	log     *zap.Logger
	now     func() time.Time
	client  *http.Client
}

// WithReader has the guard decide by a reader that somebody else runs. Its
// owner hands key messages on: follow.Config.OnKey to Guard.OnKey.
func WithReader(r Reader) Option { return func(o *options) { o.reader = r } }

// WithNATS has the guard follow the log over NATS, with the credentials file
// that `quash` made for this guard. Run connects.
func WithNATS(url, credsFile string) Option {
	return func(o *options) { o.natsURL, o.creds = url, credsFile }
}

// WithName sets the name of the connection, for people who look at the broker.
func WithName(name string) Option { return func(o *options) { o.name = name } }

// WithLimit sets the greatest staleness; 15 s by default, 60 s at most.
func WithLimit(limit time.Duration) Option { return func(o *options) { o.limit = limit } }

// WithPast sets what happens past the limit: wire.PastDeny (default), PastRedis
// or PastAllow.
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

// WithHTTPClient sets who fetches JWKS URLs: for proxies and private roots.
func WithHTTPClient(c *http.Client) Option { return func(o *options) { o.client = c } }
