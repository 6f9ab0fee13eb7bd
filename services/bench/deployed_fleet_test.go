package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/identity"
)

// The fleet of BenchmarkDeploymentFleet.
const (
	herdCount = 25
	herdSize  = 400
)

// BenchmarkDeploymentFleet: how many probes and reports of 10,000 guards with the
// default limit come to a service process each second, while nothing is revoked,
// after one revocation and with one after the other; and how long it takes until
// the answer to a revocation is complete, which every guard has confirmed.
//
// The guards are simulated (see herd), since 10,000 connections and views do not
// fit on a machine beside what they are to measure: the broker hands each message
// of the feed to 25 connections and not to 10,000.
func BenchmarkDeploymentFleet(b *testing.B) {
	const answers = 3
	d := deploy(b)
	began := time.Now()
	stale := d.herds(b, herdCount, herdSize)
	b.Logf("%d guards have joined after %.0f s", herdCount*herdSize, time.Since(began).Seconds())
	time.Sleep(wire.DefaultLimit) // the reports of their joins are over, all know the spread
	stale.Store(0)
	for b.Loop() {
		before := d.spent(b)
		idle := d.heard(b, func() { time.Sleep(15 * time.Second) })
		b.Logf("processor time a second, nothing revoked: %s", d.spent(b).since(before).per(15))
		var complete, peak float64
		for i := range answers {
			p, stop := d.watch(b)
			before := d.spent(b)
			took := d.confirmed(b, i%2+1, fmt.Sprintf("principal:one-%d", i)).Seconds()
			b.Logf("complete after %.2f s; processor time in each of them: %s", took, d.spent(b).since(before).per(took))
			time.Sleep(time.Second)
			stop()
			complete, peak = max(complete, took), max(peak, *p)
		}
		n := 0
		busy := d.heard(b, func() {
			for end := time.Now().Add(20 * time.Second); time.Now().Before(end); n++ {
				d.revoke(b, n%2+1, fmt.Sprintf("principal:many-%d", n))
				time.Sleep(50 * time.Millisecond)
			}
		})
		b.ReportMetric(idle, "idle-msgs/s")
		b.ReportMetric(peak, "peak-msgs/s")
		b.ReportMetric(busy, "busy-msgs/s")
		b.ReportMetric(complete, "complete-s")
		b.ReportMetric(time.Duration(stale.Load()).Seconds(), "stale-s")
	}
}

// confirmed revokes, and returns how long it took until every guard had confirmed.
func (d *deployed) confirmed(b *testing.B, replica int, target string) time.Duration {
	b.Helper()
	var answer struct {
		Confirmed, Unconfirmed []json.RawMessage
		Complete               bool
	}
	req, err := d.revocation(replica, "?wait=50s", target)
	if err != nil {
		b.Fatal(err)
	}
	t0 := time.Now()
	if err := d.send(req, http.StatusCreated, &answer); err != nil {
		b.Fatal(err)
	}
	took := time.Since(t0)
	if !answer.Complete || len(answer.Unconfirmed) > 0 || len(answer.Confirmed) < herdCount*herdSize {
		b.Errorf("after %s complete: %t, confirmed by %d, not by %d", took, answer.Complete, len(answer.Confirmed), len(answer.Unconfirmed))
	}
	return took
}

// heard returns how many probes and reports came a second to the process to which
// most came.
func (d *deployed) heard(b *testing.B, meanwhile func()) (most float64) {
	b.Helper()
	before, began := d.counts(b), time.Now()
	meanwhile()
	after, took := d.counts(b), time.Since(began)
	for id, n := range after {
		most = max(most, float64(n-before[id])/took.Seconds())
	}
	return most
}

// watch looks each second, and has the busiest one in most once it was stopped.
func (d *deployed) watch(b *testing.B) (most *float64, stop func()) {
	most = new(float64)
	ctx, cancel := context.WithCancel(b.Context())
	var watching sync.WaitGroup
	watching.Go(func() {
		for ctx.Err() == nil {
			*most = max(*most, d.heard(b, func() { pause(ctx, time.Second) }))
		}
	})
	return most, func() { cancel(); watching.Wait() }
}

// hears are the subjects by which a revocation process hears of guards: by
// themselves, and by its other replicas.
var hears = []string{
	wire.GuardPrefix + "*." + wire.OpProbe, wire.GuardPrefix + "*." + wire.OpReport,
	wire.GuardSubject(identity.Revocation, wire.OpHeard+".*"),
}

// counts are the messages of these that the broker has handed to each revocation
// process, by its connection.
func (d *deployed) counts(b *testing.B) map[string]int64 {
	out := map[string]int64{}
	for _, node := range nodes {
		var list struct {
			Connections []struct {
				ID   uint64 `json:"cid"`
				Name string `json:"name"`
				Subs []struct {
					Subject string `json:"subject"`
					Msgs    int64  `json:"msgs"`
				} `json:"subscriptions_list_detail"`
			} `json:"connections"`
		}
		req, err := http.NewRequest(http.MethodGet, d.processes[node].Addresses[2]+"/connz?limit=2000&subs=detail", nil)
		if err == nil {
			err = d.send(req, http.StatusOK, &list)
		}
		if err != nil {
			b.Error(err)
			return out
		}
		for _, c := range list.Connections {
			for _, s := range c.Subs {
				if c.Name == "quash-revocation" && slices.Contains(hears, s.Subject) {
					out[fmt.Sprint(node, " ", c.ID)] += s.Msgs
				}
			}
		}
	}
	if len(out) != 2 {
		b.Errorf("%d connections of revocation processes, want 2", len(out))
	}
	return out
}
