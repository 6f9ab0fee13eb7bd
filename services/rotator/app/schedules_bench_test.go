package app_test

import (
	"encoding/json"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/quash-project/quash/services/rotator/kvstore"
	"github.com/quash-project/quash/services/rotator/schedule"
	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/kv"
	"github.com/quash-project/quash/shared/signing"
)

// fill writes n hourly schedules, due one after the other throughout the hour, in batches.
func fill(b *testing.B, srv *enginetest.NATSServer, n int) {
	b.Helper()
	nc := srv.Admin(b, "CONTROL")
	js, err := jetstream.New(nc)
	if err != nil {
		b.Fatal(err)
	}
	cfg := kv.StreamOf(kvstore.SchedulesBucket, "what is rotated when, and what was last", 1)
	cfg.MaxMsgsPerSubject, cfg.AllowAtomicPublish = 64, true
	if _, err := js.CreateStream(b.Context(), cfg); err != nil {
		b.Fatal(err)
	}
	const batch = 1000
	now := time.Now().Truncate(time.Millisecond)
	for i := range n {
		made := now.Add(-time.Hour).Add(time.Duration(i) * time.Hour / time.Duration(n)).Add(10 * time.Second)
		due := made.Add(time.Hour).UnixMilli()
		x := schedule.Schedule{
			ID: fmt.Sprintf("%022d", i), Tenant: "default", Name: fmt.Sprintf("s%d", i), CreatedAt: made.UnixMilli(), CreatedBy: "alice",
			Spec: schedule.Spec{Rotate: schedule.SigningKey, Every: schedule.Duration(time.Hour), Missed: schedule.RunOnce, Reason: "a benchmark of many schedules"},
			Next: &schedule.Firing{Due: due, At: due}, Meta: signing.Meta{Actor: "alice", Reason: "a benchmark of many schedules", At: made.UnixMilli()},
		}
		text, err := json.Marshal(x)
		if err != nil {
			b.Fatal(err)
		}
		m := nats.NewMsg("$KV." + kvstore.SchedulesBucket + ".default." + x.Name)
		m.Data = text
		m.Header.Set("Nats-Batch-Id", "b"+strconv.Itoa(i/batch))
		m.Header.Set("Nats-Batch-Sequence", strconv.Itoa(i%batch+1))
		if i%batch != batch-1 && i != n-1 {
			if err := nc.PublishMsg(m); err != nil {
				b.Fatal(err)
			}
			continue
		}
		m.Header.Set("Nats-Batch-Commit", "1")
		if r, err := nc.RequestMsg(m, 30*time.Second); err != nil || !json.Valid(r.Data) {
			b.Fatalf("batch %d: %v", i/batch, err)
		}
	}
}

// heap is what is in use after everything that is not was collected.
func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkSchedules has one rotator with so many hourly schedules, and looks for 20 s how
// late it claims them; the engine is in the same process, and syncs each write.
func BenchmarkSchedules(b *testing.B) {
	for _, n := range []int{1_000, 100_000} {
		b.Run(fmt.Sprintf("n=%d", n), func(b *testing.B) {
			srv := enginetest.NATS(b)
			fill(b, srv, n)
			var mu sync.Mutex
			var late []time.Duration
			before, began := heap(), time.Now()
			p := plan(b, srv, time.Now, nil, true, func(d time.Duration) {
				mu.Lock()
				defer mu.Unlock()
				late = append(late, d)
			})
			read, held := time.Since(began), heap()-before
			for b.Loop() {
				time.Sleep(20 * time.Second) // that is what is measured
			}
			mu.Lock()
			defer mu.Unlock()
			slices.Sort(late)
			if len(late) == 0 || p.Stats().Failed > 0 {
				b.Fatalf("%d firings, %d failed", len(late), p.Stats().Failed)
			}
			b.ReportMetric(read.Seconds(), "read-s")
			b.ReportMetric(float64(held)/float64(n), "heap-B/schedule")
			b.ReportMetric(float64(len(late)), "firings")
			b.ReportMetric(float64(late[len(late)/2].Milliseconds()), "late-p50-ms")
			b.ReportMetric(float64(late[len(late)*99/100].Milliseconds()), "late-p99-ms")
			b.ReportMetric(float64(late[len(late)-1].Milliseconds()), "late-max-ms")
		})
	}
}
