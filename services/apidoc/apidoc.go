// Package apidoc assembles the one OpenAPI document of all HTTP APIs from what
// the services register, so that it can't tell of anything else. It is kept in
// schemas/openapi.json, and for older tools in openapi-3.0.json; go test
// ./services/apidoc -update writes both anew, and what is made from it: the Go client, and
// the collection of requests (package collection).
package apidoc

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"

	"github.com/danielgtaylor/huma/v2"

	issuer "github.com/quash-project/quash/services/issuer/httpapi"
	"github.com/quash-project/quash/services/issuer/oauth"
	revocation "github.com/quash-project/quash/services/revocation/httpapi"
	rotator "github.com/quash-project/quash/services/rotator/httpapi"
	"github.com/quash-project/quash/shared/httpapi"
	"github.com/quash-project/quash/shared/rights"
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
	issuer.Register(api, nil, nil)
	revocation.Register(api, httpapi.Pages{}, nil, nil, nil)
	revocation.RegisterSLO(api, nil)
	revocation.RegisterAudit(api, httpapi.Pages{}, revocation.Trail{})
	revocation.RegisterReceipts(api, httpapi.Pages{}, nil, nil, nil, "")
	revocation.RegisterIncidents(api, httpapi.Pages{}, nil, "", "")
	revocation.RegisterAttempts(api, httpapi.Pages{}, nil, "")
	rotator.Register(api, nil, nil)
	rotator.RegisterSchedules(api, nil, nil)
	if err := oauth.Register(mux, doc, nil, oauth.Config{}); err != nil {
		return nil, fmt.Errorf("the OAuth endpoints: %w", err)
	}
	offerOAuth(doc)
	return doc, nil
}

// offerOAuth tells tools where the bearer tokens come from, so that they can get them
// themselves. It is true where one URL has all: of one service alone it would not be.
func offerOAuth(doc *huma.OpenAPI) {
	const bearer, scheme = "quash", "oauth2"
	flow := &huma.OAuthFlow{TokenURL: "/oauth/token", Scopes: map[string]string{}}
	for _, scope := range rights.All() {
		flow.Scopes[scope] = "see the operations that need it"
	}
	doc.Components.SecuritySchemes[scheme] = &huma.SecurityScheme{
		Type: scheme, Flows: &huma.OAuthFlows{ClientCredentials: flow},
		Description: "RFC 6749, 4.4. An API key is exchanged at the same place (RFC 8693): as subject_token of the type urn:quash:token-type:api-key.",
	}
	for _, item := range doc.Paths {
		for _, op := range []*huma.Operation{item.Get, item.Put, item.Post, item.Delete, item.Patch} {
			if op == nil {
				continue
			}
			for _, need := range slices.Clone(op.Security) {
				if scopes, ok := need[bearer]; ok {
					op.Security = append(op.Security, map[string][]string{scheme: scopes})
				}
			}
		}
	}
}

// Marshal30 writes a document as OpenAPI 3.0.3, for tools that know no later one.
func Marshal30(doc *huma.OpenAPI) ([]byte, error) {
	plain, err := httpapi.Older(doc)
	if err != nil {
		return nil, err
	}
	return indent(plain)
}

// Marshal writes a document as it is kept: indented, members in order.
func Marshal(doc *huma.OpenAPI) ([]byte, error) {
	plain, err := doc.MarshalJSON()
	if err != nil {
		return nil, err
	}
	return indent(plain)
}

func indent(plain []byte) ([]byte, error) {
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
	err := e.Encode(v) // maps are written in order
	return out.Bytes(), err
}
