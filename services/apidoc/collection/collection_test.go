package collection_test

import (
	"bytes"
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/danielgtaylor/huma/v2"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/quash-project/quash/services/apidoc"
	"github.com/quash-project/quash/services/apidoc/collection"
)

// made is a collection as those who import it read it, as far as the tests look.
type made struct {
	Item     []folder
	Variable []struct{ Key, Value, Type string }
}

type folder struct {
	ID, Name string
	Item     []item
}

type item struct {
	ID, Name string
	Event    []struct {
		Listen string
		Script struct{ Exec []string }
	}
	Request json.RawMessage
}

func write(t *testing.T) []byte {
	t.Helper()
	doc, err := apidoc.Document()
	if err != nil {
		t.Fatal(err)
	}
	text, err := collection.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func read(t *testing.T) made {
	t.Helper()
	var c made
	if err := json.Unmarshal(write(t), &c); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestTheFormatIsPostmans 2.1.0, by the schema that Postman publishes (Apache 2.0).
func TestTheFormatIsPostmans(t *testing.T) {
	schema, err := os.ReadFile("testdata/postman-2.1.0.json")
	if err != nil {
		t.Fatal(err)
	}
	var values [2]any
	for i, text := range [][]byte{schema, write(t)} {
		if values[i], err = jsonschema.UnmarshalJSON(bytes.NewReader(text)); err != nil {
			t.Fatal(err)
		}
	}
	const at = "https://schema.getpostman.com/json/draft-07/collection/v2.1.0/"
	c := jsonschema.NewCompiler()
	if err := c.AddResource(at, values[0]); err != nil {
		t.Fatal(err)
	}
	compiled, err := c.Compile(at)
	if err != nil {
		t.Fatal(err)
	}
	if err := compiled.Validate(values[1]); err != nil {
		t.Error(err)
	}
}

// TestTheFileIsTheSameWheneverItIsWritten, and each part of it has an id of its own.
func TestTheFileIsTheSameWheneverItIsWritten(t *testing.T) {
	if !bytes.Equal(write(t), write(t)) {
		t.Error("it is another one each time")
	}
	ids := map[string]string{}
	own := func(id, name string) {
		if other, taken := ids[id]; taken || id == "" {
			t.Errorf("%s: its id %q is that of %q", name, id, other)
		}
		ids[id] = name
	}
	for _, f := range read(t).Item {
		own(f.ID, f.Name)
		for _, i := range f.Item {
			own(i.ID, f.Name+", "+i.Name)
		}
	}
}

var (
	named = regexp.MustCompile(`{{(\w+)}}`)
	got   = regexp.MustCompile(`pm\.collectionVariables\.get\("(\w+)"\)`)
	set   = regexp.MustCompile(`pm\.collectionVariables\.set\("(\w+)"`)
)

// TestWhatARequestNamesWasSetBefore, by who runs the collection or by an earlier request.
func TestWhatARequestNamesWasSetBefore(t *testing.T) {
	known := map[string]bool{"url": true, "api": true, "api_key": true}
	c := read(t)
	for _, f := range c.Item {
		for _, i := range f.Item {
			use := func(text string, names *regexp.Regexp) {
				for _, m := range names.FindAllStringSubmatch(text, -1) {
					if !known[m[1]] {
						t.Errorf("%s, %s: nothing before it sets %s", f.Name, i.Name, m[1])
					}
				}
			}
			script := map[string]string{}
			for _, e := range i.Event {
				script[e.Listen] = strings.Join(e.Script.Exec, "\n")
			}
			for _, when := range []string{"prerequest", "request", "test"} {
				if when == "request" {
					use(string(i.Request), named)
				}
				use(script[when], got)
				for _, m := range set.FindAllStringSubmatch(script[when], -1) {
					known[m[1]] = true
				}
			}
		}
	}
	for _, v := range c.Variable {
		if !known[v.Key] {
			t.Errorf("variable %s: nobody sets it", v.Key)
		}
		if delete(known, v.Key); v.Key == "api_key" && v.Value != "" {
			t.Error("the collection has an API key in it")
		}
	}
	for name := range known {
		t.Errorf("variable %s is not in the list", name)
	}
}

// TestScriptsAreWhatOtherProgramsRunToo: Postman's scripts have more, which those lack.
func TestScriptsAreWhatOtherProgramsRunToo(t *testing.T) {
	allowed := []string{"pm.test", "pm.expect", "pm.response.json", "pm.response.code", "pm.response.to", "pm.collectionVariables.get", "pm.collectionVariables.set"}
	calls := regexp.MustCompile(`\bpm\.\w+(\.\w+)?`)
	more := regexp.MustCompile(`\b(require|postman|console|eval|setTimeout|fetch|async|await)\b|=>`)
	for _, f := range read(t).Item {
		for _, i := range f.Item {
			for _, e := range i.Event {
				script := strings.Join(e.Script.Exec, "\n")
				for _, name := range calls.FindAllString(script, -1) {
					if !slices.Contains(allowed, name) && !slices.Contains(allowed, name[:strings.LastIndex(name, ".")]) {
						t.Errorf("%s, %s: a script has %s", f.Name, i.Name, name)
					}
				}
				if word := more.FindString(script); word != "" {
					t.Errorf("%s, %s: a script has %s", f.Name, i.Name, word)
				}
			}
		}
	}
}

// TestEveryWayToAuthenticateIsThere: API key, bearer, client credentials, Basic and none.
func TestEveryWayToAuthenticateIsThere(t *testing.T) {
	seen := map[string]bool{}
	for _, f := range read(t).Item {
		for _, i := range f.Item {
			var r struct{ Auth struct{ Type string } }
			if err := json.Unmarshal(i.Request, &r); err != nil {
				t.Fatal(err)
			}
			seen[r.Auth.Type] = true
			seen["jwt"] = seen["jwt"] || i.Name == "Read the token as a JWT"
		}
	}
	for _, kind := range []string{"apikey", "bearer", "oauth2", "basic", "noauth", "jwt"} {
		if !seen[kind] {
			t.Errorf("no request authenticates by %s", kind)
		}
	}
}

// TestWhatTheDocumentLacksOrGainsIsNamed, so that the collection can't be forgotten.
func TestWhatTheDocumentLacksOrGainsIsNamed(t *testing.T) {
	doc := func() *huma.OpenAPI {
		d, err := apidoc.Document()
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	gained := doc()
	gained.AddOperation(&huma.Operation{OperationID: "newOperation", Method: "GET", Path: "/v1/new"})
	lacking := doc()
	delete(lacking.Paths, "/v1/fleet")
	without := doc()
	without.Paths["/v1/feed"].Get.Parameters = nil
	for want, d := range map[string]*huma.OpenAPI{"newOperation": gained, "listFleet": lacking, "no for in the query": without} {
		if _, err := collection.Marshal(d); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one that names %s", err, want)
		}
	}
}
