package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// tried is one line of quash receipt attempts.
type tried struct {
	Server, Instance, Network, Target string
	Count                             int
}

// TestTheThiefIsStillThere: a key is cut; who tries with it at the issuer, and with its
// token at a resource server, is told with the receipt, and once by the feed. Nothing
// secret is in any of it.
func TestTheThiefIsStillThere(t *testing.T) {
	q := start(t, t.TempDir())
	k := q.newKey("mallory", "--scope", "orders:read")
	tok := q.token(k)
	q.wantOrders(tok, http.StatusOK)
	cut := q.revoke("key:" + k.ID)
	var none struct{ Items []tried }
	if q.json(&none, "receipt", "attempts", cut.ID); len(none.Items) != 0 {
		t.Errorf("before anybody tries: %+v", none.Items)
	}
	for range 3 {
		q.wantOrders(tok, http.StatusUnauthorized)
	}
	for range 2 {
		if _, status := q.tryExchange(k.Secret); status == http.StatusOK {
			t.Fatal("a revoked key is exchanged")
		}
	}
	want := map[string]int{"demo": 3, "issuer": 2}
	eventually(t, "both servers tell", func() error {
		var l struct{ Items []tried }
		q.json(&l, "receipt", "attempts", cut.ID)
		sums := map[string]int{} // of all replicas: demo-1 and demo-2 are the demo
		for _, x := range l.Items {
			if x.Network != "127.0.0.1" || x.Target != "key:"+k.ID || x.Instance == "" {
				t.Errorf("%+v", x)
			}
			server, _, _ := strings.Cut(x.Server, "-")
			sums[server] += x.Count
		}
		if !maps.Equal(sums, want) {
			return fmt.Errorf("%v, want %v", sums, want)
		}
		return nil
	})
	out := q.ok("receipt", "attempts", cut.ID) + q.ok("receipt", "attempts", cut.ID, "-o", "yaml")
	said := []string{"NETWORK", "127.0.0.1", "issuer", "first_seen"}
	if log, err := os.ReadFile(filepath.Join(q.dir, "quash.log")); err == nil { // of quash dev alone
		out += string(log)
		said = append(said, "somebody tries with what was revoked")
	}
	for _, said := range said {
		if !strings.Contains(out, said) {
			t.Errorf("it does not say %q:\n%.2000s", said, out)
		}
	}
	for _, secret := range []string{k.Secret, tok, tok[strings.LastIndexByte(tok, '.')+1:]} {
		if strings.Contains(out, secret) {
			t.Error("a secret is shown")
		}
	}
	if r := q.run("", "receipt", "attempts", strings.Repeat("A", 43)); r.code != 1 {
		t.Errorf("of no receipt: exit code %d\n%s%s", r.code, r.out, r.err)
	}
}

// twoAttempts cuts two keys at once and tries with each; it returns the id of the receipt.
func (c *contract) twoAttempts(by []string) string {
	c.t.Helper()
	var targets, secrets []string
	for range 2 {
		var k apiKey
		c.decode(c.check(call{method: "POST", path: "/v1/keys", body: map[string]any{"owner": "mallory"}, header: by, want: 201}), 201, &k)
		targets, secrets = append(targets, "key:"+k.ID), append(secrets, k.Secret)
	}
	var cut struct{ ID string }
	body := map[string]any{"op": "revoke", "targets": targets, "reason": "test"}
	c.decode(c.check(call{method: "POST", path: "/v1/revocations?wait=10s", body: body, header: by, want: 201}), 201, &cut)
	for _, secret := range secrets {
		c.form("/oauth/token", exchange(secret))
	}
	eventually(c.t, "both attempts are listed", func() error {
		var l struct{ Items []json.RawMessage }
		c.decode(c.check(call{method: "GET", path: "/v1/receipts/" + cut.ID + "/attempts", header: by, want: 200}), 200, &l)
		if len(l.Items) != 2 {
			return os.ErrNotExist
		}
		return nil
	})
	return cut.ID
}
