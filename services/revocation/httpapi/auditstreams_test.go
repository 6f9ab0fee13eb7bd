package httpapi_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/quash-project/quash/services/revocation/audit"
	"github.com/quash-project/quash/services/revocation/httpapi"
	"github.com/quash-project/quash/shared/guard/guardtest"
	frame "github.com/quash-project/quash/shared/httpapi"
	"github.com/quash-project/quash/shared/rights"
)

// trail is one of so many pages, each with an item; reading it stops where it has a gate,
// until that opens.
type trail struct {
	pages   uint64
	stopAt  uint64
	gate    chan struct{}
	awaited error
}

func (k *trail) at(n uint64) audit.Stored {
	return audit.Stored{Number: n, Body: fmt.Appendf(nil, `{"number":%d,"items":[{"type":"t","reason":"item %[1]d"}]}`, n)}
}

func (k *trail) Last(context.Context) (audit.Stored, uint64, error) {
	return k.at(k.pages), k.pages, nil
}

func (k *trail) Await(context.Context, time.Duration) (audit.Stored, error) {
	return k.at(k.pages), k.awaited
}

func (k *trail) First(context.Context, time.Time, uint64) (uint64, error) { return 1, nil }

func (k *trail) Pages(ctx context.Context, from, to uint64, yield func(audit.Stored) error) error {
	for n := from; n <= min(to, k.pages); n++ {
		if n == k.stopAt {
			select {
			case <-k.gate:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if err := yield(k.at(n)); err != nil {
			return err
		}
	}
	if to != audit.Endless {
		return nil
	}
	<-ctx.Done()
	return nil
}

// TestStreamsOfTheAuditBreakOffWithTheirToken: nobody takes what was sent for the whole, and
// a revoked auditor hears of nothing more.
func TestStreamsOfTheAuditBreakOffWithTheirToken(t *testing.T) {
	for _, path := range []string{"export", "pages", "export?follow=true", "export?follow=true&for=1h"} {
		q := guardtest.New(t)
		mux := http.NewServeMux()
		api := frame.New(mux, "test", frame.ByGuard(q.Guard(), guardtest.Tenant), nil)
		httpapi.RegisterAudit(api, pages(t), httpapi.Trail{Kept: &trail{pages: 3, stopAt: 3, gate: make(chan struct{})}, Home: guardtest.Tenant})
		s := httptest.NewServer(frame.Handler(mux, nil, nil))
		t.Cleanup(s.Close)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/v1/audit/"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+q.Token(guardtest.Token{Scopes: []string{rights.AuditRead}}))
		resp, err := s.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if _, err := io.ReadFull(resp.Body, make([]byte, 20)); err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: status %d, %v", path, resp.StatusCode, err)
		}
		q.Revoke("principal:alice")
		text, err := io.ReadAll(resp.Body)
		if !errors.Is(err, io.ErrUnexpectedEOF) || strings.Contains(string(text), "item 3") {
			t.Errorf("%s: of a revoked token it ends with %q, %v; want it broken off", path, text, err)
		}
	}
}

// TestExportThatBeginsAfterTheEndIsNoAnswer: the trail went back, and lacks what was read.
func TestExportThatBeginsAfterTheEndIsNoAnswer(t *testing.T) {
	mux := http.NewServeMux()
	httpapi.RegisterAudit(frame.New(mux, "test", tenants{}, nil), pages(t), httpapi.Trail{Kept: &trail{pages: 3}, Home: "default"})
	for query, want := range map[string]int{"from=3": 200, "from=4": 200, "from=5": 503, "from=5&follow=true": 503, "from=18446744073709551614": 503} {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		req := httptest.NewRequestWithContext(ctx, http.MethodGet, "/v1/audit/export?"+query, nil)
		req.Header.Set("Authorization", "Bearer default")
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, req)
		if w.Code != want || want == 503 && w.Header().Get("Retry-After") == "" {
			t.Errorf("%s: status %d, %v, want %d: %s", query, w.Code, w.Header(), want, w.Body)
		}
	}
}

// TestPagesAreSentThoughTheSourcesCantBeAsked: who verifies them hears of it, and checks the chain.
func TestPagesAreSentThoughTheSourcesCantBeAsked(t *testing.T) {
	mux := http.NewServeMux()
	kept := &trail{pages: 3, awaited: errors.New("no answer from KV_keys")}
	httpapi.RegisterAudit(frame.New(mux, "test", tenants{}, nil), pages(t), httpapi.Trail{Kept: kept, Home: "default"})
	req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/v1/audit/pages", nil)
	req.Header.Set("Authorization", "Bearer default")
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, req)
	if w.Code != http.StatusOK || strings.Count(w.Body.String(), "\n") != 4 || !strings.Contains(w.Body.String(), `"behind":"no answer from KV_keys"`) {
		t.Errorf("status %d: %s", w.Code, w.Body)
	}
}

// deadlines counts the deadlines for what is written.
type deadlines struct {
	*httptest.ResponseRecorder
	set, written int
}

func (d *deadlines) SetWriteDeadline(time.Time) error { d.set++; return nil }

func (d *deadlines) Write(b []byte) (int, error) {
	d.written++
	return d.ResponseRecorder.Write(b)
}

// TestLinesOfTheAuditHaveADeadline each: a reader that has stopped is not waited for.
func TestLinesOfTheAuditHaveADeadline(t *testing.T) {
	mux := http.NewServeMux()
	httpapi.RegisterAudit(frame.New(mux, "test", tenants{}, nil), pages(t), httpapi.Trail{Kept: &trail{pages: 3}, Home: "default"})
	req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/v1/audit/pages", nil)
	req.Header.Set("Authorization", "Bearer default")
	w := &deadlines{ResponseRecorder: httptest.NewRecorder()}
	mux.ServeHTTP(w, req)
	if w.written != 4 || w.set < w.written {
		t.Errorf("%d lines, and %d deadlines", w.written, w.set)
	}
}
