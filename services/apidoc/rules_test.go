package apidoc_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/danielgtaylor/huma/v2"
	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"

	"github.com/quash-project/quash/schemas/schematest"
	"github.com/quash-project/quash/services/apidoc"
	"github.com/quash-project/quash/shared/rights"
)

// operations calls each with every operation of the document.
func operations(t *testing.T, each func(path string, op *huma.Operation)) *huma.OpenAPI {
	t.Helper()
	doc, err := apidoc.Document()
	if err != nil {
		t.Fatal(err)
	}
	for path, item := range doc.Paths {
		for _, op := range []*huma.Operation{item.Get, item.Post, item.Put, item.Delete, item.Patch, item.Head, item.Options, item.Trace} {
			if op != nil {
				each(path, op)
			}
		}
	}
	return doc
}

func TestTheDocumentIsOpenAPI(t *testing.T) {
	doc, err := libopenapi.NewDocument(schematest.Read(t, "openapi.json"))
	if err != nil {
		t.Fatal(err)
	}
	if v := doc.GetVersion(); v != "3.1.0" {
		t.Errorf("version %s, want 3.1.0", v)
	}
	v, errs := validator.NewValidator(doc)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	ok, found := v.ValidateDocument()
	for _, f := range found {
		t.Errorf("%s: %s", f.Message, f.Reason)
	}
	if !ok {
		t.Error("the document is not valid")
	}
}

// public are the operations that need no credential; of the OAuth endpoints the
// credential is in the form, or in HTTP Basic. Who shows a leaked key shows that alone.
func public(path string) bool {
	return strings.Contains(path, "/.well-known/") || strings.HasSuffix(path, "/oauth/jwks") || path == "/v1/receipts/keys" || leakedPath(path)
}

func leakedPath(path string) bool { return strings.HasSuffix(path, "/oauth/leaked") }

// ofOAuth reports whether a path is that of an OAuth endpoint that takes a form.
func ofOAuth(path string) bool {
	return strings.Contains(path, "/oauth/") && (!public(path) || leakedPath(path))
}

func TestEveryOperationSaysWhoMayCallItAndWhatFails(t *testing.T) {
	ids := map[string]bool{}
	operations(t, func(path string, op *huma.Operation) {
		name := op.Method + " " + path
		if op.OperationID == "" || ids[op.OperationID] || op.Summary == "" || len(op.Tags) == 0 {
			t.Errorf("%s: id %q, summary %q, tags %q: want an id of its own, and both", name, op.OperationID, op.Summary, op.Tags)
		}
		ids[op.OperationID] = true
		if len(op.Security) == 0 && !public(path) {
			t.Errorf("%s: does not say who may call it", name)
		}
		for _, need := range op.Security {
			for _, scope := range need["quash"] {
				if !rights.Own(scope) || !rights.Known(scope) {
					t.Errorf("%s: unknown scope %q", name, scope)
				}
				if !strings.Contains(op.Description, "`"+scope+"`") || !strings.Contains(op.Description, rights.Operator) {
					t.Errorf("%s: its text does not say that it needs %s, and which roles have it: %s", name, scope, op.Description)
				}
			}
		}
		for _, status := range wantedFailures(path, op) {
			if op.Responses[status] == nil {
				t.Errorf("%s: does not say that it may answer %s", name, status)
			}
		}
	})
}

func wantedFailures(path string, op *huma.Operation) []string {
	switch {
	case strings.Contains(path, "/.well-known/"):
		return nil
	case leakedPath(path):
		return []string{"400", "413", "415", "429", "500", "503"}
	case public(path):
		return []string{"503"}
	case ofOAuth(path):
		return []string{"400", "401", "413", "415", "429", "500", "503"}
	}
	want := []string{"401", "403", "422", "500", "503"}
	if op.RequestBody != nil {
		want = append(want, "413", "415")
	}
	if strings.Contains(path, "{") {
		want = append(want, "404")
	}
	return want
}

// Whatever may be repeated after an unknown outcome takes a key for it, and
// whatever takes its time can be waited for.
func TestOperationsThatCommitTakeAKeyAndAWait(t *testing.T) {
	want := map[string][]string{
		"commitRevocation": {"header Idempotency-Key", "query wait"},
		"createRotation":   {"header Idempotency-Key", "query wait"},
		"getRevocation":    {"query wait"},
		"getReceipt":       {"query wait"},
		"showRotation":     {"query wait"},
	}
	operations(t, func(_ string, op *huma.Operation) {
		var have []string
		for _, p := range op.Parameters {
			have = append(have, p.In+" "+p.Name)
		}
		for _, p := range want[op.OperationID] {
			if !slices.Contains(have, p) {
				t.Errorf("%s has the parameters %q, want %q among them", op.OperationID, have, p)
			}
		}
		delete(want, op.OperationID)
	})
	for id := range want {
		t.Errorf("there is no operation %s", id)
	}
}

// A body that takes what it does not know hides misspellings.
func TestBodiesTakeNoUnknownMembers(t *testing.T) {
	doc := operations(t, func(path string, op *huma.Operation) {
		if op.RequestBody != nil && !ofOAuth(path) && op.RequestBody.Content["application/json"] == nil {
			t.Errorf("%s: its body is not application/json", op.OperationID)
		}
	})
	for name, s := range doc.Components.Schemas.Map() {
		if s.Type == huma.TypeObject && s.AdditionalProperties != false && len(s.Properties) > 0 {
			t.Errorf("schema %s: takes unknown members", name)
		}
	}
}

// TestNothingIsServedPastTheRegistrations looks for handlers that are put on a
// mux anywhere but in the two places that also describe them.
func TestNothingIsServedPastTheRegistrations(t *testing.T) {
	allowed := []string{"../issuer/oauth/oauth.go", "../../shared/httpapi/api.go"}
	var found []string
	for _, root := range []string{"../issuer", "../rotator", "../revocation", "../../shared/httpapi"} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			if registers(t, path) {
				found = append(found, filepath.ToSlash(path))
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(found)
	slices.Sort(allowed)
	if !slices.Equal(found, allowed) {
		t.Errorf("handlers are put on a mux in %q, want %q only: register them with shared/httpapi", found, allowed)
	}
}

func registers(t *testing.T, path string) (yes bool) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(f, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		sel, ok := call.Fun.(*ast.SelectorExpr)
		if !ok || len(call.Args) != 2 {
			return true
		}
		yes = yes || sel.Sel.Name == "HandleFunc" || sel.Sel.Name == "Handle"
		return true
	})
	return yes
}
