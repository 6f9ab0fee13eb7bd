package bench

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/identity"
)

// entrySize is about what an entry takes in the log, its headers included.
const entrySize = 900

// BenchmarkDeploymentCommit: revocations a second by 64 callers, over NATS as the
// issuer's and over HTTPS as an operator's, in turns with 64 publishers into a
// stream of the same cluster that nobody follows.
func BenchmarkDeploymentCommit(b *testing.B) {
	const callers, rounds = 64, 4
	d := deploy(b)
	var streams []jetstream.JetStream
	var clients []*commit.Client
	for _, node := range nodes {
		js, err := jetstream.New(d.admin(b, node, identity.Log))
		if err != nil {
			b.Fatal(err)
		}
		streams = append(streams, js)
		clients = append(clients, commit.NewClient(d.connect(b, node, d.ids.Creds(identity.Issuer)), identity.Issuer))
	}
	d.bareStream(b, streams[0], "BARE")
	payload, turn := make([]byte, entrySize), 0
	overNATS := func(c, i int) error {
		_, err := clients[c%len(clients)].Commit(b.Context(), commit.Request{
			Key: fmt.Sprint(turn, ".", c, ".", i), Tenant: "default", Op: commit.Revoke, Reason: "a measurement", Actor: "bench",
			Targets: []commit.Target{{Kind: revoke.KindToken, ID: fmt.Sprintf("n%d-%d-%d", turn, c, i)}},
		})
		return err
	}
	overHTTP := func(c, i int) error {
		req, err := d.revocation(c%2+1, "", fmt.Sprintf("token:h%d-%d-%d", turn, c, i))
		if err != nil {
			return err
		}
		return d.send(req, http.StatusCreated, nil)
	}
	bare := func(c, _ int) error {
		_, err := streams[c%len(streams)].Publish(b.Context(), "bench.BARE.x", payload)
		return err
	}
	sides := []struct {
		unit  string
		do    func(c, i int) error
		total float64
		cpu   spent
	}{{unit: "commits/s", do: overNATS}, {unit: "http/s", do: overHTTP}, {unit: "bare/s", do: bare}}
	for b.Loop() {
		for range rounds {
			turn++
			for i := range sides {
				before := d.spent(b)
				sides[i].total += during(b, callers, sides[i].do)
				d.quiet(b, streams[0])
				if sides[i].cpu == nil {
					sides[i].cpu = spent{}
				}
				sides[i].cpu.add(d.spent(b).since(before))
			}
		}
	}
	for _, s := range sides {
		b.ReportMetric(s.total/float64(turn), s.unit)
		b.Logf("processor time for each of %s: %s", s.unit, s.cpu.per(s.total*round.Seconds()))
	}
}

// quiet waits until the audit trail has all of the log: what one side leaves to be
// done must not slow the next.
func (d *deployed) quiet(b *testing.B, js jetstream.JetStream) {
	b.Helper()
	var last uint64
	enginetest.Eventually(b, "the audit trail has all of the log", func() error {
		s, err := js.Stream(b.Context(), "QUASH_AUDIT")
		if err != nil {
			return err
		}
		if now := s.CachedInfo().State.LastSeq; now != last {
			last = now
			time.Sleep(500 * time.Millisecond)
			return fmt.Errorf("it grows")
		}
		return nil
	})
}
