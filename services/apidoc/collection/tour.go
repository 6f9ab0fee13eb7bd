package collection

// orders stands for the resource server beside Quash, where an operationId does.
const orders = "GET /orders"

const about = `Every operation of Quash's HTTP APIs, each called once at least, with what its answer must be. Methods, paths and texts are those of the OpenAPI document (schemas/openapi.json, served as /openapi.json).

Run it from the top, as a whole: a request uses what those before it have kept in variables. Every name is made anew by the first one, and what is made is deleted again, so that it can be run again and again. It is for a Quash to try things with: **the last request begins a new epoch**, after which nothing is called complete for a minute.

Set three variables, in an environment:

- ` + "`url`" + `: the issuer's URL, where all APIs are;
- ` + "`api`" + `: the URL of a resource server whose guard takes API keys, such as quash-demo with keys;
- ` + "`api_key`" + `: an operator's API key. It is a secret: keep it as one, and out of the collection.

How a request authenticates:

- **API key**: at a resource server that takes keys, in the header X-API-Key. Quash's own APIs take none: a key is exchanged for a token there.
- **Bearer**: the APIs below /v1, with the token that the API key was exchanged for.
- **OAuth 2.0 client credentials**: a client gets a token by its id and secret. Get New Access Token does it anew.
- **Basic**: a client, or a key, says at the OAuth endpoints who it is.
- **JWT**: every access token is one (RFC 9068); "Read the token as a JWT" takes it apart. The type JWT Bearer, which signs with a key of the caller's own, has no use here: Quash alone signs.`

// given are the variables that whoever runs the tour sets.
func given() []variable {
	return []variable{
		{"url", "http://127.0.0.1:8420", "string", "the issuer's URL"},
		{"api", "http://127.0.0.1:8422", "string", "a resource server that takes API keys"},
		{"api_key", "", "string", "an operator's API key: set it in an environment, as a secret"},
	}
}

// chapter is a folder.
type chapter struct {
	name, about string
	steps       []step
}

// tour has the chapters in the order in which they are run.
func tour() []chapter {
	return []chapter{
		discovery(), tokens(), principals(), keys(), clients(), roles(), newTenants(), decisions(), revocations(), incident(),
		keyEnds(), rotations(), feed(), trail(), tenants(), fleet(), epochs(),
	}
}

// operator is the token of who runs the tour.
var operator = bearer("token")

const exchangeGrant, apiKeyType = "urn:ietf:params:oauth:grant-type:token-exchange", "urn:quash:token-type:api-key"

// exchange is the form that exchanges an API key in a variable.
func exchange(variable string, more ...string) []string {
	return append([]string{"grant_type", exchangeGrant, "subject_token_type", apiKeyType, "subject_token", "{{" + variable + "}}"}, more...)
}

// What a change says for the audit: reason, as a member of a body, and as a query.
const (
	reason  = "a tour of the API"
	because = `"reason": "` + reason + `"`
)

var explained = map[string]string{"reason": reason}
