package e2e

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"testing"
)

// TestListsArePagedAlike: every list of every service goes on after the last of the
// page before, and its token is good for that list alone.
func TestListsArePagedAlike(t *testing.T) {
	c := newContract(t)
	by := []string{"Authorization", "Bearer " + c.token(c.operator)}
	type m = map[string]any
	for i := range 2 {
		for path, body := range map[string]m{
			"/v1/keys": {"owner": "alice"}, "/v1/clients": {"name": "n", "grants": []string{"client_credentials"}},
			"/v1/bindings":    {"subject": fmt.Sprintf("user%d", i), "role": "auditor"},
			"/v1/principals":  {"id": fmt.Sprintf("user%d", i)},
			"/v1/tenants":     {"name": fmt.Sprintf("tenant%d", i)},
			"/v1/schedules":   {"name": fmt.Sprintf("schedule%d", i), "rotate": "signing-key", "every": "30d", "reason": "test"},
			"/v1/incidents":   {"title": fmt.Sprintf("incident %d", i)},
			"/v1/revocations": {"op": "revoke", "targets": []string{fmt.Sprintf("token:t%d", i)}, "reason": "test"},
		} {
			c.check(call{method: "POST", path: path, body: body, header: by, want: 201})
		}
	}
	c.waits()
	c.waits()
	eventually(t, "both receipts are listed", func() error {
		var l struct{ Items []json.RawMessage }
		c.decode(c.check(call{method: "GET", path: "/v1/receipts", header: by, want: 200}), 200, &l)
		if len(l.Items) != 2 {
			return fmt.Errorf("%d are", len(l.Items))
		}
		return nil
	})
	tried := c.twoAttempts(by)
	tokens := map[string]string{}
	for path, ops := range c.paths {
		list := ops["get"]
		if !strings.HasPrefix(list.ID, "list") {
			continue
		}
		path = strings.Replace(path, "{id}", tried, 1) // of a list below a receipt
		get := func(query url.Values) (items []json.RawMessage, next string) {
			var l struct {
				Items []json.RawMessage
				Next  string `json:"next_page"`
			}
			c.decode(c.check(call{method: "GET", path: path + "?" + query.Encode(), header: by, want: 200}), 200, &l)
			return l.Items, l.Next
		}
		whole, next := get(url.Values{"limit": {"1000"}})
		if len(whole) < 2 || next != "" {
			t.Fatalf("%s: %d records, next page %q", path, len(whole), next)
		}
		var read []json.RawMessage
		for query := (url.Values{"limit": {"1"}}); ; query.Set("page", next) {
			var one []json.RawMessage
			one, next = get(query)
			read = append(read, one...)
			if len(one) != 1 || next == "" || len(read) > len(whole) {
				break
			}
			tokens[path] = next
		}
		if got, want := ids(t, read), ids(t, whole); got != want {
			t.Errorf("%s: by pages %s, as a whole %s", path, got, want)
		}
	}
	for path, token := range tokens {
		if sealed, err := base64.RawURLEncoding.DecodeString(token); err != nil || readable.Match(sealed) {
			t.Errorf("%s: what its page begins with can be read in the token: %q, %v", path, sealed, err)
		}
		for of, token := range tokens {
			want := 422
			if of == path {
				want = 200
			}
			c.check(call{method: "GET", path: path + "?page=" + token, header: by, want: want})
		}
		c.check(call{method: "GET", path: path + "?page=AAAA", header: by, want: 422})
		c.check(call{method: "GET", path: path + "?limit=0", header: by, want: 422})
		c.check(call{method: "GET", path: path + "?limit=1001", header: by, want: 422})
	}
	c.pagesAreOfOneQuestion(by, tried)
}

// readable is more text in a row than chance puts into what is sealed.
var readable = regexp.MustCompile(`[ -~]{12}`)

// ids are the records by what does not change between two questions.
func ids(t *testing.T, items []json.RawMessage) string {
	t.Helper()
	var out []string
	for _, it := range items {
		var r struct {
			ID       string `json:"id"`
			Client   string `json:"client_id"`
			KeyID    string `json:"kid"`
			Instance string `json:"instance"`
			Target   string `json:"target"`
		}
		if err := json.Unmarshal(it, &r); err != nil {
			t.Fatal(err)
		}
		out = append(out, r.ID+r.Client+r.KeyID+r.Instance+r.Target)
	}
	return strings.Join(out, " ")
}
