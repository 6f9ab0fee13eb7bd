package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quash-project/quash/shared/client/api"
	"github.com/quash-project/quash/shared/problem"
)

// replica is one address of the revocation service.
type replica struct {
	*httptest.Server
	answer func(w http.ResponseWriter, r *http.Request)

	mu   sync.Mutex
	came []string // idempotency keys
}

// keys are the idempotency keys that came.
func (r *replica) keys() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.came)
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
			r.mu.Lock()
			r.came = append(r.came, req.Header.Get("Idempotency-Key"))
			r.mu.Unlock()
			r.answer(w, req)
		}))
		t.Cleanup(r.Close)
		m.Revocation = append(m.Revocation, r.URL+"/v1/revocations")
	}
	mux.HandleFunc("GET /.well-known/oauth-authorization-server", func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(m) })
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprint(w, `{"access_token":"t","expires_in":600}`)
	})
	c, err := New(issuer.URL, Options{Key: func() (string, error) { return "key", nil }, HTTP: issuer.Client()})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// commit asks for a revocation, under an idempotency key unless it is empty.
func commit(ctx context.Context, c *Client, key string) error {
	var with []api.RequestEditorFn
	if key != "" {
		with = append(with, IdempotencyKey(key))
	}
	_, err := c.CommitRevocation(ctx, nil, api.CommitRevocationJSONRequestBody{}, with...)
	return err
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
		if err := commit(Patient(t.Context(), patience), quash(t, r), "k"); (err == nil) != (patience > 0) {
			t.Errorf("with a patience of %s: %v", patience, err)
		}
	}
}

// TestAnotherReplicaIsAskedUnderTheSameKey, and none where one has said no.
func TestAnotherReplicaIsAskedUnderTheSameKey(t *testing.T) {
	for _, c := range []struct {
		name   string
		key    string                                   // for idempotency
		first  func(http.ResponseWriter, *http.Request) // nil: nobody is there
		second int                                      // how the other replica answers
		asked  int                                      // how often it is asked
		ok     bool
	}{
		{"nobody there", "k", nil, 201, 1, true},
		{"nobody there, none given", "", nil, 201, 1, true},
		{"lost, none given", "", hangsUp, 201, 1, true},
		{"unavailable", "k", says(503), 201, 1, true},
		{"refused", "k", says(409), 201, 0, false},
		{"lost, with a key", "k", hangsUp, 201, 1, true},
		{"lost, then refused", "k", hangsUp, 503, 1, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			first, second := &replica{answer: c.first}, &replica{answer: says(c.second)}
			client := quash(t, first, second)
			if c.first == nil {
				first.Close()
			}
			err := commit(t.Context(), client, c.key)
			if (err == nil) != c.ok || len(second.keys()) != c.asked {
				t.Errorf("%v, and the other replica was asked %d times; want %t and %d", err, len(second.keys()), c.ok, c.asked)
			}
			for _, key := range second.keys() {
				want := c.key
				if want == "" && len(first.keys()) > 0 {
					want = first.keys()[0] // which it made itself
				}
				if key == "" || want != "" && key != want {
					t.Errorf("the other replica was asked with the key %q, want %q", key, want)
				}
			}
			var lost *Lost
			if c.name == "lost, then refused" && !errors.As(err, &lost) {
				t.Errorf("%v: want the lost answer, since it may have been done", err)
			}
		})
	}
}

// TestPatientCallOutlivesALostAnswer, and what was asked is asked once by its key.
func TestPatientCallOutlivesALostAnswer(t *testing.T) {
	n := 0
	r := &replica{answer: func(w http.ResponseWriter, req *http.Request) {
		if n++; n == 1 {
			hangsUp(w, req)
			return
		}
		says(201)(w, req)
	}}
	err := commit(Patient(t.Context(), time.Minute), quash(t, r), "")
	if err != nil || len(r.keys()) != 2 || r.keys()[0] == "" || r.keys()[0] != r.keys()[1] {
		t.Errorf("%v, keys %q: want two tries under one key", err, r.keys())
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
	} {
		t.Run(c.name, func(t *testing.T) {
			var asked atomic.Int64
			next := func(w http.ResponseWriter, r *http.Request) { c.answers[asked.Add(1)-1](w, r) }
			ctx := t.Context()
			if c.asked > 2 {
				ctx = Patient(ctx, askAgain*3/2) // two passes
			}
			err := commit(ctx, quash(t, &replica{answer: next}, &replica{answer: next}), c.key)
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
	err := commit(ctx, c, "k")
	if !Unknown(err) {
		t.Errorf("%v: want that nobody knows", err)
	}
}
