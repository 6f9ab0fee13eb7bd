package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"testing"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

// oauthClient is a client that may ask for tokens for itself.
type oauthClient struct {
	ID     string `json:"client_id"`
	Secret string `json:"client_secret"`
}

func (q *quash) newClient(name string, args ...string) oauthClient {
	q.t.Helper()
	var c oauthClient
	q.json(&c, append([]string{"client", "create", name, "--scope", "orders:read"}, args...)...)
	return c
}

// nodeClient runs a script of testdata/node against this Quash.
func (q *quash) nodeClient(script string, more map[string]any) {
	t := q.t.(*testing.T)
	t.Helper()
	given := map[string]any{"issuer": q.env["QUASH_URL"]}
	for name, v := range more {
		given[name] = v
	}
	data, err := json.Marshal(given)
	if err != nil {
		t.Fatal(err)
	}
	var env []string
	if ca := os.Getenv("SSL_CERT_FILE"); ca != "" { // what Node reads in its place
		env = append(env, "NODE_EXTRA_CA_CERTS="+ca)
	}
	if out, code := runNode(t, bytes.NewReader(data), env, script); code != 0 || out != "done\n" {
		t.Errorf("%s: exit code %d\n%s", script, code, tail(out, 4000))
	}
}

// TestOAuth4webapi has a client of JavaScript that holds what it is answered
// against the RFCs.
func TestOAuth4webapi(t *testing.T) {
	q := start(t, t.TempDir())
	c := q.newClient("reports")
	key, wide := q.newKey("alice", "--scope", "orders:read"), q.newKey("bob", "--scope", "orders:read orders:write")
	q.nodeClient("oauth4webapi.mjs", map[string]any{
		"client":   map[string]string{"id": c.ID, "secret": c.Secret},
		"key":      map[string]string{"id": key.ID, "secret": key.Secret, "owner": "alice"},
		"wide":     map[string]string{"secret": wide.Secret},
		"mistyped": typos(key.Secret)[0],
	})
}

// TestJose has the library with which resource servers in JavaScript verify.
func TestJose(t *testing.T) {
	q := start(t, t.TempDir())
	key := q.newKey("alice", "--scope", "orders:read")
	q.nodeClient("jose.mjs", map[string]any{"token": q.token(key), "key": map[string]string{"owner": "alice"}})
}

// TestGoClientExchangesAKey has golang.org/x/oauth2, which knows nothing of RFC
// 8693, exchange an API key by the parameters that it lets a caller set.
func TestGoClientExchangesAKey(t *testing.T) {
	q := start(t, t.TempDir())
	key := q.newKey("alice", "--scope", "orders:read")
	conf := clientcredentials.Config{
		TokenURL: q.env["QUASH_URL"] + "/oauth/token", Scopes: []string{"orders:read"},
		EndpointParams: url.Values(exchange(key.Secret)),
	}
	for name, c := range map[string]struct {
		id, secret string
		style      oauth2.AuthStyle
	}{
		"without a client": {"", "", oauth2.AuthStyleInParams},
		"named":            {"key_" + key.ID, "", oauth2.AuthStyleInParams},
		"in the body":      {"key_" + key.ID, key.Secret, oauth2.AuthStyleInParams},
		"by Basic":         {"key_" + key.ID, key.Secret, oauth2.AuthStyleInHeader},
		"as it finds out":  {"key_" + key.ID, key.Secret, oauth2.AuthStyleAutoDetect},
	} {
		conf.ClientID, conf.ClientSecret, conf.AuthStyle = c.id, c.secret, c.style
		ctx, cancel := context.WithTimeout(t.Context(), deadline)
		defer cancel()
		resp, err := conf.Client(ctx).Get(q.env["QUASH_DEMO_URL"] + "/orders")
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("%s: status %d, want 200", name, resp.StatusCode)
		}
	}
}
