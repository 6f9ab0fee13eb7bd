package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/quash-project/quash/shared/apikey"
)

// TestRevocationsRefuseBadTargets is about what only that route takes.
func TestRevocationsRefuseBadTargets(t *testing.T) {
	v := newVictim(t)
	for _, b := range v.badRevocations() {
		b.method, b.path = cmp(b.method, "POST"), cmp(b.path, "/v1/revocations")
		t.Run(b.name, func(t *testing.T) { v.refused(t, b) })
	}
	// What is just within the bounds is taken: 1,000 targets, and 1 MiB. By somebody else: it
	// is all that one person may cut in an hour.
	var other apiKey
	v.decode(v.api(v.token, "POST", "/v1/keys", map[string]any{"owner": "bulk", "scopes": []string{"quash:revoke"}}), 201, &other)
	body := jsonOf(t, map[string]any{"op": "revoke", "targets": targetsOf(1000), "reason": "r"})
	body += strings.Repeat(" ", 1<<20-len(body))
	if r := v.send("POST", "/v1/revocations", body, "Content-Type", "application/json", "Authorization", "Bearer "+v.services.token(other.Secret)); r.status != 201 {
		t.Errorf("1,000 targets in 1 MiB: status %d, want 201: %.300s", r.status, r.body)
	}
	v.alive(t)
}

func (v *victim) badRevocations() []bad {
	type m = map[string]any
	body := func(change m) string {
		all := m{"op": "revoke", "targets": []string{"principal:bob"}, "reason": "r"}
		for k, x := range change {
			all[k] = x
		}
		return jsonOf(v.t, all)
	}
	target := func(name, text string) bad {
		return bad{name: "target " + name, body: body(m{"targets": []string{"principal:bob", text}}), want: 422, field: "targets[1]"}
	}
	cases := []bad{
		{name: "0 targets", body: body(m{"targets": []string{}}), want: 422, field: "targets"},
		{name: "1,001 targets", body: body(m{"targets": targetsOf(1001)}), want: 422, field: "targets"},
		{name: "targets null", body: body(m{"targets": nil}), want: 422, field: "targets"},
		{name: "targets a text", body: body(m{"targets": "principal:bob"}), want: 422, field: "targets"},
		{name: "a target that is null", body: body(m{"targets": []any{nil}}), want: 422, field: "targets[0]"},
		{name: "a target that is an object", body: body(m{"targets": []any{m{"kind": "key"}}}), want: 422},
		target("of no kind", "bob"),
		target("empty", ""),
		target("of an unknown kind", "user:bob"),
		target("of a kind in another case", "Principal:bob"),
		target("of a kind with a space", "principal :bob"),
		target("without an id", "principal:"),
		target("of 513 bytes", "principal:"+strings.Repeat("a", 513)),
		target("of 513 bytes in half as many characters", "principal:"+strings.Repeat("é", 256)+"a"),
		target("with a line end", "principal:bob\n"),
		target("with an escaped control character", "principal:bob%00"),
		target("with a bad escape", "principal:bob%zz"),
		target("with an escape that is no UTF-8", "principal:%ff"),
		target("with a slash", "principal:a/b"),
		target("grant without its client", "grant:alice"),
		target("grant with three parts", "grant:a/b/c"),
		target("another tenant", "tenant:elsewhere"),
		target("an API key in place of its id", "key:"+v.key.Secret),
		target("an API key", v.key.Secret),
		target("a token in place of its id", "token:"+v.token),
		{name: "issuer target of another issuer", body: body(m{"targets": []string{"issuer:elsewhere"}, "issuer": "corp"}), want: 422, field: "targets[0]"},
		{name: "issuer that is no name", body: body(m{"issuer": "https://issuer.example"}), want: 422, field: "issuer"},
		{name: "foreign tenant", body: body(m{"tenant": "elsewhere"}), want: 403, field: "tenant"},
		{name: "unknown op", body: body(m{"op": "delete"}), want: 422, field: "op"},
		{name: "op in another case", body: body(m{"op": "Revoke"}), want: 422, field: "op"},
		{name: "empty reason", body: body(m{"reason": ""}), want: 422, field: "reason"},
		{name: "reason too long", body: body(m{"reason": strings.Repeat("r", 1025)}), want: 422, field: "reason"},
		{name: "a revocation with an end", body: body(m{"for": "1h"}), want: 422, field: "for"},
		{name: "then without an end", body: body(m{"op": "hold", "then": "revoke"}), want: 422, field: "then"},
		{name: "unknown then", body: body(m{"op": "hold", "for": "1h", "then": "forget"}), want: 422, field: "then"},
		{name: "release of what is not held", body: body(m{"op": "release"}), want: 409},
	}
	for name, d := range map[string]string{
		"nonsense": "tomorrow", "negative": "-1h", "zero": "0s", "without a unit": "3600", "with a space": "1 h",
		"not a number": "NaNh", "too long": "9601h", "overflowing": "9999999999999h", "ISO": "PT1H",
	} {
		cases = append(cases, bad{name: "hold for " + name, body: body(m{"op": "hold", "for": d}), want: 422, field: "for"})
	}
	for name, d := range map[string]string{"nonsense": "soon", "negative": "-1s", "too long": "61s", "without a unit": "5", "twice": "1s&wait=1s"} {
		cases = append(cases,
			bad{name: "wait " + name, path: "/v1/revocations?wait=" + d, body: body(nil), want: 422, field: "wait"},
			bad{name: "wait of a look " + name, method: "GET", path: "/v1/revocations/x?wait=" + d, want: 422, field: "wait"})
	}
	return append(cases, v.badKeys("/v1/revocations", body(nil), "idempotency_key")...)
}

// badKeys are idempotency keys that no route takes.
func (v *victim) badKeys(path, body, field string) []bad {
	with := func(keys ...string) []string {
		h := []string{"Content-Type", "application/json", "Authorization", "Bearer " + v.token}
		for _, k := range keys {
			h = append(h, "Idempotency-Key", k)
		}
		return h
	}
	return []bad{
		{name: "empty idempotency key", path: path, body: body, header: with(""), want: 422, field: "Idempotency-Key"},
		{name: "two idempotency keys", path: path, body: body, header: with("a", "b"), want: 422, field: "Idempotency-Key"},
		{name: "long idempotency key", path: path, body: body, header: with(strings.Repeat("k", 513)), want: 422, field: "Idempotency-Key"},
		{name: "idempotency key with a tab", path: path, body: body, header: with("a\tb"), want: 422, field: field},
		{name: "idempotency key that is no UTF-8", path: path, body: body, header: with("a\xffb"), want: 422, field: field},
		{name: "long idempotency key in fewer characters", path: path, body: body, header: with(strings.Repeat("é", 257)), want: 422},
	}
}

// TestOtherRoutesRefuseBadValues is about the values that each takes.
func TestOtherRoutesRefuseBadValues(t *testing.T) {
	v := newVictim(t)
	type m = map[string]any
	key := func(change m) string {
		all := m{"owner": "alice"}
		for k, x := range change {
			all[k] = x
		}
		return jsonOf(t, all)
	}
	cases := []bad{
		{name: "owner empty", path: "/v1/keys", body: key(m{"owner": ""}), want: 422, field: "owner"},
		{name: "owner of 513 bytes", path: "/v1/keys", body: key(m{"owner": strings.Repeat("a", 513)}), want: 422, field: "owner"},
		{name: "principal that is a client", path: "/v1/principals", body: `{"id":"client_x"}`, want: 422, field: "id"},
		{name: "principal that is a secret", path: "/v1/principals", body: `{"id":"` + v.key.Secret + `"}`, want: 422, field: "id"},
		{name: "principal that is a path", path: "/v1/principals", body: `{"id":".."}`, want: 422, field: "id"},
		{name: "principal of no kind", path: "/v1/principals", body: `{"id":"x","kind":"robot"}`, want: 422, field: "kind"},
		{name: "a label of a principal", path: "/v1/principals", body: `{"id":"x","labels":{"a b":"c"}}`, want: 422, field: "labels"},
		{name: "owner that is a client", path: "/v1/keys", body: key(m{"owner": "client_x"}), want: 422, field: "owner"},
		{name: "owner that is a key", path: "/v1/keys", body: key(m{"owner": "key_x"}), want: 422, field: "owner"},
		{name: "owner with a line end", path: "/v1/keys", body: key(m{"owner": "a\nb"}), want: 422, field: "owner"},
		{name: "unknown client", path: "/v1/keys", body: key(m{"client_id": "client_none"}), want: 422, field: "client_id"},
		{name: "unknown role", path: "/v1/keys", body: key(m{"roles": []string{"none"}}), want: 422, field: "roles"},
		{name: "malformed scope", path: "/v1/keys", body: key(m{"scopes": []string{"a b"}}), want: 422, field: "scopes"},
		{name: "empty scope", path: "/v1/keys", body: key(m{"scopes": []string{""}}), want: 422, field: "scopes"},
		{name: "unknown scope of Quash", path: "/v1/keys", body: key(m{"scopes": []string{"quash:everything"}}), want: 422, field: "scopes"},
		{name: "too many scopes", path: "/v1/keys", body: key(m{"scopes": strings.Split(strings.Repeat("a,", 101)+"b", ",")}), want: 422, field: "scopes"},
		{name: "a secret as a scope", path: "/v1/keys", body: key(m{"scopes": []string{v.key.Secret}}), want: 422, field: "scopes"},
		{name: "a secret as an audience", path: "/v1/keys", body: key(m{"audiences": []string{"https://x/" + v.key.Secret}}), want: 422, field: "audiences"},
		{name: "relative audience", path: "/v1/keys", body: key(m{"audiences": []string{"orders"}}), want: 422, field: "audiences"},
		{name: "life above 400 days", path: "/v1/keys", body: key(m{"expires_in": "9601h"}), want: 422, field: "expires_in"},
		{name: "no life", path: "/v1/keys", body: key(m{"expires_in": "0s"}), want: 422, field: "expires_in"},
		{name: "life in too many days", path: "/v1/keys", body: key(m{"expires_in": "401d"}), want: 422, field: "expires_in"},
		{name: "life that is no number", path: "/v1/keys", body: key(m{"expires_in": "１h"}), want: 422, field: "expires_in"},
		{name: "life of a secret", path: "/v1/clients/" + v.client + "/secrets", body: `{"expires_in":"-1h"}`, want: 422, field: "expires_in"},
		{name: "unknown grant", path: "/v1/clients", body: `{"name":"n","grants":["password"]}`, want: 422, field: "grants"},
		{name: "no grant", path: "/v1/clients", body: `{"name":"n","grants":[]}`, want: 422, field: "grants"},
		{name: "a secret as a grant", path: "/v1/clients", body: `{"name":"n","grants":["` + v.key.Secret + `"]}`, want: 422, field: "grants"},
		{name: "role name with a slash", path: "/v1/roles", body: `{"name":"a/b","scopes":[]}`, want: 422, field: "name"},
		{name: "role name of 65 bytes", path: "/v1/roles", body: `{"name":"` + strings.Repeat("r", 65) + `","scopes":[]}`, want: 422, field: "name"},
		{name: "a role of that name", path: "/v1/roles", body: `{"name":"clerk","scopes":[]}`, want: 409},
		{name: "a fixed role", method: "PUT", path: "/v1/roles/auditor", body: `{"scopes":[]}`, want: 409},
		{name: "deletion of a fixed role", method: "DELETE", path: "/v1/roles/auditor", want: 409},
		{name: "binding to no client", path: "/v1/bindings", body: `{"subject":"client_none","role":"clerk"}`, want: 422, field: "subject"},
		{name: "binding of no role", path: "/v1/bindings", body: `{"subject":"alice","role":"none"}`, want: 422, field: "role"},
		{name: "no such binding", method: "DELETE", path: "/v1/bindings?subject=bob&role=clerk", want: 404},
		{name: "binding without a role", method: "DELETE", path: "/v1/bindings?subject=bob", want: 422, field: "role"},
		{name: "empty token", path: "/v1/decisions", body: `{"token":""}`, want: 422, field: "token"},
		{name: "token over 16 KiB", path: "/v1/decisions", body: `{"token":"` + strings.Repeat("a", 16<<10+1) + `"}`, want: 422, field: "token"},
		{name: "unknown kind of rotation", path: "/v1/rotations", body: `{"kind":"password","reason":"r"}`, want: 422, field: "kind"},
		{name: "unknown algorithm", path: "/v1/rotations", body: `{"kind":"signing-key","reason":"r","alg":"HS256"}`, want: 422, field: "alg"},
		{name: "no algorithm at all", path: "/v1/rotations", body: `{"kind":"signing-key","reason":"r","alg":"none"}`, want: 422, field: "alg"},
		{name: "rotation without a reason", path: "/v1/rotations", body: `{"kind":"signing-key","reason":""}`, want: 422, field: "reason"},
		{name: "wait for a rotation too long", path: "/v1/rotations?wait=61s", body: `{"kind":"signing-key","reason":"r"}`, want: 422, field: "wait"},
		{name: "wait for a rotation backwards", path: "/v1/rotations?wait=-1s", body: `{"kind":"signing-key","reason":"r"}`, want: 422, field: "wait"},
		{name: "unknown instance", path: "/v1/fleet/none/out", body: `{"reason":"r"}`, want: 404},
		{name: "instance of 65 characters", path: "/v1/fleet/" + strings.Repeat("i", 65) + "/out", body: `{"reason":"r"}`, want: 422, field: "instance"},
	}
	cases = append(cases, v.badKeys("/v1/rotations", `{"kind":"signing-key","reason":"r"}`, "Idempotency-Key")...)
	cases = append(cases, v.badPaths()...)
	for kind, secret := range map[string]string{"key": v.key.Secret, "client secret": v.clientSecret} {
		for name, text := range spoilt(secret) {
			cases = append(cases, bad{name: "look-up of a " + kind + " " + name, path: "/v1/lookups", body: jsonOf(t, m{"secret": text}), want: 422, field: "secret"})
		}
	}
	for _, b := range cases {
		b.method = cmp(b.method, "POST")
		t.Run(b.name, func(t *testing.T) { v.refused(t, b) })
	}
	v.alive(t)
}

// badPaths are ids in paths that name nothing; with a secret in their place the
// answer, and the log line of the request, must not repeat it.
func (v *victim) badPaths() []bad {
	var cases []bad
	for name, id := range map[string]string{
		"unknown": "nothing", "a secret": v.key.Secret, "escaped": "%41%2Fb", "a control character": "a%00b", "no UTF-8": "a%ffb",
		"dots": "a..b", "a wildcard": "*", "a greater-than": ">", "a full stop": "a.b", "a space": "a%20b",
	} {
		for _, r := range []struct{ method, path string }{
			{"GET", "/v1/principals/"},
			{"DELETE", "/v1/principals/"},
			{"GET", "/v1/keys/"},
			{"DELETE", "/v1/keys/"},
			{"GET", "/v1/clients/"},
			{"DELETE", "/v1/clients/"},
			{"GET", "/v1/roles/"},
			{"DELETE", "/v1/roles/"},
			{"GET", "/v1/revocations/"},
			{"GET", "/v1/rotations/"},
		} {
			want := http.StatusNotFound
			if name == "a secret" {
				want = http.StatusUnprocessableEntity // wherever it stands in a URL
			}
			cases = append(cases, bad{name: r.method + " " + r.path + name, method: r.method, path: r.path + id, want: want})
		}
	}
	for _, path := range []string{"/v1/keys/", "/v1/clients/", "/v1/roles/", "/v1/revocations/", "/v1/rotations/"} {
		cases = append(cases, bad{name: "GET " + path + " of 101 characters", method: "GET", path: path + strings.Repeat("a", 101), want: 422})
	}
	cases = append(cases, bad{name: "GET /v1/principals/ of 513 characters", method: "GET", path: "/v1/principals/" + strings.Repeat("a", 513), want: 422})
	for _, path := range []string{"/v1", "/v1/", "/v1/keys/a/b", "/v2/keys", "/v1/revocations/a/b", "/v1/fleet/a", "/v1/rotations/a/b", "/" + v.key.Secret, "//v1/keys", "/v1//keys", "/v1/./keys", "/v1/keys/..", "/v1/keys/", "/openapi/../v1/keys"} {
		want := http.StatusNotFound
		if strings.Contains(path, v.key.Secret) {
			want = http.StatusUnprocessableEntity
		}
		cases = append(cases, bad{name: "GET " + strings.Replace(path, v.key.Secret, "a secret", 1), method: "GET", path: path, want: want})
	}
	return cases
}

// TestListsRefuseBadQueries is about the parameters of GET.
func TestListsRefuseBadQueries(t *testing.T) {
	v := newVictim(t)
	for _, path := range []string{"/v1/principals", "/v1/keys", "/v1/clients", "/v1/roles", "/v1/bindings"} {
		for name, b := range map[string]bad{
			"limit 0":          {path: "limit=0", field: "limit"},
			"limit 1,001":      {path: "limit=1001", field: "limit"},
			"limit negative":   {path: "limit=-1", field: "limit"},
			"limit a text":     {path: "limit=" + v.key.Secret, field: "limit"},
			"limit overflow":   {path: "limit=99999999999999999999", field: "limit"},
			"limit twice":      {path: "limit=1&limit=1", field: "limit"},
			"limit wide":       {path: "limit=%EF%BC%91", field: "limit"},
			"page of nobody":   {path: "page=!", field: "page"},
			"page too long":    {path: "page=" + strings.Repeat("a", 1001), field: "page"},
			"unknown":          {path: "secret=" + v.key.Secret, field: "secret"},
			"control in page":  {path: "page=%01", field: "page"},
			"page of no UTF-8": {path: "page=%ff", field: "page"},
		} {
			b.method, b.path, b.want = "GET", path+"?"+b.path, 422
			t.Run(path+" "+name, func(t *testing.T) { v.refused(t, b) })
		}
	}
	for _, path := range []string{"/v1/fleet", "/v1/signing-keys", "/v1/feed", "/v1/audit", "/v1/audit/export", "/v1/audit/pages", "/v1/audit/checkpoint"} {
		t.Run(path+" unknown", func(t *testing.T) {
			v.refused(t, bad{method: "GET", path: path + "?unknown=1", want: 422, field: "unknown"})
		})
	}
	for name, query := range map[string]string{
		"nothing": "for=", "no duration": "for=" + v.key.Secret, "no unit": "for=10", "none": "for=0s", "negative": "for=-1s",
		"above an hour": "for=3601s", "overflow": "for=99999999999h", "twice": "for=1s&for=1s",
	} {
		t.Run("/v1/feed for "+name, func(t *testing.T) {
			v.refused(t, bad{method: "GET", path: "/v1/feed?" + query, want: 422, field: "for"})
		})
	}
	for query, field := range map[string]string{
		"since=" + v.key.Secret: "since", "until=2026-01-31": "until", "target=alice": "target", "target=kind:alice": "target", "tenant=../default": "tenant",
		"actor=" + strings.Repeat("a", 513): "actor", "actor=a&actor=b": "actor",
	} {
		for _, path := range []string{"/v1/audit", "/v1/audit/export"} {
			t.Run(path+" "+field, func(t *testing.T) {
				v.refused(t, bad{method: "GET", path: path + "?" + query, want: 422, field: field})
			})
		}
	}
	for query, field := range map[string]string{"from=0": "from", "from=-1": "from", "from=18446744073709551615": "from", "from=99999999999999999999": "from", "from=": "from", "follow=1": "follow", "follow=": "follow", "for=1s": "for"} {
		t.Run("/v1/audit/export "+query, func(t *testing.T) {
			v.refused(t, bad{method: "GET", path: "/v1/audit/export?" + query, want: 422, field: field})
		})
	}
	t.Run("kind", func(t *testing.T) {
		v.refused(t, bad{method: "GET", path: "/v1/keys?kind=none", want: 422, field: "kind"})
	})
	v.alive(t)
}

// spoilt returns a secret in forms that are not it.
func spoilt(secret string) map[string]string {
	kind := secret[:strings.LastIndex(secret, "_")+1]
	digits := []rune(secret)
	for i, c := range digits {
		if c >= '0' && c <= '9' {
			digits[i] = c - '0' + '０' // full width
		}
	}
	return map[string]string{
		"cut short":          secret[:len(secret)-1],
		"prefix alone":       kind,
		"lengthened":         secret + "A",
		"in another case":    strings.ToUpper(secret),
		"with other digits":  string(digits),
		"with a space":       secret + " ",
		"with a line end":    secret + "\n",
		"of another kind":    strings.Replace(secret, kind, apikey.Refresh.Prefix(), 1),
		"with a wrong digit": swapLast(secret),
		"twice":              secret + secret,
	}
}

// swapLast changes the last character of the random part.
func swapLast(secret string) string {
	b := []byte(secret)
	if i := len(b) - 7; b[i] == 'A' {
		b[i] = 'B'
	} else {
		b[i] = 'A'
	}
	return string(b)
}

// targetsOf writes n targets.
func targetsOf(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("principal:p%d", i)
	}
	return out
}

// jsonOf writes v as JSON.
func jsonOf(t testing.TB, v any) string {
	t.Helper()
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
