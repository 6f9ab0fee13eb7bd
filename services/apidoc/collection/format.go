package collection

import "encoding/json"

// The format is Postman Collection v2.1.0, as far as this collection needs it.
const (
	schemaURL = "https://schema.getpostman.com/json/collection/v2.1.0/collection.json"
	// fileID tells an importing program that a later file is the same collection.
	fileID = "5d3c8f52-6f5e-4f0a-9a37-0c1f6c6a5e21"
)

type file struct {
	Info      info       `json:"info"`
	Folders   []folder   `json:"item"`
	Variables []variable `json:"variable"`
}

type info struct {
	ID          string `json:"_postman_id"`
	Name        string `json:"name"`
	Description string `json:"description"`
	Schema      string `json:"schema"`
}

type folder struct {
	ID          string `json:"id"`
	Name        string `json:"name"`
	Description string `json:"description"`
	Items       []item `json:"item"`
}

type item struct {
	ID        string     `json:"id"`
	Name      string     `json:"name"`
	Events    []event    `json:"event"`
	Request   request    `json:"request"`
	Responses []struct{} `json:"response"`
}

type event struct {
	Listen string `json:"listen"`
	Script script `json:"script"`
}

type script struct {
	Type string   `json:"type"`
	Exec []string `json:"exec"` // lines
}

type request struct {
	Auth        auth    `json:"auth"`
	Method      string  `json:"method"`
	Header      []field `json:"header"`
	Body        *body   `json:"body,omitempty"`
	URL         link    `json:"url"`
	Description string  `json:"description"`
}

// field is a header, a parameter of the query or the path, or one of a form. What is
// disabled is not sent; it shows what could be.
type field struct {
	Key         string `json:"key"`
	Value       string `json:"value"`
	Description string `json:"description,omitempty"`
	Type        string `json:"type,omitempty"`
	Disabled    bool   `json:"disabled,omitempty"`
}

type body struct {
	Mode    string   `json:"mode"`
	Raw     string   `json:"raw,omitempty"`
	Form    []field  `json:"urlencoded,omitempty"`
	Options *options `json:"options,omitempty"`
}

type options struct {
	Raw struct {
		Language string `json:"language"`
	} `json:"raw"`
}

type link struct {
	Raw      string   `json:"raw"`
	Host     []string `json:"host"`
	Path     []string `json:"path"`
	Query    []field  `json:"query,omitempty"`
	Variable []field  `json:"variable,omitempty"`
}

type variable struct {
	Key         string `json:"key"`
	Value       string `json:"value"`
	Type        string `json:"type"`
	Description string `json:"description,omitempty"`
}

// auth is how a request authenticates: a type, and the attributes of that type.
type auth struct {
	kind       string
	attributes []field
}

// MarshalJSON writes the attributes under the name of the type.
func (a auth) MarshalJSON() ([]byte, error) {
	out := map[string]any{"type": a.kind}
	if len(a.attributes) > 0 {
		out[a.kind] = a.attributes
	}
	return json.Marshal(out)
}

func authOf(kind string, pairs ...string) auth {
	a := auth{kind: kind}
	for i := 0; i+1 < len(pairs); i += 2 {
		a.attributes = append(a.attributes, field{Key: pairs[i], Value: pairs[i+1], Type: "string"})
	}
	return a
}

var none = authOf("noauth")

// bearer sends a token that an earlier request has kept in a variable.
func bearer(variable string) auth { return authOf("bearer", "token", "{{"+variable+"}}") }

// basic is a client's id and secret, or a key's (RFC 6749, section 2.3.1).
func basic(name, secret string) auth { return authOf("basic", "username", name, "password", secret) }

// apiKey sends a key in the header where a resource server takes it.
func apiKey(header, variable string) auth {
	return authOf("apikey", "key", header, "value", "{{"+variable+"}}", "in", "header")
}

// clientCredentials has all that a program needs to get a token by itself (RFC 6749,
// section 4.4), and the token that an earlier request got, for those that can't.
func clientCredentials(id, secret, scope, token string) auth {
	return authOf("oauth2",
		"grant_type", "client_credentials", "accessTokenUrl", "{{url}}/oauth/token", "clientId", "{{"+id+"}}", "clientSecret", "{{"+secret+"}}",
		"client_authentication", "header", "scope", scope, "accessToken", "{{"+token+"}}", "tokenType", "Bearer", "headerPrefix", "Bearer", "addTokenTo", "header")
}
