package httpapi

import (
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/quash-project/quash/shared/problem"
)

// Also returns op with other statuses of success that have the same body.
func Also(op huma.Operation, statuses ...int) huma.Operation {
	if op.Metadata == nil {
		op.Metadata = map[string]any{}
	}
	op.Metadata[alsoKey] = statuses
	return op
}

// failures adds to op what every operation may answer, and who may call it.
func failures(op *huma.Operation, scope string, takesBody bool) {
	if op.Responses == nil {
		op.Responses = map[string]*huma.Response{}
	}
	op.Errors = append(op.Errors, http.StatusUnprocessableEntity, http.StatusInternalServerError, http.StatusServiceUnavailable)
	if takesBody {
		op.Errors = append(op.Errors, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType)
	}
	if scope == Public {
		return
	}
	op.Errors = append(op.Errors, http.StatusUnauthorized, http.StatusForbidden)
	// OpenAPI: the scopes in one requirement are all needed, of requirements one is.
	for _, one := range strings.Split(scope, "|") {
		op.Security = append(op.Security, map[string][]string{scopeName: {one}})
	}
}

// document adds an operation that huma does not know.
func (a *API) document(op *huma.Operation) {
	for _, status := range op.Errors {
		op.Responses[strconv.Itoa(status)] = &huma.Response{}
	}
	a.OpenAPI().AddOperation(op)
	a.describe(op)
}

// describe adds to the documented answers of op what huma does not know of.
func (a *API) describe(op *huma.Operation) {
	if also, ok := op.Metadata[alsoKey].([]int); ok {
		first := op.DefaultStatus
		if first == 0 {
			first = http.StatusOK
		}
		for _, status := range also {
			r := *op.Responses[strconv.Itoa(first)]
			r.Description = http.StatusText(status)
			op.Responses[strconv.Itoa(status)] = &r
		}
	}
	for _, status := range op.Errors {
		op.Responses[strconv.Itoa(status)] = a.failure(status)
	}
	for text, r := range op.Responses {
		if status, err := strconv.Atoi(text); err == nil && r.Ref == "" {
			r.Headers = maps.Clone(r.Headers)
			if r.Headers == nil {
				r.Headers = map[string]*huma.Header{}
			}
			addHeaders(r.Headers, status)
		}
	}
}

// failure returns a reference to what every operation answers with a status.
func (a *API) failure(status int) *huma.Response {
	doc := a.OpenAPI()
	name := "problem-" + strconv.Itoa(status)
	if doc.Components.Responses == nil {
		doc.Components.Responses = map[string]*huma.Response{}
	}
	if doc.Components.Responses[name] == nil {
		schema := doc.Components.Schemas.Schema(reflect.TypeFor[Problem](), true, "Problem")
		r := &huma.Response{
			Description: http.StatusText(status), Headers: map[string]*huma.Header{},
			Content: map[string]*huma.MediaType{"application/problem+json": {Schema: schema}},
		}
		addHeaders(r.Headers, status)
		doc.Components.Responses[name] = r
	}
	return &huma.Response{Ref: "#/components/responses/" + name}
}

func addHeaders(to map[string]*huma.Header, status int) {
	for name, about := range headersOf(status) {
		to[name] = &huma.Header{Description: about, Schema: &huma.Schema{Type: huma.TypeString}}
	}
}

// headersOf are the headers that an answer of a status has besides what its
// body needs.
func headersOf(status int) map[string]string {
	h := map[string]string{
		"X-Request-Id":  "names the request in the operator's log",
		"Cache-Control": "no-store",
	}
	if slices.Contains([]int{http.StatusUnauthorized, http.StatusForbidden}, status) {
		h["WWW-Authenticate"] = "RFC 6750, 3"
	}
	if problem.New(kindOf(status), "").RetryAfterSeconds() > 0 {
		h["Retry-After"] = "seconds"
	}
	return h
}

// kindOf returns the first kind with a status, Internal if there is none.
func kindOf(status int) problem.Kind {
	for _, k := range problem.Kinds() {
		if k.Status() == status {
			return k
		}
	}
	return problem.Internal
}

// noNullLists takes back that a list may be null, which huma says of every slice:
// no answer of ours has one, and no request may.
func noNullLists(s *huma.Schema) {
	for _, p := range s.Properties {
		if p.Type == huma.TypeArray {
			p.Nullable = false
		}
	}
}

// OrNull says in the schema of an answer that a member may be null, which
// huma can't say of an object. It is for a type's TransformSchema.
func OrNull(s *huma.Schema, member string) *huma.Schema {
	p := s.Properties[member]
	about := p.Description
	p.Description = ""
	s.Properties[member] = &huma.Schema{AnyOf: []*huma.Schema{p, {Type: "null"}}, Description: about}
	return s
}
