// Package apidoc assembles the one OpenAPI document of all HTTP APIs from what
// the services register, so that it can't tell of anything else. It is kept in
// schemas/openapi.json; go test ./services/apidoc -update writes it anew.
package apidoc

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	issuer "github.com/quash-project/quash/services/issuer/httpapi"
	"github.com/quash-project/quash/services/issuer/oauth"
	revocation "github.com/quash-project/quash/services/revocation/httpapi"
	rotator "github.com/quash-project/quash/services/rotator/httpapi"
	"github.com/quash-project/quash/shared/httpapi"
)

// Document returns the document. Paths are below the issuer's URL, which is the
// base of all APIs where one process serves them; otherwise its metadata names
// where revocations and rotations are.
func Document() (*huma.OpenAPI, error) {
	mux := http.NewServeMux()
	api := httpapi.New(mux, "api", nil, nil)
	doc := api.OpenAPI()
	doc.Info = &huma.Info{
		Title: "Quash", Version: "1",
		Description: "Issues credentials, rotates them, and makes them stop working everywhere, at once, provably.",
	}
	// Nothing is called: a handler that is described needs no service behind it.
	issuer.Register(api, nil, time.Now)
	revocation.Register(api, nil, nil, nil)
	rotator.Register(api, nil)
	if err := oauth.Register(mux, doc, nil, oauth.Config{}); err != nil {
		return nil, fmt.Errorf("the OAuth endpoints: %w", err)
	}
	return doc, nil
}

// Marshal writes a document as it is kept: indented, members in order.
func Marshal(doc *huma.OpenAPI) ([]byte, error) {
	plain, err := doc.MarshalJSON()
	if err != nil {
		return nil, err
	}
	var v any
	d := json.NewDecoder(bytes.NewReader(plain))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err = e.Encode(v) // maps are written in order
	return out.Bytes(), err
}
