package app_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"
)

// BenchmarkExchange measures an exchange over HTTP, under load from the same
// machine, beside a bare handler that parses a form and signs ES256. The goal is
// at least half of the bare one's rate.
func BenchmarkExchange(b *testing.B) {
	w := newWorld(b)
	k := w.newKey(map[string]any{"owner": "alice", "scopes": []string{"orders:read"}})
	body := exchangeForm(k.Secret).Encode()
	b.Run("peer=bare", func(b *testing.B) {
		srv := httptest.NewServer(bare(b))
		defer srv.Close()
		load(b, srv.URL+"/oauth/token", body)
	})
	b.Run("peer=quash", func(b *testing.B) { load(b, w.http.URL+"/oauth/token", body) })
}

func bare(b *testing.B) http.Handler {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil || r.Form.Get("subject_token") == "" {
			http.Error(w, "bad", http.StatusBadRequest)
			return
		}
		sig, err := jwt.SigningMethodES256.Sign("header.payload", key)
		if err != nil {
			http.Error(w, "bad", http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"access_token":"`))
		_, _ = w.Write(sig[:8])
		_, _ = w.Write([]byte(`"}`))
	})
}

func load(b *testing.B, url, body string) {
	b.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	b.SetParallelism(8)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			resp, err := client.Post(url, "application/x-www-form-urlencoded", strings.NewReader(body))
			if err != nil {
				b.Error(err)
				return
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				b.Errorf("status %d", resp.StatusCode)
				return
			}
		}
	})
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "req/s")
}
