package httpapi

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/quash-project/quash/shared/problem"
	"github.com/quash-project/quash/shared/rights"
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
	if scope == Authenticated {
		op.Description = strings.TrimSpace(op.Description + "\n\nNeeds a good access token; what it has to have besides, the operation decides.")
		op.Security = append(op.Security, map[string][]string{scopeName: {}})
		return
	}
	op.Description = strings.TrimSpace(op.Description + "\n\n" + needs(scope))
	// OpenAPI: the scopes in one requirement are all needed, of requirements one is.
	for _, one := range strings.Split(scope, "|") {
		op.Security = append(op.Security, map[string][]string{scopeName: {one}})
	}
}

// needs says for people who may call an operation: of bearer tokens not every tool
// shows the scopes of a requirement.
func needs(scope string) string {
	scopes := strings.Split(scope, "|")
	var roles []string
	for _, r := range rights.Roles(true) {
		if slices.ContainsFunc(scopes, func(s string) bool { return slices.Contains(r.Scopes, s) }) {
			roles = append(roles, r.Name)
		}
	}
	text := "Needs the scope `" + strings.Join(scopes, "` or `") + "`"
	if len(roles) > 0 {
		text += ", which the fixed roles " + strings.Join(roles, ", ") + " have"
	}
	if slices.ContainsFunc(scopes, rights.OfInstallation) {
		text += "; it counts in a token of the installation's own tenant alone"
	}
	return text + "."
}

// Older returns a document as OpenAPI 3.0.3. There, only the requirements of OAuth
// 2.0 and OpenID Connect may name scopes; each operation's text names them too.
func Older(doc *huma.OpenAPI) ([]byte, error) {
	text, err := doc.Downgrade()
	if err != nil {
		return nil, err
	}
	var older map[string]any
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&older); err != nil {
		return nil, err
	}
	paths, _ := older["paths"].(map[string]any)
	for _, item := range paths {
		ops, _ := item.(map[string]any)
		for _, op := range ops {
			withoutScopes(op, func(scheme string) bool {
				of := doc.Components.SecuritySchemes[scheme]
				return of != nil && of.Type == "oauth2"
			})
		}
	}
	return json.Marshal(older)
}

func withoutScopes(op any, scoped func(scheme string) bool) {
	members, _ := op.(map[string]any)
	list, _ := members["security"].([]any)
	for _, need := range list {
		schemes, _ := need.(map[string]any)
		for name := range schemes {
			if !scoped(name) {
				schemes[name] = []any{}
			}
		}
	}
	if len(list) > 1 { // one of several scopes has become several times the same
		members["security"] = slices.CompactFunc(list, func(a, b any) bool { return reflect.DeepEqual(a, b) })
	}
}

// conditions adds what the headers that an operation reads may lead to.
func conditions[I any](op *huma.Operation) {
	add := func(status int) {
		if !slices.Contains(op.Errors, status) {
			op.Errors = append(op.Errors, status)
		}
	}
	if hasHeader[I](keyHeader) {
		add(http.StatusConflict)
	}
	if hasHeader[I](matchHeader) {
		add(http.StatusPreconditionFailed)
	}
	if hasHeader[I](noneMatchHeader) {
		op.Responses[strconv.Itoa(http.StatusNotModified)] = &huma.Response{
			Description: http.StatusText(http.StatusNotModified),
			Headers:     map[string]*huma.Header{"ETag": {Description: "of the record", Schema: &huma.Schema{Type: huma.TypeString}}},
		}
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
//
// The object's schema is put in place: beside a reference, OpenAPI 3.0 has no way
// to say it.
func OrNull(r huma.Registry, s *huma.Schema, member string) *huma.Schema {
	p := s.Properties[member]
	if p.Ref == "" {
		return s // it was done before
	}
	whole := *r.SchemaFromRef(p.Ref)
	whole.Nullable, whole.Description = true, p.Description
	s.Properties[member] = &whole
	return s
}
