package bench

import (
	"context"
	"crypto/rand"
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
// leads the log was killed, beside publishes into streams that the same node led,
// and beside bare ticks into the log itself; and how often guards with the default
// limit deny a good token meanwhile.
func BenchmarkDeploymentLeader(b *testing.B) {
	const kills, guards = 5, 20
	d := deploy(b)
	js, err := jetstream.New(d.admin(b, "", identity.Log))
	if err != nil {
		b.Fatal(err)
	}
	for i := range bareStreams {
		d.bareStream(b, js, fmt.Sprintf("BARE%d", i))
	}
	l := &leaderless{d: d, conns: map[string]*nats.Conn{}, guards: d.guards(b, guards, func(*guard.Guard, wire.Stored) {})}
	for _, node := range nodes {
		l.conns[node] = d.admin(b, node, identity.Log)
	}
	l.epoch, l.token = l.guards[0].Reader().Position().Epoch, d.exchange(b, d.key(b, "steady"))
	stop := l.watch(b)
	var refused, bare, log, more []float64
	for b.Loop() {
		for range kills {
			l.settle(b)
			node := d.leader(b, js, wire.Stream)
			for i := range bareStreams {
				d.lead(b, js, fmt.Sprintf("BARE%d", i), node)
			}
			t := l.kill(b, node)
			refused, log, more = append(refused, t.commit.Seconds()), append(log, t.log.Seconds()), append(more, (t.commit-t.log).Seconds())
			for _, t := range t.bare {
				bare = append(bare, t.Seconds())
			}
		}
		l.settle(b)
	}
	stop()
	b.Logf("refused for %.2f s, bare streams %.2f, the log itself %.2f; %d times denied", refused, bare, log, l.denied.Load())
	b.ReportMetric(median(refused), "refused-s")
	b.ReportMetric(median(bare), "bare-s")
	b.ReportMetric(slices.Max(more), "most-more-s")
	b.ReportMetric(float64(l.denied.Load()), "denied")
	b.ReportMetric(time.Duration(l.oldest.Load()).Seconds(), "stalest-s")
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

	guards         []*guard.Guard
	epoch          uint64
	token          string
	denied, oldest atomic.Int64 // oldest: the greatest staleness, nanoseconds
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
	running.Go(func() { out.log = first(ctx, killed, func(i int) error { return tick(left[i%len(left)], l.epoch) }) })
	for s := range bareStreams {
		running.Go(func() {
			out.bare[s] = first(ctx, killed, func(i int) error {
				return store(left[i%len(left)], &nats.Msg{Subject: fmt.Sprintf("bench.BARE%d.x", s), Data: make([]byte, entrySize)})
			})
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

// tick stores in the log what a service stores there for whoever asks for its head.
func tick(nc *nats.Conn, epoch uint64) error {
	id, err := wire.NewID(rand.Reader)
	if err != nil {
		return err
	}
	head, err := wire.Encode(wire.Message{Kind: wire.KindTick, ID: id, Epoch: epoch})
	if err != nil {
		return err
	}
	m := nats.NewMsg(wire.LogTick)
	m.Header[wire.Header], m.Header[jetstream.MsgTTLHeader] = []string{string(head)}, []string{"3600"}
	return store(nc, m)
}

// store publishes and wants an acknowledgement.
func store(nc *nats.Conn, m *nats.Msg) error {
	answer, err := nc.RequestMsg(m, 5*time.Second)
	if err == nil && strings.Contains(string(answer.Data), `"error"`) {
		err = fmt.Errorf("%s", answer.Data)
	}
	return err
}

// watch has guards decide about a good token until it is stopped: those of this
// process, and those of the demo servers.
func (l *leaderless) watch(b *testing.B) (stop func()) {
	b.Helper()
	ctx, cancel := context.WithCancel(b.Context())
	var running sync.WaitGroup
	running.Go(func() {
		for pause(ctx, everyTry) {
			for _, g := range l.guards {
				decision := g.Decide(ctx, l.token, guard.Requirement{Scopes: []string{"orders:read"}})
				if !decision.Allowed() {
					l.denied.Add(1)
				}
				l.oldest.Store(max(l.oldest.Load(), int64(decision.Staleness)))
			}
		}
	})
	for _, demo := range []string{"demo-1", "demo-2"} {
		running.Go(func() {
			for pause(ctx, everyTry) {
				req, err := http.NewRequest(http.MethodGet, l.d.address(demo)+"/orders", nil)
				if err == nil {
					req.Header.Set("Authorization", "Bearer "+l.token)
					err = l.d.send(req, http.StatusOK, nil)
				}
				if err != nil {
					l.denied.Add(1)
				}
			}
		})
	}
	return func() { cancel(); running.Wait() }
}

// settle waits until every guard is as fresh as it is when nothing happens, and a
// little longer: two crashes in a row are another question.
func (l *leaderless) settle(b *testing.B) {
	b.Helper()
	for _, g := range l.guards {
		enginetest.Eventually(b, "a guard is fresh again", func() error {
			if st := g.Stats(); !st.Accepting || st.Staleness > wire.DefaultLimit/3+time.Second {
				return fmt.Errorf("it is %s behind", st.Staleness)
			}
			return nil
		})
	}
	time.Sleep(wire.DefaultLimit / 3)
}
