package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"go.uber.org/zap"

	"github.com/quash-project/quash/services/demo"
	"github.com/quash-project/quash/shared/guard"
)

// exchanged is a request as it came in and its answer.
type exchanged struct {
	request *http.Request
	body    []byte
	reply   reply
}

// recorder keeps all that passes a proxy.
type recorder struct {
	mu   sync.Mutex
	seen []exchanged
}

// RoundTrip implements http.RoundTripper.
func (r *recorder) RoundTrip(req *http.Request) (*http.Response, error) {
	var sent []byte
	if req.Body != nil { // the proxy takes an empty one away
		var err error
		if sent, err = io.ReadAll(req.Body); err != nil {
			return nil, err
		}
		req.Body = io.NopCloser(bytes.NewReader(sent))
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(got))
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen = append(r.seen, exchanged{req.Clone(req.Context()), sent, reply{resp.StatusCode, resp.Header.Clone(), got}})
	return resp, nil
}

// take returns what has passed since it was last asked.
func (r *recorder) take() []exchanged {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.seen
	r.seen = nil
	return out
}

// recorded puts a proxy before the services that keeps what passes.
func (s *services) recorded() (at string, r *recorder) {
	s.t.Helper()
	to, err := url.Parse(s.url)
	if err != nil {
		s.t.Fatal(err)
	}
	r = &recorder{}
	srv := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) { p.SetURL(to) }, Transport: r})
	s.t.Cleanup(srv.Close)
	return srv.URL, r
}

// keyDemo is the demo server with keys, as docs/postman.md has the reader start it.
func (s *services) keyDemo() string {
	s.t.Helper()
	g := s.guard(guard.WithNATS(s.nats.URL, s.nats.Creds(s.t, "demo")), guard.WithExchange(guard.Exchange{}))
	g.ready()
	srv := httptest.NewServer(demo.Handler(g, zap.NewNop(), nil))
	s.t.Cleanup(srv.Close)
	return srv.URL
}

// reader is who follows docs/postman.md: a directory with the files that it names, and
// the lines to run there.
type reader struct{ dir, script, path string }

func newReader(t *testing.T, at, operatorKey, api string) reader {
	t.Helper()
	doc, err := os.ReadFile("../../docs/postman.md")
	if err != nil {
		t.Fatal(err)
	}
	tools, err := node()
	if err != nil {
		t.Fatal(err)
	}
	script := block(t, string(doc), "write an environment", "sh")
	const told = "http://127.0.0.1:8422"
	if strings.Count(script, told) != 1 {
		t.Fatalf("docs/postman.md does not name the resource server at %s once", told)
	}
	r := reader{dir: t.TempDir(), script: strings.Replace(script, told, api, 1), path: filepath.Join(tools, "node_modules", ".bin")}
	for _, name := range []string{".quash", "schemas"} {
		if err := os.Mkdir(filepath.Join(r.dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	const collection = "schemas/quash.postman_collection.json"
	text, err := os.ReadFile(filepath.Join("..", "..", collection))
	if err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(r.dir, "operator.key")
	for name, text := range map[string]string{
		filepath.Join(r.dir, collection): string(text), key: operatorKey + "\n",
		filepath.Join(r.dir, ".quash", "dev.env"): fmt.Sprintf("QUASH_URL='%s'\nQUASH_KEY_FILE='%s'\n", at, key),
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

var assertions = regexp.MustCompile(`assertions │ +(\d+) │ +(\d+) │`)

// run pastes the lines, which must succeed, and returns what newman printed.
func (r reader) run(t *testing.T) string {
	t.Helper()
	out, code := runNode(t, strings.NewReader("cd '"+r.dir+"'\n"+r.script),
		[]string{"PATH=" + r.path + string(os.PathListSeparator) + os.Getenv("PATH")}, "sh", "-e")
	n := assertions.FindStringSubmatch(out)
	if code != 0 || n == nil || n[2] != "0" {
		t.Fatalf("newman: exit code %d, assertions %q:\n%s", code, n, tail(out, 8000))
	}
	if made, err := strconv.Atoi(n[1]); err != nil || made < 100 {
		t.Errorf("%s assertions: are the scripts run?", n[1])
	}
	if i, err := os.Stat(filepath.Join(r.dir, ".quash", "postman.json")); err != nil || i.Mode().Perm() != 0o600 {
		t.Errorf("the environment: %v, mode %v, want 0600", err, i.Mode())
	}
	return out
}

// TestPostmanCollectionCallsEveryOperation as docs/postman.md says, and again against the
// same Quash. Every answer is what the document says.
func TestPostmanCollectionCallsEveryOperation(t *testing.T) {
	t.Parallel()
	c := newContract(t)
	at, passed := c.recorded()
	api := c.keyDemo()
	r := newReader(t, at, c.operator, api)
	for round := range 2 {
		c.accepts(api)
		c.seen = map[string]bool{}
		out := r.run(t)
		secrets := []string{c.operator}
		for _, x := range passed.take() {
			c.holds(fmt.Sprintf("run %d: %s %s", round+1, x.request.Method, x.request.URL.Path), x.again(), x.reply)
			secrets = append(secrets, secretsIn(x.reply.body)...)
		}
		// The collection is for quash dev, where nothing waits for a second person; and no schedule
		// fires while it runs, so that no secret waits for its owner.
		waits := func(op string) bool {
			return strings.Contains(op, "/v1/pending/{id}") || strings.HasSuffix(op, "/delivery")
		}
		if l := slices.DeleteFunc(c.lacking(), waits); len(l) > 0 {
			t.Errorf("run %d: no success was seen of %q", round+1, l)
		}
		if len(secrets) < 8 {
			t.Fatalf("only %d secrets were seen", len(secrets))
		}
		for _, secret := range secrets {
			for _, form := range forms(secret) {
				if bytes.Contains([]byte(out), form) {
					t.Errorf("run %d: newman printed a secret", round+1)
				}
			}
		}
	}
}

// accepts waits until tokens are taken, by the services and by the resource server: after
// a new epoch everybody joins again.
func (c *contract) accepts(api string) {
	c.t.Helper()
	eventually(c.t, "the services accept tokens", func() error {
		var tok struct {
			AccessToken string `json:"access_token"`
		}
		if r := c.form("/oauth/token", exchange(c.operator)); json.Unmarshal(r.body, &tok) != nil || r.status != http.StatusOK {
			return fmt.Errorf("POST /oauth/token: status %d", r.status)
		}
		for _, path := range []string{"/v1/fleet", "/v1/signing-keys", "/v1/keys"} {
			if r := c.api(tok.AccessToken, "GET", path, nil); r.status != http.StatusOK {
				return fmt.Errorf("GET %s: status %d", path, r.status)
			}
		}
		resp, err := http.Get(api + "/healthz")
		if err != nil {
			return err
		}
		if err := resp.Body.Close(); err != nil || resp.StatusCode != http.StatusOK {
			return fmt.Errorf("the resource server: status %d, %w", resp.StatusCode, err)
		}
		return nil
	})
}

// again is the request, to be read once more.
func (x exchanged) again() *http.Request {
	r := x.request
	r.Body = io.NopCloser(bytes.NewReader(x.body))
	return r
}

// secretsIn are the credentials in an answer.
func secretsIn(body []byte) (out []string) {
	var members map[string]json.RawMessage
	if json.Unmarshal(body, &members) != nil {
		return nil
	}
	for name, value := range members {
		var secret string
		switch name {
		case "secret", "client_secret", "access_token":
			if json.Unmarshal(value, &secret) == nil {
				out = append(out, secret)
			}
		default:
			out = append(out, secretsIn(value)...)
		}
	}
	return out
}
