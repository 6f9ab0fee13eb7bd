package bench

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/zap"

	"github.com/quash-project/quash/services/issuer/kvstore"
	"github.com/quash-project/quash/shared/engine"
	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/guard/natsfeed"
	"github.com/quash-project/quash/shared/identity"
)

// stored is how many records there are in the benchmarks of many.
var stored = flag.Int("stored", 0, "how many keys, and how many bindings, benchmarks of many records store; 0: 1,000,000 and 100,000")

func storedOr(usual int) int {
	if *stored > 0 {
		return *stored
	}
	return usual
}

// storers is how many write at the same time.
const storers = 64

// fill has the issuer's own store write n records into the files of a server, which
// does not sync each of them: how they came there is not measured.
func fill(b *testing.B, dir string, n int, create func(ctx context.Context, s *kvstore.Store, i int) error) {
	b.Helper()
	ids, err := identity.Ensure(filepath.Join(dir, "nats"))
	if err != nil {
		b.Fatal(err)
	}
	server, err := engine.StartNATS(engine.NATSConfig{Dir: dir, Port: -1, Identities: ids})
	if err != nil {
		b.Fatal(err)
	}
	defer server.Shutdown()
	nc, _, err := natsfeed.Connect(server.URL(), ids.Creds(identity.Issuer), "bench", nil)
	if err != nil {
		b.Fatal(err)
	}
	defer nc.Close()
	ctx, cancel := context.WithCancel(b.Context())
	s, stopped := openStore(b, ctx, nc)
	defer func() { cancel(); stopped() }()
	var next atomic.Int64
	var all sync.WaitGroup
	errs := make(chan error, storers)
	for range storers {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				if err := create(ctx, s, i); err != nil {
					errs <- fmt.Errorf("record %d: %w", i, err)
					return
				}
			}
		})
	}
	all.Wait()
	close(errs)
	var failed error
	for err := range errs {
		failed = errors.Join(failed, err)
	}
	if failed != nil {
		b.Fatal(failed)
	}
}

// openStore opens the issuer's store until ctx ends and stopped has returned.
func openStore(b *testing.B, ctx context.Context, nc *nats.Conn) (s *kvstore.Store, stopped func()) {
	b.Helper()
	s, err := kvstore.New(kvstore.Config{NATS: nc, Log: zap.NewNop(), Now: time.Now, Rand: rand.Reader})
	if err != nil {
		b.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() { _ = s.Run(ctx) })
	enginetest.Eventually(b, "the store is open", s.Ready)
	return s, running.Wait
}
