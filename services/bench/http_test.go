package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/quash-project/quash/services/revocation/app"
	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/identity"
	"github.com/quash-project/quash/shared/rights"
)

// BenchmarkHTTP: one revocation over HTTP, by one caller, at the whole service.
// The peer is a bare handler that reads the body and does a synced publish of as
// many bytes, beside it and in turns with it.
func BenchmarkHTTP(b *testing.B) {
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

	js := w.bareStream(b)
	bare := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil {
			_, err = js.Publish(r.Context(), "bench.log.x", append(body, make([]byte, 400)...))
		}
		if err != nil {
			http.Error(out, err.Error(), http.StatusInternalServerError)
			return
		}
		out.WriteHeader(http.StatusCreated)
	}))
	defer bare.Close()
	ours := httptest.NewServer(s.Handler())
	defer ours.Close()
	token := w.signed(b, "operator", rights.Revoke)

	post := func(url string, i int) time.Duration {
		body, err := json.Marshal(map[string]any{"op": "revoke", "targets": []string{fmt.Sprintf("token:t%d-%d", b.N, i)}, "reason": "bench"})
		if err != nil {
			b.Fatal(err)
		}
		req, err := http.NewRequest(http.MethodPost, url+"/v1/revocations", bytes.NewReader(body))
		if err != nil {
			b.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Authorization", "Bearer "+token)
		t0 := time.Now()
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			b.Fatal(err)
		}
		answer, _ := io.ReadAll(resp.Body)
		took := time.Since(t0)
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusCreated {
			b.Fatalf("status %d: %s", resp.StatusCode, answer)
		}
		return took
	}
	var mine, theirs []time.Duration
	for b.Loop() {
		mine, theirs = nil, nil
		for i := range 1000 {
			mine = append(mine, post(ours.URL, i))
			theirs = append(theirs, post(bare.URL, i))
		}
	}
	o, t := quantile(mine, 0.5), quantile(theirs, 0.5)
	b.ReportMetric(millis(o), "revoke-ms")
	b.ReportMetric(millis(t), "bare-ms")
	b.ReportMetric(float64(o)/float64(t), "ratio")
}
