package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quash-project/quash/shared/problem"
)

// replica is one address of the revocation service.
type replica struct {
	*httptest.Server
	answer func(w http.ResponseWriter, r *http.Request)
	keys   []string // idempotency keys that came
}

// quash is an issuer whose metadata names replicas.
func quash(t *testing.T, replicas ...*replica) *Client {
	t.Helper()
	mux := http.NewServeMux()
	issuer := httptest.NewServer(mux)
	t.Cleanup(issuer.Close)
	m := Metadata{Issuer: issuer.URL, TokenEndpoint: issuer.URL + "/token"}
	for _, r := range replicas {
		r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			r.keys = append(r.keys, req.Header.Get("Idempotency-Key"))
			r.answer(w, req)
		}))
		t.Cleanup(r.Close)
		m.Revocation = append(m.Revocation, r.URL+"/v1/revocations")
	}
	mux.HandleFunc("GET /.well-known/oauth-authorization-server", func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(m) })
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprint(w, `{"access_token":"t","expires_in":600}`)
	})
	c, err := New(issuer.URL, func() (string, error) { return "key", nil }, issuer.Client(), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func says(status int) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status); _, _ = fmt.Fprint(w, `{}`) }
}

func hangsUp(w http.ResponseWriter, _ *http.Request) {
	c, _, err := http.NewResponseController(w).Hijack()
	if err == nil {
		_ = c.Close()
	}
}

// TestPatientCallOutlivesAChangeOfLeaders, and one without patience does not.
func TestPatientCallOutlivesAChangeOfLeaders(t *testing.T) {
	for _, patience := range []time.Duration{0, time.Minute} {
		n := 0
		r := &replica{answer: func(w http.ResponseWriter, req *http.Request) {
			if n++; n < 3 {
				says(503)(w, req)
				return
			}
			says(201)(w, req)
		}}
		call := Call{Method: http.MethodPost, Path: "/v1/revocations", Body: map[string]string{}, Key: "k", Patience: patience}
		if err := quash(t, r).Do(context.Background(), call, nil); (err == nil) != (patience > 0) {
			t.Errorf("with a patience of %s: %v", patience, err)
		}
	}
}

// TestAnotherReplicaIsAskedWhereThatDoesNoHarm, and never where it might.
func TestAnotherReplicaIsAskedWhereThatDoesNoHarm(t *testing.T) {
	post := Call{Method: http.MethodPost, Path: "/v1/revocations", Body: map[string]string{}, Key: "k"}
	bare := Call{Method: http.MethodPost, Path: "/v1/fleet/x/out", Body: map[string]string{}}
	for _, c := range []struct {
		name   string
		call   Call
		first  func(http.ResponseWriter, *http.Request) // nil: nobody is there
		second int                                      // how the other replica answers
		asked  int                                      // how often it is asked
		ok     bool
	}{
		{"nobody there", post, nil, 201, 1, true},
		{"nobody there, no key", bare, nil, 200, 1, true},
		{"unavailable", post, says(503), 201, 1, true},
		{"refused", post, says(409), 201, 0, false},
		{"lost, with a key", post, hangsUp, 201, 1, true},
		{"lost, without one", bare, hangsUp, 200, 0, false},
		{"lost, then refused", post, hangsUp, 503, 1, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			first, second := &replica{answer: c.first}, &replica{answer: says(c.second)}
			client := quash(t, first, second)
			if c.first == nil {
				first.Close()
			}
			err := client.Do(context.Background(), c.call, nil)
			if (err == nil) != c.ok || len(second.keys) != c.asked {
				t.Errorf("%v, and the other replica was asked %d times; want %t and %d", err, len(second.keys), c.ok, c.asked)
			}
			for _, key := range second.keys {
				if key != c.call.Key {
					t.Errorf("the other replica was asked with the key %q, want %q", key, c.call.Key)
				}
			}
			var lost *Lost
			if c.name == "lost, then refused" && !errors.As(err, &lost) {
				t.Errorf("%v: want the lost answer, since it may have been done", err)
			}
		})
	}
}

// saysKind answers with 503 and the kind of the problem.
func saysKind(kind problem.Kind) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) { problem.Write(w, problem.New(kind, "a test"), "") }
}

// TestWhatMayHaveBeenDoneIsNeverToldAsNotDone, whoever answers after that: a second
// replica, or the same ones when they are asked again.
func TestWhatMayHaveBeenDoneIsNeverToldAsNotDone(t *testing.T) {
	maybe, not := saysKind(problem.UnknownOutcome), saysKind(problem.Unavailable)
	for _, c := range []struct {
		name    string
		key     string
		answers []func(http.ResponseWriter, *http.Request) // in the order of the questions
		asked   int
	}{
		{"by the second", "k", []func(http.ResponseWriter, *http.Request){not, maybe}, 2},
		{"by the first", "k", []func(http.ResponseWriter, *http.Request){maybe, not}, 2},
		{"in the first pass", "k", []func(http.ResponseWriter, *http.Request){not, maybe, not, not}, 4},
		{"in the second pass", "k", []func(http.ResponseWriter, *http.Request){not, not, not, maybe}, 4},
		{"lost in the first pass", "k", []func(http.ResponseWriter, *http.Request){hangsUp, not, not, not}, 2},
		{"without a key it is not asked for again", "", []func(http.ResponseWriter, *http.Request){maybe, not}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			var asked atomic.Int64
			next := func(w http.ResponseWriter, r *http.Request) { c.answers[asked.Add(1)-1](w, r) }
			call := Call{Method: http.MethodPost, Path: "/v1/revocations", Body: map[string]string{}, Key: c.key}
			if c.asked > 2 {
				call.Patience = askAgain * 3 / 2 // two passes
			}
			err := quash(t, &replica{answer: next}, &replica{answer: next}).Do(context.Background(), call, nil)
			if !Unknown(err) {
				t.Errorf("%v: want that nobody knows", err)
			}
			if n := int(asked.Load()); n != c.asked {
				t.Errorf("%d questions, want %d", n, c.asked)
			}
		})
	}
}

// TestNoTimeForTheNextReplicaSaysNothingOfTheFirst: time runs out before the second is
// asked, which has done nothing.
func TestNoTimeForTheNextReplicaSaysNothingOfTheFirst(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	second := &replica{}
	c := quash(t, &replica{answer: saysKind(problem.UnknownOutcome)}, second)
	c.http = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		if addr == second.Listener.Addr().String() {
			cancel()
			return nil, context.Canceled
		}
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}}}
	defer c.http.CloseIdleConnections()
	err := c.Do(ctx, Call{Method: http.MethodPost, Path: "/v1/revocations", Body: map[string]string{}, Key: "k"}, nil)
	if !Unknown(err) {
		t.Errorf("%v: want that nobody knows", err)
	}
}
