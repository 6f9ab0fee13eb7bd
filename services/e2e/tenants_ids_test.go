package e2e

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
)

// ownOf is what a request's answer has of its own.
var ownOf = regexp.MustCompile(`"request_id":"[^"]*"|\(request [0-9a-f]+\)`)

// TestIDsOfOneTenantAreNothingInAnother: whatever of acme is named in globex, in a path or a
// body, is answered as what there never was.
func TestIDsOfOneTenantAreNothingInAnother(t *testing.T) {
	s := inProcess(t)
	a, b := s.newTenant("acme"), s.newTenant("globex")
	var made struct {
		ID       string
		Client   string `json:"client_id"`
		SecretID string `json:"secret_id"`
	}
	make := func(path, body string) {
		t.Helper()
		made.ID = ""
		r := a.send(http.MethodPost, path, body)
		if s.decode(r, r.status, &made); r.status/100 != 2 {
			t.Fatalf("POST %s: %d %s", path, r.status, r.body)
		}
	}
	ids := map[string][2]string{} // of acme's, and one that nobody has
	key := a.newKey("alice")
	ids["KEY"] = [2]string{key.ID, strings.Repeat("A", 22)}
	make("/v1/clients", `{"name":"n","grants":["client_credentials"]}`)
	ids["CLIENT"] = [2]string{made.Client, "client_" + strings.Repeat("E", 22)}
	ids["SECRET"] = [2]string{made.SecretID, strings.Repeat("B", 22)}
	make("/v1/roles", `{"name":"clerk","scopes":["a"]}`)
	ids["ROLE"] = [2]string{"clerk", "porter"}
	make("/v1/principals", `{"id":"carla"}`)
	ids["PERSON"] = [2]string{"carla", "celia"}
	make("/v1/revocations", `{"op":"hold","targets":["principal:carla"],"reason":"r"}`)
	ids["CUT"] = [2]string{made.ID, strings.Repeat("C", len(made.ID))}
	make("/v1/incidents", `{"title":"t"}`)
	ids["INCIDENT"] = [2]string{made.ID, made.ID[:len(made.ID)-1] + "x"}
	make("/v1/rotations", `{"kind":"signing-key","reason":"r"}`)
	ids["ROTATION"] = [2]string{made.ID, strings.Repeat("D", len(made.ID))}
	eventually(t, "acme has its receipt", func() error {
		return wants(a.send(http.MethodGet, "/v1/receipts/"+ids["CUT"][0], ""), http.StatusOK)
	})

	const why = `{"reason":"r"}`
	for _, c := range []struct{ method, path, body string }{
		{"GET", "/v1/keys/KEY", ""},
		{"DELETE", "/v1/keys/KEY", ""},
		{"POST", "/v1/keys/KEY/disable", why},
		{"POST", "/v1/keys/KEY/enable", why},
		{"POST", "/v1/keys/KEY/renew", why},
		{"POST", "/v1/keys/KEY/rotate", why},
		{"POST", "/v1/keys/KEY/rotation", `{"overlap":"1h"}`},
		{"POST", "/v1/keys/KEY/rollback", why},
		{"PUT", "/v1/keys/KEY/recipient", `{"recipient":""}`},
		{"POST", "/v1/keys/KEY/delivery", why},
		{"GET", "/v1/keys/SECRET", ""},
		{"POST", "/v1/keys/SECRET/disable", why},
		{"POST", "/v1/keys/SECRET/renew", why},
		{"POST", "/v1/keys/SECRET/rotate", why},
		{"GET", "/v1/clients/CLIENT", ""},
		{"DELETE", "/v1/clients/CLIENT", ""},
		{"POST", "/v1/clients/CLIENT/secrets", `{}`},
		{"POST", "/v1/keys", `{"owner":"bob","client_id":"CLIENT"}`},
		{"POST", "/v1/keys", `{"owner":"bob","roles":["ROLE"]}`},
		{"POST", "/v1/bindings", `{"subject":"CLIENT","role":"viewer"}`},
		{"POST", "/v1/bindings", `{"subject":"key_KEY","role":"viewer"}`},
		{"POST", "/v1/bindings", `{"subject":"bob","role":"ROLE"}`},
		{"GET", "/v1/abilities?subject=CLIENT&scope=a", ""},
		{"GET", "/v1/abilities?subject=key_KEY&scope=a", ""},
		{"GET", "/v1/abilities?subject=PERSON&scope=a", ""},
		{"GET", "/v1/roles/ROLE", ""},
		{"PUT", "/v1/roles/ROLE", `{"scopes":["b"]}`},
		{"DELETE", "/v1/roles/ROLE", ""},
		{"POST", "/v1/roles/ROLE/renew", why},
		{"GET", "/v1/principals/PERSON", ""},
		{"DELETE", "/v1/principals/PERSON", ""},
		{"GET", "/v1/keys?client_id=CLIENT", ""},
		{"GET", "/v1/keys?owner=PERSON", ""},
		{"GET", "/v1/revocations/CUT", ""},
		{"GET", "/v1/receipts/CUT", ""},
		{"GET", "/v1/receipts/CUT/attempts", ""},
		{"GET", "/v1/pending/CUT", ""},
		{"POST", "/v1/pending/CUT/approve", `{}`},
		{"POST", "/v1/revocations", `{"op":"release","of":"CUT","targets":["principal:nobody"],"reason":"r"}`},
		{"GET", "/v1/incidents/INCIDENT", ""},
		{"POST", "/v1/incidents/INCIDENT/notes", `{"text":"x"}`},
		{"POST", "/v1/incidents/INCIDENT/close", `{}`},
		{"GET", "/v1/incidents/INCIDENT/report", ""},
		{"GET", "/v1/rotations/ROTATION", ""},
	} {
		asked := [2]reply{}
		said := [2]string{}
		for i := range asked {
			path, body := c.path, c.body
			for name, pair := range ids {
				path, body = strings.ReplaceAll(path, name, pair[i]), strings.ReplaceAll(body, name, pair[i])
			}
			asked[i] = b.send(c.method, path, body)
			said[i] = ownOf.ReplaceAllString(string(asked[i].body), "")
			for name, pair := range ids {
				said[i] = strings.ReplaceAll(said[i], pair[i], name)
			}
		}
		if asked[0].status != asked[1].status || asked[0].status == http.StatusInternalServerError || said[0] != said[1] {
			t.Errorf("%s %s %s by globex: of acme's %d %s\nof nobody's %d %s", c.method, c.path, c.body, asked[0].status, said[0], asked[1].status, said[1])
		}
	}

	// And so are its tokens, at the other one's endpoints.
	tok, err := a.exchange(key.Secret)
	if err != nil {
		t.Fatal(err)
	}
	var other struct {
		ID     string `json:"client_id"`
		Secret string `json:"client_secret"`
	}
	s.decode(b.send(http.MethodPost, "/v1/clients", `{"name":"n","grants":["client_credentials"],"serves":["`+s.url+`"]}`), http.StatusCreated, &other)
	as := url.Values{"token": {tok}, "client_id": {other.ID}, "client_secret": {other.Secret}}
	if r := s.form("/t/globex/oauth/introspect", as); r.status != http.StatusOK || strings.TrimSpace(string(r.body)) != `{"active":false}` {
		t.Errorf("introspection of acme's token by globex: %d %s", r.status, r.body)
	}
	if r := s.form("/t/globex/oauth/revoke", as); r.status != http.StatusOK {
		t.Errorf("revocation of acme's token by globex: %d %s", r.status, r.body)
	}
	for _, left := range []string{"/v1/keys/" + key.ID, "/v1/clients/" + ids["CLIENT"][0], "/v1/roles/clerk", "/v1/principals/carla", "/v1/incidents/" + ids["INCIDENT"][0]} {
		if err := wants(a.send(http.MethodGet, left, ""), http.StatusOK); err != nil {
			t.Errorf("afterwards %s: %v", left, err)
		}
	}
}

// wants is nil if a reply has the status.
func wants(r reply, status int) error {
	if r.status != status {
		return fmt.Errorf("status %d, want %d: %s", r.status, status, r.body)
	}
	return nil
}
