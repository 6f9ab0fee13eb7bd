package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	issuerapp "github.com/quash-project/quash/services/issuer/app"
	"github.com/quash-project/quash/services/revocation"
	revocationapp "github.com/quash-project/quash/services/revocation/app"
	"github.com/quash-project/quash/services/revocation/redisview"
	"github.com/quash-project/quash/services/rotator"
	rotatorapp "github.com/quash-project/quash/services/rotator/app"
	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/httpapi"
	"github.com/quash-project/quash/shared/identity"
	"github.com/quash-project/quash/shared/seal"
	"github.com/quash-project/quash/shared/signing"
)

// services are the three services in this process, under one URL, on a real
// nats-server: for tests that send a great many requests, and look into the
// streams between two of them.
type services struct {
	t        testing.TB
	nats     *enginetest.NATSServer
	url      string
	operator string // the first operator's API key
	other    string // the API key of a second person, once there is one; see waits
	trust    []string
	kek      string // file of the key-encryption key
	identity string // file of the rotator's identity key
	log      *logBuffer
	ends     []func()
	byName   map[string]func()       // what ends one of them
	each     map[string]http.Handler // of each service alone
}

// setting is what a test can change of them.
type setting struct {
	redis   *enginetest.RedisServer     // nil: there is no Redis view
	now     map[string]func() time.Time // clocks by service; time.Now where there is none
	canary  time.Duration               // how often revocation is measured; 0: never
	lead    bool                        // rotations wait for readers of the JWKS URL
	second  revocationapp.SecondPerson  // its mode is never where it says nothing
	proxies []string                    // whose word on whom they ask for the issuer takes
}

// service is what the three have in common.
type service interface {
	Handler() http.Handler
	Run(ctx context.Context) error
	Ready() error
}

// inProcess starts them and waits until they are ready.
func inProcess(t testing.TB, changes ...func(*setting)) *services {
	t.Helper()
	var set setting
	for _, change := range changes {
		change(&set)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &services{t: t, nats: enginetest.NATS(t), url: "http://" + l.Addr().String(), log: &logBuffer{}}
	log := zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(s.log), zap.DebugLevel))
	dir := t.TempDir()
	kek, private, operator := filepath.Join(dir, "kek"), filepath.Join(dir, "identity"), filepath.Join(dir, "operator")
	if err := seal.CreateKEK(kek); err != nil {
		t.Fatal(err)
	}
	s.kek, s.identity = kek, private
	public, err := rotator.CreateIdentity(private, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s.trust = []string{signing.TrustString(public)}

	deps := revocationapp.Deps{
		Log: log.Named("revocation"), NATS: s.nats.Dial(t, identity.Revocation), Control: s.nats.Dial(t, identity.ControlReader),
		Now: set.now[identity.Revocation],
	}
	if set.redis != nil {
		if deps.Redis, err = redisview.ConnectURL("redis://" + set.redis.Addr); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = deps.Redis.Close() })
	}
	if set.second.Mode == "" {
		set.second.Mode = revocation.SecondNever
	}
	rev, err := revocationapp.New(t.Context(), revocationapp.Config{
		URL: s.url, Trust: s.trust, SyncAlways: true, ProofKEKFile: enginetest.KEK(t), SecondPerson: set.second,
	}, deps)
	if err != nil {
		t.Fatal(err)
	}
	rot, err := rotatorapp.New(t.Context(), rotatorapp.Config{Issuer: s.url, IdentityFile: private, KEKFile: kek, NoLead: !set.lead},
		rotatorapp.Deps{Log: log.Named("rotator"), NATS: s.nats.Dial(t, identity.Rotator), Now: set.now[identity.Rotator]})
	if err != nil {
		t.Fatal(err)
	}
	iss, err := issuerapp.New(t.Context(), issuerapp.Config{URL: s.url, Trust: s.trust, KEKFile: kek, OperatorKeyFile: operator, Canary: set.canary, TrustedProxies: set.proxies},
		issuerapp.Deps{Log: log.Named("issuer"), NATS: s.nats.Dial(t, identity.Issuer), Now: set.now[identity.Issuer]})
	if err != nil {
		t.Fatal(err)
	}
	for name, one := range map[string]service{"revocation": rev, "rotator": rot, "issuer": iss} {
		s.run(name, one)
	}
	s.each = map[string]http.Handler{identity.Revocation: rev.Handler(), identity.Rotator: rot.Handler(), identity.Issuer: iss.Handler()}
	s.serve(l, rev.Handler(), rot.Handler(), iss.Handler())
	for name, one := range map[string]service{"revocation": rev, "rotator": rot, "issuer": iss} {
		eventually(t, name+" is ready", one.Ready)
	}
	key, err := seal.ReadSecretFile(operator)
	if err != nil {
		t.Fatal(err)
	}
	s.operator = strings.TrimSpace(string(key))
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of the services:\n%s", tail(s.log.String(), 4000))
		}
	})
	return s
}

func (s *services) run(name string, one service) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- one.Run(ctx) }()
	end := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			s.t.Errorf("%s: %v", name, err)
		}
	})
	s.ends = append(s.ends, end)
	if s.byName == nil {
		s.byName = map[string]func(){}
	}
	s.byName[name] = end
	s.t.Cleanup(end)
}

// stop ends all three; the engines go on.
func (s *services) stop() {
	for _, end := range s.ends {
		end()
	}
}

// serve puts the services under one URL, as quash dev does.
func (s *services) serve(l net.Listener, rev, rot, iss http.Handler) {
	mux := http.NewServeMux()
	for _, path := range []string{"/v1/revocations", "/v1/revocations/", "/v1/previews", "/v1/pending", "/v1/pending/", "/v1/receipts", "/v1/receipts/", "/v1/incidents", "/v1/incidents/", "/v1/fleet", "/v1/fleet/", "/v1/decisions", "/v1/feed", "/v1/epochs", "/v1/audit", "/v1/audit/", "/v1/slo", "/openapi/revocation.json"} {
		mux.Handle(path, rev)
	}
	for _, path := range []string{"/v1/rotations", "/v1/rotations/", "/v1/schedules", "/v1/schedules/", "/v1/signing-keys", "/openapi/rotator.json"} {
		mux.Handle(path, rot)
	}
	mux.Handle("/", iss)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !httpapi.IsClean(r) { // the mux would redirect it
			iss.ServeHTTP(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	}))
	_ = srv.Listener.Close()
	srv.Listener = l
	srv.Start()
	s.t.Cleanup(srv.Close)
}

// reply is what came back.
type reply struct {
	status int
	header http.Header
	body   []byte
}

// send sends a request; headers are pairs. An empty value takes a header away.
func (s *services) send(method, path, body string, headers ...string) reply {
	s.t.Helper()
	req, err := http.NewRequest(method, s.url+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	return s.do(req)
}

func (s *services) do(req *http.Request) reply {
	s.t.Helper()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatalf("%s %.200s: %v", req.Method, req.URL, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return reply{resp.StatusCode, resp.Header, body}
}

// form sends a form to an OAuth endpoint.
func (s *services) form(path string, f url.Values, headers ...string) reply {
	s.t.Helper()
	return s.send(http.MethodPost, path, f.Encode(), append([]string{"Content-Type", "application/x-www-form-urlencoded"}, headers...)...)
}

// token exchanges an API key, which must succeed.
func (s *services) token(secret string) string {
	s.t.Helper()
	r := s.form("/oauth/token", exchange(secret))
	var tok struct {
		AccessToken string `json:"access_token"`
	}
	s.decode(r, http.StatusOK, &tok)
	return tok.AccessToken
}

func exchange(secret string) url.Values {
	return url.Values{
		"grant_type":         {"urn:ietf:params:oauth:grant-type:token-exchange"},
		"subject_token_type": {"urn:quash:token-type:api-key"},
		"subject_token":      {secret},
	}
}

func (s *services) decode(r reply, want int, into any) {
	s.t.Helper()
	if r.status != want {
		s.t.Fatalf("status %d, want %d: %.500s", r.status, want, r.body)
	}
	if err := json.Unmarshal(r.body, into); err != nil {
		s.t.Fatalf("%v in %.500s", err, r.body)
	}
}

// api calls a management API with a token and a body, which may be nil.
func (s *services) api(token, method, path string, body any, headers ...string) reply {
	s.t.Helper()
	var text []byte
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			s.t.Fatal(err)
		}
		headers = append(headers, "Content-Type", "application/json")
	}
	return s.send(method, path, string(bytes.TrimSpace(text)), append(headers, "Authorization", "Bearer "+token)...)
}
