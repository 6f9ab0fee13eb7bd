package e2e

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/redis/go-redis/v9"

	"github.com/quash-project/quash/shared/engine"
	"github.com/quash-project/quash/shared/identity"
	"github.com/quash-project/quash/shared/seal"
	"github.com/quash-project/quash/shared/signing"
)

// Promise 6: secrets are seen once. Keys, client secrets and refresh tokens are
// stored as hashes, private keys sealed; none in a log line, event, error, metric
// or command line.

// hunt is a running Quash, what it was seen to say, and the secrets that must
// not be in it.
type hunt struct {
	*quash
	secrets map[string]secret
	mu      sync.Mutex
	traffic bytes.Buffer // all that was sent over NATS
	said    bytes.Buffer // all answers that are not to carry a secret
}

// secret is one, and the file of the data directory that may have it.
type secret struct{ text, file string }

func (h *hunt) add(name, text, file string) {
	h.t.Helper()
	if len(text) < 24 {
		h.t.Fatalf("%s has %d characters: too few to look for", name, len(text))
	}
	h.secrets[name] = secret{text, file}
}

// listen writes down every message in every account.
func (h *hunt) listen() {
	h.t.Helper()
	for _, account := range []string{identity.Log, identity.Control, identity.Guards, identity.Sys} {
		nc := h.admin(account)
		if _, err := nc.Subscribe(">", func(m *nats.Msg) {
			h.mu.Lock()
			defer h.mu.Unlock()
			fmt.Fprintf(&h.traffic, "%s %s\n", m.Subject, m.Reply)
			for name, values := range m.Header {
				fmt.Fprintf(&h.traffic, "%s: %s\n", name, strings.Join(values, ","))
			}
			h.traffic.Write(m.Data)
		}); err != nil {
			h.t.Fatal(err)
		}
		if err := nc.Flush(); err != nil {
			h.t.Fatal(err)
		}
	}
}

// tell runs a command whose output must have no secret in it, whatever it says.
func (h *hunt) tell(stdin string, args ...string) {
	h.t.Helper()
	r := h.run(stdin, args...)
	h.heard("quash "+args[0], r.out+r.err)
}

func (h *hunt) heard(what, text string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	fmt.Fprintf(&h.said, "%s: %s\n", what, text)
}

// ask sends a request whose answer must have no secret in it.
func (h *hunt) ask(method, path, token, contentType, body string) {
	h.t.Helper()
	req, err := http.NewRequest(method, h.env["QUASH_URL"]+path, strings.NewReader(body))
	if err != nil {
		h.t.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	if token != "" {
		req.Header.Set("Authorization", token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		h.t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	head := &bytes.Buffer{}
	_ = resp.Header.Write(head) // into memory
	h.heard(method+" a path", head.String()+string(data))
}

// TestPromise6SecretsAreSeenOnce lives a whole life, rightly and wrongly, and
// looks for every secret in everything that was written or said.
func TestPromise6SecretsAreSeenOnce(t *testing.T) {
	seen := collector(t)
	h := &hunt{quash: start(t, t.TempDir()), secrets: map[string]secret{}}
	h.listen()
	key, client := h.live()
	h.mistakes(key, client)
	h.privateKeys()
	h.commandLines()
	eventually(t, "traces of the mistakes", func() error {
		if spans, _ := seen.all(); len(spans) < 100 {
			return fmt.Errorf("%d spans", len(spans))
		}
		return nil
	})
	h.kill()
	h.start() // a crash and a replay say things, too
	h.listen()
	h.add("a token after the crash", h.token(key), "")
	h.tell("", "revoke", "key:"+key.ID, "--reason", "over", "--wait", "60s")
	h.ask("DELETE", "/v1/keys/"+key.ID, "Bearer "+h.operatorToken(), "", "")
	redisView := h.redis()
	h.stop()
	_, sent := seen.all()
	h.heard("traces", string(sent))
	h.search(redisView)
}

// live makes one of everything that is or has a secret.
func (h *hunt) live() (apiKey, apiKey) {
	h.t.Helper()
	operator, err := os.ReadFile(h.env["QUASH_KEY_FILE"])
	if err != nil {
		h.t.Fatal(err)
	}
	h.add("the operator's key", strings.TrimSpace(string(operator)), "operator.key")
	h.add("the operator's token", h.operatorToken(), "")
	key := h.newKey("alice", "--scope", "orders:read")
	h.add("an API key", key.Secret, "")
	tok := h.token(key)
	h.add("a token", tok, "")
	h.wantOrders(tok, http.StatusOK)
	var c struct {
		ID     string `json:"client_id"`
		Secret string `json:"client_secret"`
	}
	h.json(&c, "client", "create", "reports", "--grant", "client_credentials", "--scope", "orders:read")
	h.add("a client secret", c.Secret, "")
	form := "application/x-www-form-urlencoded"
	basic := "Basic " + base64.StdEncoding.EncodeToString([]byte(c.ID+":"+c.Secret))
	h.ask("POST", "/oauth/introspect", basic, form, "token="+tok)
	h.ask("POST", "/oauth/revoke", basic, form, "token="+tok)
	h.tell(key.Secret, "revoke", "-", "--reason", "leaked")
	key = h.newKey("alice", "--scope", "orders:read")
	h.add("another API key", key.Secret, "")
	tok = h.token(key)
	h.add("another token", tok, "")
	h.tell(tok, "check", "-")
	h.tell(tok, "token", "inspect", "-")
	h.tell(tok, "revoke", "-", "--reason", "leaked")
	h.tell("", "rotate", "signing-key", "--reason", "routine")
	h.tell("", "rotate", "signing-key", "--reason", "stolen", "--emergency")
	h.add("a token by the new key", h.token(key), "")
	for _, args := range [][]string{{h.newKey("carol").ID}, {"--self"}} {
		var next apiKey
		h.json(&next, append([]string{"key", "rotate", "--reason", "routine"}, args...)...)
		h.add("a key that was rotated to by "+args[0], next.Secret, "")
	}
	h.tell("", "key", "list", "-o", "json")
	h.tell("", "key", "show", key.ID, "-o", "json")
	h.tell("", "fleet", "-o", "json")
	h.tell("", "doctor")
	h.tell("", "hold", "principal:bob", "--reason", "r", "--for", "1h")
	h.tell("", "release", "principal:bob", "--reason", "r")
	return key, apiKey{c.ID, c.Secret}
}

// mistakes puts secrets everywhere where none belongs.
func (h *hunt) mistakes(key, client apiKey) {
	h.t.Helper()
	operator := "Bearer " + h.operatorToken()
	const kind = "application/json"
	form := "application/x-www-form-urlencoded"
	for _, name := range slices.Sorted(maps.Keys(h.secrets)) {
		s := h.secrets[name].text
		quoted, _ := json.Marshal(s)
		h.ask("GET", "/v1/keys", "Bearer "+s+"x", "", "")
		h.ask("GET", "/v1/keys", s, "", "")
		h.ask("GET", "/v1/keys?owner="+s, operator, "", "")
		h.ask("GET", "/v1/keys/"+s, operator, "", "")
		h.ask("DELETE", "/v1/keys/"+s, operator, "", "")
		h.ask("GET", "/v1/roles/"+s, operator, "", "")
		h.ask("GET", "/v1/revocations/"+s, operator, "", "")
		h.ask("GET", "/"+s, "", "", "")
		h.ask("POST", "/v1/keys", operator, kind, `{"owner":`+string(quoted)+`}`)
		h.ask("POST", "/v1/keys", operator, kind, `{"owner":"a","reason":`+string(quoted)+`}`)
		h.ask("POST", "/v1/keys", operator, kind, `{"owner":"a","scopes":[`+string(quoted)+`]}`)
		h.ask("POST", "/v1/keys", operator, kind, `{`+string(quoted)+`:1}`)
		h.ask("POST", "/v1/lookups", operator, kind, `{"secret":`+string(quoted[:len(quoted)-2])+`"}`)
		h.ask("POST", "/v1/lookups", operator, kind, `{"secret":`+string(quoted)+`}`)
		h.ask("POST", "/v1/keys/"+key.ID+"/rotate", operator, kind, `{"current":`+string(quoted)+`}`)
		h.ask("POST", "/v1/keys/"+key.ID+"/rotate", operator, kind, `{"overlap":`+string(quoted)+`}`)
		h.ask("POST", "/v1/roles", operator, kind, `{"name":`+string(quoted)+`,"scopes":[]}`)
		h.ask("POST", "/v1/bindings", operator, kind, `{"subject":`+string(quoted)+`,"role":"auditor"}`)
		h.ask("POST", "/v1/revocations", operator, kind, `{"op":"revoke","reason":"r","targets":[`+string(quoted)+`]}`)
		h.ask("POST", "/v1/revocations", operator, kind, `{"op":"revoke","reason":"r","targets":["key:`+s+`"]}`)
		h.ask("POST", "/v1/revocations", operator, kind, `{"op":"revoke","targets":["key:x"],"reason":`+string(quoted)+`}`)
		h.ask("POST", "/v1/rotations", operator, kind, `{"kind":"signing-key","reason":`+string(quoted)+`}`)
		h.ask("POST", "/v1/decisions", operator, kind, `{"token":`+string(quoted)+`}`)
		h.ask("POST", "/oauth/token?client_secret="+url.QueryEscape(s), "", form, "grant_type=client_credentials")
		h.ask("POST", "/oauth/token", "", form, "grant_type=client_credentials&client_id="+client.ID+"&client_secret="+url.QueryEscape(s+"x"))
		h.ask("POST", "/oauth/token", "", form, "grant_type="+url.QueryEscape(s))
		h.ask("POST", "/oauth/token", "Basic "+base64.StdEncoding.EncodeToString([]byte(s+":"+s)), form, "grant_type=client_credentials")
		h.ask("POST", "/oauth/token", "", form, exchange(s+"x").Encode())
		h.ask("POST", "/oauth/token", "", form, exchange(key.Secret).Encode()+"&scope="+url.QueryEscape(s))
		h.ask("POST", "/oauth/introspect", "", form, "token="+url.QueryEscape(s))
		h.tell(s+"x", "token", "--key-file", "-")
		h.tell(s, "check", "-")
		h.tell(s+"x", "revoke", "-", "--reason", "r")
		h.tell("", "revoke", "key:"+s, "--reason", "r")
	}
}

// privateKeys learns the private halves of everything that has one.
func (h *hunt) privateKeys() {
	h.t.Helper()
	js, err := jetstream.New(h.admin(identity.Control))
	if err != nil {
		h.t.Fatal(err)
	}
	bucket, err := js.KeyValue(h.t.Context(), signing.Bucket)
	if err != nil {
		h.t.Fatal(err)
	}
	e, err := bucket.Get(h.t.Context(), "default")
	if err != nil {
		h.t.Fatal(err)
	}
	var keys signing.Set
	if err := json.Unmarshal(e.Value(), &keys); err != nil {
		h.t.Fatal(err)
	}
	kek, err := seal.LoadKEK(filepath.Join(h.dir, "kek.json"))
	if err != nil {
		h.t.Fatal(err)
	}
	opened := 0
	for _, k := range keys.Keys {
		if k.Sealed == nil {
			continue
		}
		der, err := seal.Open(kek, *k.Sealed, seal.Context{KeyID: k.ID, Tenant: "default", Purpose: "signing-key", Version: 1})
		if err != nil {
			h.t.Fatal(err)
		}
		h.add("the private half of "+k.ID, string(private(h.t, der)), "")
		opened++
	}
	if opened == 0 {
		h.t.Fatal("no signing key is sealed")
	}
	text, err := os.ReadFile(filepath.Join(h.dir, "rotator.pem"))
	if err != nil {
		h.t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		h.t.Fatal("rotator.pem has no PEM block")
	}
	h.add("the rotator's identity key", string(private(h.t, block.Bytes)), "rotator.pem")
	h.add("the rotator's identity key as it is kept", string(bytes.Split(text, []byte("\n"))[1]), "rotator.pem")
	for name, what := range map[string]string{"kek.json": "the key-encryption key", "proof-kek.json": "the key-encryption key of receipts"} {
		raw, err := os.ReadFile(filepath.Join(h.dir, name))
		if err != nil {
			h.t.Fatal(err)
		}
		value := regexp.MustCompile(`"value":\s*"([^"]+)"`).FindSubmatch(raw)
		if value == nil {
			h.t.Fatalf("%s has no key", name)
		}
		h.add(what, string(value[1]), name)
	}
	h.seeds()
}

// seeds adds the private halves of all NATS identities.
func (h *hunt) seeds() {
	h.t.Helper()
	seed := regexp.MustCompile(`\bS[AOU][A-Z2-7]{56}\b`)
	n := 0
	err := filepath.WalkDir(filepath.Join(h.dir, "nats"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		name, _ := filepath.Rel(h.dir, path)
		for _, text := range seed.FindAllString(string(data), -1) {
			n++
			h.add("the seed in "+name, text, filepath.ToSlash(name))
		}
		return err
	})
	if err != nil || n < 5 {
		h.t.Fatalf("%d seeds of NATS identities, %v", n, err)
	}
}

// private returns the bytes that make a private key.
func private(t testing.TB, der []byte) []byte {
	t.Helper()
	k, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		t.Fatal(err)
	}
	switch k := k.(type) {
	case *ecdsa.PrivateKey:
		b, err := k.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		return b
	case ed25519.PrivateKey:
		return k.Seed()
	}
	t.Fatalf("a private key of type %T", k)
	return nil
}

// commandLines adds arguments and environment of the process to what was said.
func (h *hunt) commandLines() {
	h.t.Helper()
	for _, name := range []string{"cmdline", "environ"} {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", h.cmd.Process.Pid, name))
		if err != nil {
			h.t.Fatal(err)
		}
		h.heard(name, string(data))
	}
}

// redis returns all that is in the Redis view.
func (h *hunt) redis() string {
	h.t.Helper()
	var settings struct {
		Password string `json:"redis_writer"`
	}
	data, err := os.ReadFile(filepath.Join(h.dir, "dev.json"))
	if err == nil {
		err = json.Unmarshal(data, &settings)
	}
	if err != nil {
		h.t.Fatal(err)
	}
	h.add("the password of the Redis writer", settings.Password, "dev.json")
	options, err := redis.ParseURL(h.env["QUASH_REDIS_URL"])
	if err != nil {
		h.t.Fatal(err)
	}
	h.add("the password of the Redis reader", options.Password, "dev.json dev.env")
	options.Username, options.Password, options.DisableIdentity = engine.RedisWriter, settings.Password, true
	c := redis.NewClient(options)
	defer c.Close()
	keys, err := c.Keys(context.Background(), "*").Result()
	if err != nil || len(keys) < 2 {
		h.t.Fatalf("Redis: keys %q, %v", keys, err)
	}
	var out strings.Builder
	for _, k := range keys {
		v, err := c.Get(context.Background(), k).Result()
		if err != nil {
			h.t.Fatal(err)
		}
		out.WriteString(k + " " + v + "\n")
	}
	return out.String()
}
