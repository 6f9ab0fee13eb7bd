// Package reference serves the API reference: the whole OpenAPI document, in 3.1
// and in 3.0 for older tools, and a page that shows it. All of it is in the
// binary: nothing is fetched from elsewhere, and the page's policy (CSP) lets it
// ask nobody else. It is the same on every service and replica.
package reference

import (
	"bytes"
	"compress/gzip"
	"embed"
	"io"
	"io/fs"
	"net/http"
	"strings"

	"github.com/swaggest/swgui/v5/static"

	"github.com/quash-project/quash/schemas"
)

//go:embed static
var page embed.FS

// The documents, as they are served.
const (
	Path   = "/openapi.json"
	Path30 = "/openapi-3.0.json"
	Docs   = "/docs"
)

// policy lets the page load what stands beside it, and call the API that serves it.
// No script or style in the page itself is run; data: is of icons in the style sheet.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// documentType is that of an OpenAPI document in JSON.
const documentType = "application/openapi+json"

// Register puts the documents and the page on a mux.
func Register(mux *http.ServeMux) {
	mux.Handle("GET "+Path, file{schemas.FS(), "openapi.json", documentType})
	mux.Handle("GET "+Path30, file{schemas.FS(), "openapi-3.0.json", documentType})
	mux.Handle("GET "+Docs, file{page, "static/index.html", "text/html; charset=utf-8"})
	mux.Handle("GET "+Docs+"/start.js", file{page, "static/start.js", "text/javascript; charset=utf-8"})
	for name, kind := range map[string]string{
		"swagger-ui-bundle.js": "text/javascript; charset=utf-8", "swagger-ui.css": "text/css; charset=utf-8", "favicon-32x32.png": "image/png",
	} {
		mux.Handle("GET "+Docs+"/"+name, file{static.FS, name, kind})
	}
}

// file is one that is served: as it is, or its compressed form NAME.gz.
type file struct {
	fs   fs.FS
	name string
	kind string
}

// ServeHTTP implements http.Handler.
func (f file) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", f.kind)
	h.Set("Content-Security-Policy", policy)
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-cache")
	data, err := fs.ReadFile(f.fs, f.name)
	if err != nil {
		data, err = f.packed(r, h)
	}
	if err != nil {
		http.Error(w, "a file is missing in this binary", http.StatusInternalServerError)
		return
	}
	_, _ = w.Write(data) // the caller may have gone
}

// packed reads the compressed form, and unpacks it for a caller who does not.
func (f file) packed(r *http.Request, h http.Header) ([]byte, error) {
	data, err := fs.ReadFile(f.fs, f.name+".gz")
	if err != nil {
		return nil, err
	}
	h.Set("Vary", "Accept-Encoding")
	if takesGzip(r) {
		h.Set("Content-Encoding", "gzip")
		return data, nil
	}
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(z)
}

// takesGzip reads Accept-Encoding (RFC 9110, 12.5.3) as far as it matters here:
// who names gzip without refusing it gets it.
func takesGzip(r *http.Request) bool {
	for _, part := range strings.Split(strings.Join(r.Header.Values("Accept-Encoding"), ","), ",") {
		name, weight, weighed := strings.Cut(strings.ReplaceAll(part, " ", ""), ";q=")
		if strings.EqualFold(name, "gzip") {
			return !weighed || strings.Trim(weight, "0.") != ""
		}
	}
	return false
}
