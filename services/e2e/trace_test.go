package e2e

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// TestTraceGoesFromTheRequestToCommitAndGuard: whoever asks with a traceparent finds
// under their id what was done for it in which service, and nothing of whom it was
// about.
func TestTraceGoesFromTheRequestToCommitAndGuard(t *testing.T) {
	seen := collector(t)
	q := start(t, t.TempDir())
	key := q.newKey("alice-of-traces", "--scope", "orders:read")
	token, operator := q.token(key), q.operatorToken()

	// A resource server: its own request, and the guard's decision.
	trace := q.traced(http.MethodGet, q.env["QUASH_DEMO_URL"]+"/orders", token, http.StatusOK)
	spans := seen.wait(t, trace, "quash-demo: GET /orders > guard decision")
	if got := spans["guard decision"].attrs["quash.outcome"]; !strings.Contains(got, "allow") {
		t.Errorf("the decision is %s", got)
	}

	// The issuer: decides, and asks the revocation service over NATS, which commits.
	trace = q.traced(http.MethodDelete, q.env["QUASH_URL"]+"/v1/keys/"+key.ID+"?reason=over", operator, http.StatusOK, http.StatusNoContent)
	seen.wait(t, trace,
		"quash-issuer: DELETE /v1/keys/{id} > request quash.commit.issuer",
		"quash-issuer: DELETE /v1/keys/{id} > guard decision",
		"quash-revocation: request quash.commit.issuer > answer quash.commit.*",
		"quash-revocation: answer quash.commit.* > commit",
		"quash-revocation: commit > publish QUASH_LOG")

	// The revocation service itself, as far as the guards that have applied it.
	id := q.revokeTraced("principal:alice-of-traces", operator)
	spans = seen.wait(t, id,
		"quash-revocation: POST /v1/revocations > guard decision",
		"quash-revocation: POST /v1/revocations > commit",
		"quash-revocation: commit > publish QUASH_LOG",
		"quash-revocation: POST /v1/revocations > confirm")
	if got := spans["confirm"].events; !slices.Contains(got, "issuer") || !slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, "demo") }) {
		t.Errorf("applied by %v: want the guards of the issuer and the demo among them", got)
	}

	trace = q.traced(http.MethodGet, q.env["QUASH_DEMO_URL"]+"/orders", token, http.StatusUnauthorized)
	spans = seen.wait(t, trace, "quash-demo: GET /orders > guard decision")
	if got := spans["guard decision"].attrs["quash.check"]; !strings.Contains(got, "targets") {
		t.Errorf("refused by the check %s", got)
	}
	_, sent := seen.all()
	for what, secret := range map[string]string{
		"a person": "alice-of-traces", "the id of a key": key.ID, "a key": key.Secret[20:], "a token": token[len(token)-30:], "an operator's token": operator[len(operator)-30:],
	} {
		if strings.Contains(string(sent), secret) {
			t.Errorf("%s is in what was sent", what)
		}
	}
}

// traced sends a request in a trace of its own and returns its id.
func (q *quash) traced(method, url, token string, want ...int) string {
	q.t.Helper()
	req, err := http.NewRequest(method, url, nil)
	if err != nil {
		q.t.Fatal(err)
	}
	id := traceID()
	req.Header.Set("Traceparent", "00-"+id+"-b7ad6b7169203331-01")
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		q.t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); !slices.Contains(want, resp.StatusCode) {
		q.t.Fatalf("%s %s: status %d, want %v: %s", method, url, resp.StatusCode, want, body)
	}
	return id
}

func (q *quash) revokeTraced(target, token string) string {
	q.t.Helper()
	id := traceID()
	// Between processes the revocation service has an address of its own.
	resp, err := http.Get(q.env["QUASH_URL"] + "/.well-known/oauth-authorization-server")
	if err != nil {
		q.t.Fatal(err)
	}
	defer resp.Body.Close()
	var at struct {
		Revocation []string `json:"quash_revocation_endpoints"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&at); err != nil || len(at.Revocation) == 0 {
		q.t.Fatalf("where revocations are asked for: %v, %v", at, err)
	}
	clone := *q
	clone.env = map[string]string{"QUASH_URL": strings.TrimSuffix(at.Revocation[0], "/v1/revocations")}
	status, body, err := clone.post("/v1/revocations?wait=30s", token, map[string]any{"op": "revoke", "targets": []string{target}, "reason": "a test"},
		"Traceparent", "00-"+id+"-b7ad6b7169203331-01")
	if err != nil || status != http.StatusCreated {
		q.t.Fatalf("status %d, %v: %s", status, err, body)
	}
	return id
}

func traceID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// wait waits until a trace has these pairs, as SERVICE: PARENT > CHILD of that
// service, and returns its spans by their names.
func (o *otlp) wait(t *testing.T, trace string, want ...string) map[string]span {
	t.Helper()
	byName := map[string]span{}
	eventually(t, "trace "+trace, func() error {
		spans := o.of(trace)
		names := map[string]string{}
		for _, s := range spans {
			names[s.id] = s.name
			byName[s.name] = s
		}
		var have []string
		for _, s := range spans {
			have = append(have, fmt.Sprintf("%s: %s > %s", s.service, names[s.parent], s.name))
		}
		var errs []error
		for _, w := range want {
			if !slices.Contains(have, w) {
				errs = append(errs, fmt.Errorf("no %s in %q", w, have))
			}
		}
		return errors.Join(errs...)
	})
	return byName
}
