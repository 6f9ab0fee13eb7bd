package bench

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/quash-project/quash/services/deployment"
	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/guard"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/identity"
)

// everyTry spaces tries of one kind. Each begins whether or not those before it
// were answered, so that the first success comes as soon as there can be one.
const everyTry = 40 * time.Millisecond

// bareStreams is how many streams are led by the node that is killed, beside the
// log: each chooses its next leader after a random time of 4 to 9 s.
const bareStreams = 3

// BenchmarkDeploymentLeader: for how long commits are refused once the node that
// leads the log was killed, beside publishes into streams that the same node led;
// and how often guards with the default limit deny a good token meanwhile.
func BenchmarkDeploymentLeader(b *testing.B) {
	const kills, guards = 5, 20
	d := deploy(b)
	l := &leaderless{d: d, conns: map[string]*nats.Conn{}}
	for _, node := range nodes {
		l.conns[node] = d.admin(b, node, identity.Log)
	}
	js, err := jetstream.New(d.admin(b, "", identity.Log))
	if err != nil {
		b.Fatal(err)
	}
	for i := range bareStreams {
		d.bareStream(b, js, fmt.Sprintf("BARE%d", i))
	}
	watched := l.watch(b, d.guards(b, guards, func(*guard.Guard, wire.Stored) {}))
	var refused, bare, late []float64
	for b.Loop() {
		for range kills {
			node := d.leader(b, js, wire.Stream)
			for i := range bareStreams {
				d.lead(b, js, fmt.Sprintf("BARE%d", i), node)
			}
			times := l.kill(b, node)
			refused, late = append(refused, times.commit.Seconds()), append(late, (times.commit-times.log).Seconds())
			for _, t := range times.bare {
				bare = append(bare, t.Seconds())
			}
		}
	}
	denied, stalest := watched()
	b.Logf("refused %.2f, bare %.2f, after the log's leader %.2f", refused, bare, late)
	b.ReportMetric(median(refused), "refused-s")
	b.ReportMetric(median(bare), "bare-refused-s")
	b.ReportMetric(median(late), "late-s")
	b.ReportMetric(float64(denied), "denied")
	b.ReportMetric(stalest.Seconds(), "stalest-s")
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

// leaderless kills the node that leads.
type leaderless struct {
	d     *deployed
	conns map[string]*nats.Conn // by node
	n     atomic.Int64
}

// outage is how long after a kill something was first done again.
type outage struct {
	commit, log time.Duration
	bare        [bareStreams]time.Duration
}

// kill kills a node, waits until everything is done again, and starts the node.
func (l *leaderless) kill(b *testing.B, node string) (out outage) {
	b.Helper()
	var left []*nats.Conn
	for name, nc := range l.conns {
		if name != node {
			left = append(left, nc)
		}
	}
	p := l.process(b, node)
	if err := syscall.Kill(p.PID, syscall.SIGKILL); err != nil {
		b.Fatal(err)
	}
	killed := time.Now()
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	defer cancel()
	var running sync.WaitGroup
	running.Go(func() { out.commit = first(ctx, killed, l.commit) })
	running.Go(func() { out.log = first(ctx, killed, func(i int) error { return leads(left[i%len(left)]) }) })
	for s := range bareStreams {
		running.Go(func() {
			out.bare[s] = first(ctx, killed, func(i int) error { return publish(left[i%len(left)], fmt.Sprintf("bench.BARE%d.x", s)) })
		})
	}
	running.Wait()
	if ctx.Err() != nil {
		b.Fatal("a minute after the kill not everything was done again")
	}
	if err := deployment.Restart(l.d.dir, node); err != nil {
		b.Fatal(err)
	}
	if err := l.process(b, node).WaitReady(ctx); err != nil {
		b.Fatal(err)
	}
	enginetest.Eventually(b, "the connection to the node is back", func() error {
		if !l.conns[node].IsConnected() {
			return fmt.Errorf("it is not")
		}
		return nil
	})
	return out
}

func (l *leaderless) process(b *testing.B, name string) deployment.Process {
	b.Helper()
	list, err := deployment.Processes(l.d.dir)
	if err != nil {
		b.Fatal(err)
	}
	return list[slices.IndexFunc(list, func(p deployment.Process) bool { return p.Name == name })]
}

// first tries again and again, and returns how long after the kill one of the tries
// succeeded.
func first(ctx context.Context, killed time.Time, try func(i int) error) time.Duration {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var once sync.Once
	var took time.Duration
	var tries sync.WaitGroup
	for i := 0; ctx.Err() == nil; i++ {
		tries.Go(func() {
			if try(i) == nil {
				once.Do(func() { took = time.Since(killed); cancel() })
			}
		})
		pause(ctx, everyTry)
	}
	tries.Wait()
	return took
}

// commit asks the replicas in turn for a revocation, as one who knows both.
func (l *leaderless) commit(i int) error {
	req, err := l.d.revocation(i%2+1, "", fmt.Sprintf("token:kill-%d", l.n.Add(1)))
	if err != nil {
		return err
	}
	return l.d.send(req, http.StatusCreated, nil)
}

// publish stores a message in a stream.
func publish(nc *nats.Conn, subject string) error {
	answer, err := nc.Request(subject, make([]byte, entrySize), 5*time.Second)
	if err == nil && strings.Contains(string(answer.Data), `"error"`) {
		err = fmt.Errorf("%s", answer.Data)
	}
	return err
}

// leads asks for something that the log's leader refuses: an answer shows that
// there is one.
func leads(nc *nats.Conn) error {
	m := nats.NewMsg(wire.LogTick)
	m.Header.Set("Nats-Expected-Stream", "none")
	_, err := nc.RequestMsg(m, 5*time.Second)
	return err
}

// watch has guards decide about a good token until it is stopped: those of this
// process, and those of the demo servers.
func (l *leaderless) watch(b *testing.B, guards []*guard.Guard) (stop func() (denied int64, stalest time.Duration)) {
	b.Helper()
	token := l.d.exchange(b, l.d.key(b, "steady"))
	ctx, cancel := context.WithCancel(b.Context())
	var no, oldest atomic.Int64
	var running sync.WaitGroup
	running.Go(func() {
		for pause(ctx, everyTry) {
			for _, g := range guards {
				decision := g.Decide(ctx, token, guard.Requirement{Scopes: []string{"orders:read"}})
				if !decision.Allowed() {
					no.Add(1)
				}
				oldest.Store(max(oldest.Load(), int64(decision.Staleness)))
			}
		}
	})
	for _, demo := range []string{"demo-1", "demo-2"} {
		running.Go(func() {
			for pause(ctx, everyTry) {
				req, err := http.NewRequest(http.MethodGet, l.d.address(demo)+"/orders", nil)
				if err == nil {
					req.Header.Set("Authorization", "Bearer "+token)
					err = l.d.send(req, http.StatusOK, nil)
				}
				if err != nil {
					no.Add(1)
				}
			}
		})
	}
	return func() (int64, time.Duration) {
		cancel()
		running.Wait()
		return no.Load(), time.Duration(oldest.Load())
	}
}
