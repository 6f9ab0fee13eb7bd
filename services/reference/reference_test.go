package reference_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/quash-project/quash/schemas/schematest"
	"github.com/quash-project/quash/services/reference"
	"github.com/quash-project/quash/shared/httpapi"
)

func server(t *testing.T) *httptest.Server {
	t.Helper()
	mux := http.NewServeMux()
	reference.Register(mux)
	srv := httptest.NewServer(httpapi.Handler(mux, nil, nil))
	t.Cleanup(srv.Close)
	return srv
}

func get(t *testing.T, srv *httptest.Server, path, encoding string) (http.Header, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", srv.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept-Encoding", encoding) // and the client unpacks nothing by itself
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("GET %s: status %d, %v", path, resp.StatusCode, err)
	}
	return resp.Header, body
}

// TestThePageIsWholeAndAsksNobodyElse follows whatever the page loads.
func TestThePageIsWholeAndAsksNobodyElse(t *testing.T) {
	srv := server(t)
	h, page := get(t, srv, reference.Docs, "identity")
	csp := h.Get("Content-Security-Policy")
	if !strings.HasPrefix(csp, "default-src 'none'; script-src 'self';") || strings.Contains(csp, "unsafe") || strings.Contains(csp, "http") || strings.Contains(csp, "*") {
		t.Errorf("policy %q", csp)
	}
	if h.Get("X-Content-Type-Options") != "nosniff" || !strings.HasPrefix(h.Get("Content-Type"), "text/html") {
		t.Errorf("headers %v", h)
	}
	if m := regexp.MustCompile(`<script[^>]*>[^<]|<style|\sstyle=|\son[a-z]+=|javascript:`).Find(page); m != nil {
		t.Errorf("the page has %q in it, which its policy forbids", m)
	}
	found := regexp.MustCompile(`(?:src|href)="([^"]*)"`).FindAllSubmatch(page, -1)
	if len(found) < 5 {
		t.Fatalf("the page loads %d things", len(found))
	}
	for _, m := range found {
		at := string(m[1])
		if strings.Contains(at, "//") || strings.HasPrefix(at, "/") {
			t.Errorf("the page loads %s", at) // beside it, whatever the path before is
			continue
		}
		if _, body := get(t, srv, "/"+at, "identity"); len(body) == 0 {
			t.Errorf("%s is empty", at)
		}
	}
	if _, start := get(t, srv, "/docs/start.js", "identity"); !bytes.Contains(start, []byte(`url: "openapi.json"`)) {
		t.Error("the page shows another document")
	}
}

func TestFilesAreTheSamePackedAndUnpacked(t *testing.T) {
	srv := server(t)
	for _, path := range []string{"/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css"} {
		h, plain := get(t, srv, path, "identity")
		if h.Get("Content-Encoding") != "" || len(plain) < 100_000 || h.Get("Vary") != "Accept-Encoding" {
			t.Errorf("%s: %d bytes, %v", path, len(plain), h)
		}
		for encoding, packed := range map[string]bool{"gzip": true, "br, gzip;q=0.5": true, "GZIP": true, "gzip;q=0": false, "gzip; q=0.000": false, "br": false} {
			h, body := get(t, srv, path, encoding)
			if (h.Get("Content-Encoding") == "gzip") != packed || (len(body) < len(plain)) != packed {
				t.Errorf("%s with Accept-Encoding %s: %d bytes, %q", path, encoding, len(body), h.Get("Content-Encoding"))
			}
		}
	}
}

func TestTheDocumentsAreThoseThatAreKept(t *testing.T) {
	srv := server(t)
	for path, file := range map[string]string{reference.Path: "openapi.json", reference.Path30: "openapi-3.0.json"} {
		h, body := get(t, srv, path, "identity")
		if !bytes.Equal(body, schematest.Read(t, file)) || h.Get("Content-Type") != "application/openapi+json" {
			t.Errorf("%s: %d bytes, %v", path, len(body), h)
		}
	}
	resp, err := http.Post(srv.URL+reference.Docs, "text/plain", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusMethodNotAllowed || resp.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("POST: status %d, %v", resp.StatusCode, resp.Header)
	}
}
