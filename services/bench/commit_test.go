package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/quash-project/quash/services/revocation/app"
	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/identity"
	"github.com/quash-project/quash/shared/rights"
)

// round is how long each side is measured in turns.
const round = 2 * time.Second

// during has so many callers call do without a pause, and returns calls a second.
func during(b *testing.B, callers int, do func(caller, i int) error) float64 {
	b.Helper()
	var done atomic.Int64
	var all sync.WaitGroup
	end := time.Now().Add(round)
	for c := range callers {
		all.Go(func() {
			for i := 0; time.Now().Before(end); i++ {
				if err := do(c, i); err != nil {
					b.Error(err)
					return
				}
				done.Add(1)
			}
		})
	}
	began := time.Now()
	all.Wait()
	return float64(done.Load()) / time.Since(began).Seconds()
}

// bareBatches stores atomic batches of so many messages, one after the other, in
// a stream of its own with the settings of the log, and returns messages a second.
func bareBatches(b *testing.B, nc *nats.Conn, size int) float64 {
	b.Helper()
	body := make([]byte, 700) // as an entry's
	n, batches := 0, 0
	began := time.Now()
	for end := began.Add(round); time.Now().Before(end); batches++ {
		id := fmt.Sprint("b", time.Now().UnixNano())
		for i := range size {
			m := &nats.Msg{Subject: fmt.Sprintf("bench.batch.%d.%d", began.UnixNano(), n), Data: body, Header: nats.Header{
				"Quash": {strings.Repeat("x", 200)}, "Nats-Batch-Id": {id}, "Nats-Batch-Sequence": {strconv.Itoa(i + 1)},
				"Nats-Expected-Last-Subject-Sequence": {"0"},
			}}
			n++
			if i < size-1 {
				if err := nc.PublishMsg(m); err != nil {
					b.Fatal(err)
				}
				continue
			}
			m.Header["Nats-Batch-Commit"] = []string{"1"}
			answer, err := nc.RequestMsg(m, 10*time.Second)
			if err != nil || strings.Contains(string(answer.Data), "error") {
				b.Fatalf("bare batch: %v", err)
			}
		}
	}
	return float64(n) / time.Since(began).Seconds()
}

// BenchmarkCommit: revocations a second on one synced node, by many callers, over
// NATS and over HTTP, in turns with bare atomic batches and a bare HTTP echo.
func BenchmarkCommit(b *testing.B) {
	w := &world{nats: enginetest.NATS(b)}
	w.makeKey(b)
	s, err := app.New(b.Context(), app.Config{URL: issuerURL, Trust: []string{w.trust}, SyncAlways: true, ProofKEKFile: enginetest.KEK(b)}, app.Deps{
		NATS: w.nats.Dial(b, identity.Revocation), Control: w.nats.Dial(b, identity.ControlReader),
	})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.Run(ctx) })
	b.Cleanup(func() { cancel(); wg.Wait() })
	keys := commit.NewKeyClient(w.nats.Dial(b, identity.Rotator))
	enginetest.Eventually(b, "the key is in the log", func() error {
		_, err := keys.CommitKey(b.Context(), w.keyRequest)
		return err
	})
	enginetest.Eventually(b, "the service is ready", s.Ready)
	bare := w.nats.Admin(b, identity.Log)
	js, err := jetstream.New(bare)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := js.CreateStream(b.Context(), jetstream.StreamConfig{Name: "BENCH", Subjects: []string{"bench.batch.>"}, AllowAtomicPublish: true, AllowMsgTTL: true}); err != nil {
		b.Fatal(err)
	}
	client := commit.NewClient(w.nats.Dial(b, identity.Issuer), identity.Issuer)
	turn := 0
	overNATS := func(c, i int) error {
		_, err := client.Commit(b.Context(), commit.Request{
			Key: fmt.Sprint(turn, c, ".", i), Tenant: "default", Op: commit.Revoke, Reason: "bench", Actor: "bench",
			Targets: []commit.Target{{Kind: revoke.KindToken, ID: fmt.Sprintf("t%d-%d-%d", turn, c, i)}},
		})
		return err
	}
	for _, x := range []struct{ callers, size int }{{64, 64}, {1000, 1000}} {
		b.Run(fmt.Sprintf("callers=%d", x.callers), func(b *testing.B) {
			var ours, theirs float64
			rounds := 0
			for b.Loop() {
				for range 3 {
					turn++
					ours += during(b, x.callers, overNATS)
					theirs += bareBatches(b, bare, x.size)
					rounds++
				}
			}
			b.ReportMetric(ours/float64(rounds), "commits/s")
			b.ReportMetric(theirs/float64(rounds), "bare/s")
		})
	}
	b.Run("http", func(b *testing.B) { w.overHTTP(b, s.Handler()) })
}

// overHTTP measures 1,000 callers at the service's API beside a handler that reads
// the body and answers.
func (w *world) overHTTP(b *testing.B, handler http.Handler) {
	echo := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		out.Header().Set("Content-Type", "application/json")
		out.WriteHeader(http.StatusCreated)
		_, _ = out.Write(body)
	}))
	defer echo.Close()
	ours := httptest.NewServer(handler)
	defer ours.Close()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1000}}
	token := w.signed(b, "operator", rights.Revoke)
	turn := 0
	post := func(url string) func(c, i int) error {
		return func(c, i int) error {
			body, err := json.Marshal(map[string]any{"op": "revoke", "targets": []string{fmt.Sprintf("token:h%d-%d-%d", turn, c, i)}, "reason": "bench"})
			if err != nil {
				return err
			}
			req, err := http.NewRequest(http.MethodPost, url+"/v1/revocations", strings.NewReader(string(body)))
			if err != nil {
				return err
			}
			req.Header.Set("Content-Type", "application/json")
			req.Header.Set("Authorization", "Bearer "+token)
			resp, err := client.Do(req)
			if err != nil {
				return err
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusCreated {
				return fmt.Errorf("status %d", resp.StatusCode)
			}
			return nil
		}
	}
	var mine, theirs float64
	rounds := 0
	for b.Loop() {
		for range 3 {
			turn++
			mine += during(b, 1000, post(ours.URL))
			theirs += during(b, 1000, post(echo.URL))
			rounds++
		}
	}
	b.ReportMetric(mine/float64(rounds), "commits/s")
	b.ReportMetric(theirs/float64(rounds), "bare/s")
}
