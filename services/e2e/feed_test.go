package e2e

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// watch opens the feed; the stream ends with the test at the latest.
func (s *services) watch(query string) *http.Response {
	s.t.Helper()
	return s.watchAs(s.token(s.operator), query)
}

func (s *services) watchAs(token, query string) *http.Response {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	s.t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/v1/feed"+query, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = resp.Body.Close() })
	if resp.StatusCode != http.StatusOK {
		s.t.Fatalf("GET /v1/feed%s: status %d", query, resp.StatusCode)
	}
	return resp
}

// TestFeedEndsWhenItsTimeIsOver and no sooner; others go on.
func TestFeedEndsWhenItsTimeIsOver(t *testing.T) {
	t.Parallel()
	s := inProcess(t)
	others := []*http.Response{s.watch(""), s.watch("?for=1h")}
	const asked = 500 * time.Millisecond
	began := time.Now()
	short := s.watch("?for=" + asked.String())
	if text, err := io.ReadAll(short.Body); err != nil || len(text) == 0 {
		t.Fatalf("the stream did not end well: %q, %v", text, err)
	}
	if took := time.Since(began); took < asked {
		t.Errorf("the stream ended after %s, want %s", took, asked)
	}
	s.commit(s.token(s.operator), "revoke", "principal:mallory")
	for _, other := range others {
		lines := bufio.NewScanner(other.Body)
		for lines.Scan() && !strings.Contains(lines.Text(), "principal:mallory") {
		}
		if lines.Err() != nil || !strings.Contains(lines.Text(), "principal:mallory") {
			t.Errorf("%s does not go on: %v", other.Request.URL, lines.Err())
		}
	}
}
