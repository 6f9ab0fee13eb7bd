package app_test

import (
	"bytes"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/identity"
	"github.com/quash-project/quash/shared/seal"
	"github.com/quash-project/quash/shared/signing"
)

// TestSecretsAreSeenOnce does what there is to do, rightly and wrongly, and then
// looks for every secret in everything that was written: log lines, all messages
// of all streams, and the bytes of the store's files.
func TestSecretsAreSeenOnce(t *testing.T) {
	w := newWorld(t)
	k := w.newKey(map[string]any{"owner": "alice", "scopes": []string{"a"}, "name": "n"})
	c := w.newClient(map[string]any{"name": "app", "grants": []string{"client_credentials"}, "scopes": []string{"a"}})
	tok := w.token(k.Secret).AccessToken
	secrets := map[string]string{"operator's key": w.operator, "key": k.Secret, "client secret": c.Secret, "token": tok}
	form := url.Values{"grant_type": {"client_credentials"}}
	w.post("/oauth/token", form, c.ID, c.Secret)
	w.post("/oauth/token", form, c.ID+"x", c.Secret)
	w.post("/oauth/token", form, c.ID, c.Secret+"x")
	w.post("/oauth/token", exchangeForm(k.Secret+"0"))
	w.post("/oauth/token", exchangeForm(k.Secret, "scope", "nothing"))
	w.post("/oauth/token?subject_token="+k.Secret, exchangeForm(k.Secret))
	w.api(k.Secret, "GET", "/v1/keys", nil)
	w.api(tok, "GET", "/v1/keys?owner="+k.Secret, nil)
	operator := w.token(w.operator).AccessToken
	w.api(operator, "POST", "/v1/lookups", map[string]any{"secret": k.Secret + "!"})
	w.api(operator, "POST", "/v1/keys", map[string]any{"owner": "a", k.Secret: 1})
	w.api(operator, "POST", "/v1/keys", k.Secret)
	w.must(http.StatusOK, "POST", "/v1/lookups", map[string]any{"secret": k.Secret}, nil)
	w.post("/oauth/introspect", url.Values{"token": {tok}}, c.ID, c.Secret)
	w.post("/oauth/revoke", url.Values{"token": {tok}}, k.ClientID, k.Secret)
	w.must(http.StatusOK, "DELETE", "/v1/keys/"+k.ID, nil, nil)
	w.stopLog()
	w.post("/oauth/revoke", url.Values{"token": {w.token(w.operator).AccessToken}}, "key_x", w.operator)

	var written bytes.Buffer
	written.WriteString(w.logs.text())
	for _, account := range []string{identity.Log, identity.Control} {
		dumpStreams(t, w.nats.Admin(t, account), &written)
	}
	w.stopApp()
	w.nats.Stop()
	err := filepath.WalkDir(filepath.Join(w.nats.Dir, "jetstream"), func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		written.Write(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(written.String(), k.ID) || written.Len() < 10_000 {
		t.Fatalf("%d bytes were looked through, and the key's id is not there: the test looks in the wrong place", written.Len())
	}
	for name, secret := range secrets {
		// The last part of a token is its signature; of ours, the random part.
		for _, part := range []string{secret, secret[len(secret)-40:]} {
			if bytes.Contains(written.Bytes(), []byte(part)) {
				t.Errorf("the %s was written", name)
			}
		}
	}
	st, err := os.Stat(w.cfg.OperatorKeyFile)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("operator's key file: %v, %v", st.Mode(), err)
	}
}

func dumpStreams(t *testing.T, nc *nats.Conn, into *bytes.Buffer) {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	for name := range js.StreamNames(t.Context()).Name() {
		s, err := js.Stream(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		for seq, last := uint64(1), s.CachedInfo().State.LastSeq; seq <= last; seq++ {
			m, err := s.GetMsg(t.Context(), seq)
			if err != nil {
				continue // it has left
			}
			into.WriteString(m.Subject + "\n")
			for k, v := range m.Header {
				into.WriteString(k + ": " + strings.Join(v, ",") + "\n")
			}
			into.Write(m.Data)
		}
	}
}

func TestRestartGoesOnWhereItWas(t *testing.T) {
	w := newWorld(t)
	k := w.newKey(map[string]any{"owner": "alice", "scopes": []string{"a"}})
	before, err := seal.ReadSecretFile(w.cfg.OperatorKeyFile)
	if err != nil {
		t.Fatal(err)
	}
	w.stopApp()
	if err := os.Remove(w.cfg.OperatorKeyFile); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	w.startApp()
	t.Logf("ready after %v", time.Since(begin))
	if _, err := os.Stat(w.cfg.OperatorKeyFile); err == nil {
		t.Error("an installation that is not empty made another operator's key")
	}
	w.token(k.Secret)
	w.token(strings.TrimSpace(string(before)))
	var keys struct{ Items []madeKey }
	w.must(http.StatusOK, "GET", "/v1/keys", nil, &keys)
	if len(keys.Items) != 2 {
		t.Errorf("%d keys", len(keys.Items))
	}
}

func TestBrokerAwayForAWhile(t *testing.T) {
	w := newWorld(t)
	k := w.newKey(map[string]any{"owner": "alice", "scopes": []string{"a"}})
	w.nats.Stop()
	tok := w.operator
	if a := w.post("/oauth/token", exchangeForm(tok)); a.status == http.StatusOK {
		// Within its limit it goes on: it writes nothing, and its view is that fresh.
		var answerTok tokenAnswer
		a.json(t, &answerTok)
		b := w.api(answerTok.AccessToken, "DELETE", "/v1/keys/"+k.ID, nil)
		if b.status != http.StatusServiceUnavailable || b.header.Get("Retry-After") == "" {
			t.Errorf("delete without a broker: %d %s", b.status, b.body)
		}
	}
	w.nats.Start(t)
	eventually(t, "it works again", func() bool {
		return w.app.Ready() == nil && w.post("/oauth/token", exchangeForm(k.Secret)).status == http.StatusOK
	})
	eventually(t, "records can be written", func() bool {
		return w.api(w.token(w.operator).AccessToken, "DELETE", "/v1/keys/"+k.ID, nil).status == http.StatusOK
	})
}

// TestEnginesMayComeInAnyOrder starts the issuer before there is a log or a
// signing key: it answers 503, says what it waits for, and goes on by itself.
func TestEnginesMayComeInAnyOrder(t *testing.T) {
	w := &world{t: t, nats: enginetest.NATS(t), logs: &logs{}}
	w.configure()
	w.launchApp()
	for _, path := range []string{"/oauth/token", "/oauth/jwks"} {
		a := w.post(path, exchangeForm("quash_key_00000000000000000000000000000000000000000004b914W"))
		if path == "/oauth/jwks" {
			req, _ := http.NewRequest("GET", w.http.URL+path, nil)
			a = w.do(req)
		}
		if a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	err := w.app.Ready()
	if err == nil || !strings.Contains(err.Error(), "signing keys") || !strings.Contains(err.Error(), "log") {
		t.Errorf("it waits for: %v", err)
	}
	w.startLog()
	w.makeSigningKey(signing.ES256)
	enginetest.Eventually(t, "the issuer is ready", w.app.Ready)
	w.readOperator()
	w.token(w.operator)
}
