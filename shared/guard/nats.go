package guard

import (
	"context"
	"sync"

	"github.com/quash-project/quash/shared/guard/follow"
	"github.com/quash-project/quash/shared/guard/natsfeed"
)

// runNATS connects, and follows the log over the connection. The connection
// goes on trying by itself, also when the broker is down at start.
func (g *Guard) runNATS(ctx context.Context) error {
	nc, user, err := natsfeed.Connect(g.opts.nats.url, g.opts.nats.creds, "quash guard", g.opts.log.Named("nats"))
	if err != nil {
		return err
	}
	defer nc.Close() // after the reader has said that it is out
	link, err := natsfeed.New(nc, user)
	if err != nil {
		return err
	}
	r, err := g.makeReader(follow.Config{Source: link, Feed: link})
	if err != nil {
		return err
	}
	g.watches.kick() // there is a reader now
	var telling sync.WaitGroup
	telling.Go(func() { g.tell(ctx, r) })
	defer telling.Wait() // before the connection closes
	return r.Run(ctx)
}
