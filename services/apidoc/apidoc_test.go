package apidoc_test

import (
	"bytes"
	"flag"
	"os"
	"slices"
	"testing"

	"github.com/danielgtaylor/huma/v2"
	"github.com/getkin/kin-openapi/openapi3"

	"github.com/quash-project/quash/schemas/schematest"
	"github.com/quash-project/quash/services/apidoc"
	"github.com/quash-project/quash/services/apidoc/collection"
)

var update = flag.Bool("update", false, "rewrite the kept documents, the collection and shared/client/api")

func TestTheKeptDocumentsAreWhatTheServicesRegister(t *testing.T) {
	doc, err := apidoc.Document()
	if err != nil {
		t.Fatal(err)
	}
	for path, write := range map[string]func(*huma.OpenAPI) ([]byte, error){
		"../../schemas/openapi.json": apidoc.Marshal, "../../schemas/openapi-3.0.json": apidoc.Marshal30,
		"../../schemas/quash.postman_collection.json": collection.Marshal,
	} {
		got, err := write(doc)
		if err != nil {
			t.Fatal(err)
		}
		kept(t, path, got, "what the services' routes give")
	}
}

// kept wants a file to be what it is made from gives, and with -update makes it so.
func kept(t *testing.T, path string, got []byte, from string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not %s; if that is meant, run go test ./services/apidoc -update and review the change", path, from)
	}
}

// A library that knows 3.0 alone reads the older form, and finds every operation.
func TestTheOlderDocumentIsOpenAPI30(t *testing.T) {
	text := schematest.Read(t, "openapi-3.0.json")
	doc, err := openapi3.NewLoader().LoadFromData(text)
	if err != nil {
		t.Fatal(err)
	}
	if doc.OpenAPI != "3.0.3" {
		t.Errorf("version %s, want 3.0.3", doc.OpenAPI)
	}
	if err := doc.Validate(t.Context()); err != nil {
		t.Error(err)
	}
	// What 3.0 does not have, and a lenient reader would pass over.
	for _, word := range []string{`"null"`, `"const":`, `"examples": [`, `"contentEncoding"`, `"prefixItems"`, `"$defs"`} {
		if bytes.Contains(text, []byte(word)) {
			t.Errorf("it has %s, which OpenAPI 3.0 does not know", word)
		}
	}
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			if op.Security == nil {
				continue
			}
			for _, need := range *op.Security {
				for name, scopes := range need {
					// 3.0.3, Security Requirement Object: scopes are of OAuth's alone.
					// With none there it says that a good token is needed, and no scope by itself.
					oauth := name == "oauth2"
					byBody := slices.Contains([]string{"rotateKey", "setKeyRecipient", "collectKey"}, op.OperationID)
					if asks := len(scopes) > 0; oauth != asks && (asks || !byBody) {
						t.Errorf("%s %s: the scheme %s has the scopes %q", method, path, name, scopes)
					}
				}
			}
		}
	}
	operations(t, func(path string, op *huma.Operation) {
		item := doc.Paths.Value(path)
		if item == nil || item.GetOperation(op.Method) == nil || item.GetOperation(op.Method).OperationID != op.OperationID {
			t.Errorf("it lacks %s %s", op.Method, path)
		}
	})
}
