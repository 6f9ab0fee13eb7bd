// Package collection writes the Postman collection of all HTTP APIs, a tour that calls
// every operation. What a request is comes from the OpenAPI document, so that it can't
// tell of anything else; what it is asked for here, and in which order, from the steps.
// It is kept in schemas/quash.postman_collection.json, which go test ./services/apidoc
// -update writes anew.
package collection

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"
)

// Marshal writes the collection of a document. An operation that no step calls is an error.
func Marshal(doc *huma.OpenAPI) ([]byte, error) {
	calls := callsOf(doc)
	out := file{Info: info{ID: fileID, Name: doc.Info.Title, Description: about, Schema: schemaURL}, Variables: given()}
	used := map[string]bool{}
	var errs []error
	for _, c := range tour() {
		f := folder{ID: idOf(c.name), Name: c.name, Description: c.about}
		for _, s := range c.steps {
			it, err := s.item(c.name, calls)
			if err != nil {
				errs = append(errs, fmt.Errorf("collection, %s, %s: %w", c.name, s.op, err))
				continue
			}
			f.Items, used[s.op] = append(f.Items, it), true
			out.Variables = it.declare(out.Variables)
		}
		out.Folders = append(out.Folders, f)
	}
	for id := range calls {
		if !used[id] {
			errs = append(errs, fmt.Errorf("collection: no step calls the operation %s: add one to a chapter of package collection", id))
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(out)
	return text.Bytes(), err
}

// idOf is the same for the same names, whenever the file is written.
func idOf(names ...string) string {
	// RFC 9562, 5.8: version 8 is a form of one's own.
	return uuid.NewHash(sha256.New(), uuid.Nil, []byte(strings.Join(names, "/")), 8).String()
}

// call is what can be called: an operation of the document, or the resource server's.
type call struct {
	method, base, path string
	about              string
	params             []*huma.Param
	form               *huma.Schema // of a form
	takesJSON          bool
	success            []string
}

func callsOf(doc *huma.OpenAPI) map[string]call {
	calls := map[string]call{orders: {
		method: "GET", base: "{{api}}", path: "/orders", success: []string{"200"},
		about: "No operation of Quash: a resource server that takes API keys too, and wants the scope orders:read.",
	}}
	for path, p := range doc.Paths {
		for method, op := range map[string]*huma.Operation{"GET": p.Get, "POST": p.Post, "PUT": p.Put, "DELETE": p.Delete, "PATCH": p.Patch} {
			if op == nil {
				continue
			}
			c := call{method: method, base: "{{url}}", path: path, about: op.Summary + ".", params: op.Parameters}
			if op.Description != "" {
				c.about += "\n\n" + op.Description
			}
			if op.RequestBody != nil {
				c.takesJSON = op.RequestBody.Content["application/json"] != nil
				if m := op.RequestBody.Content["application/x-www-form-urlencoded"]; m != nil {
					c.form = m.Schema
				}
			}
			for status := range op.Responses {
				if status[0] == '2' {
					c.success = append(c.success, status)
				}
			}
			slices.Sort(c.success)
			calls[op.OperationID] = c
		}
	}
	return calls
}
