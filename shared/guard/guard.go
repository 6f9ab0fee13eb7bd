package guard

import (
	"context"
	"errors"

	"github.com/quash-project/quash/shared/guard/wire"
)

// Guard decides whether a token may do what a request asks for. It is safe for
// concurrent use.
type Guard struct {
	opts options
}

// New returns a guard for tokens of these issuers. It accepts nothing before
// Run has followed the log far enough; see Ready.
func New(issuers []Issuer, opts ...Option) (*Guard, error) {
	g := &Guard{}
	for _, o := range opts {
		o(&g.opts)
	}
	return g, nil
}

// Run follows until ctx ends.
func (g *Guard) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// Ready returns nil when the guard may accept, and otherwise what it waits for.
func (g *Guard) Ready() error { return errors.New("guard: not running") }

// Decide says whether the token may do what req asks for.
func (g *Guard) Decide(ctx context.Context, token string, req Requirement) Decision {
	return Decision{}
}

// OnKey takes a key message of the log. Call it for a reader of one's own, as
// its follow.Config.OnKey.
func (g *Guard) OnKey(m wire.Message) {}

// Reader returns the reader that the guard decides by, nil while there is none.
func (g *Guard) Reader() Reader { return g.opts.reader }

// Watch returns a context that ends when the token is hit or expires; its cause
// says which. The guard must be running.
func (g *Guard) Watch(ctx context.Context, c *Claims) (context.Context, context.CancelFunc) {
	return context.WithCancel(ctx)
}

// Explain makes every check, also after the first that fails, and tells each
// outcome and each target's state.
func (g *Guard) Explain(ctx context.Context, token string, req Requirement) Explanation {
	return Explanation{}
}
