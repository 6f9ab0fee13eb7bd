package commit

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/problem"
)

func document(kind problem.Kind) *nats.Msg {
	err := problem.New(kind, "the detail")
	body, _ := json.Marshal(problem.DocumentOf(err, ""))
	return &nats.Msg{Header: nats.Header{ErrorHeader: {kind.Name()}}, Data: body}
}

func stored() *nats.Msg {
	body, _ := json.Marshal(Answer{ID: "x", Epoch: 1, Sequence: 7})
	return &nats.Msg{Data: body}
}

// TestClientTellsNoFromUnknown plays a service that answers each try as told;
// nil is no answer.
func TestClientTellsNoFromUnknown(t *testing.T) {
	n := enginetest.NATS(t)
	service, asker := n.Conn(t, "revocation"), n.Conn(t, "issuer")
	for _, tc := range []struct {
		name    string
		answers []*nats.Msg
		ok      bool
		want    problem.Kind
		tries   int
	}{
		{"stored", []*nats.Msg{stored()}, true, 0, 1},
		{"no", []*nats.Msg{document(problem.Conflict)}, false, problem.Conflict, 1},
		{"not now, then stored", []*nats.Msg{document(problem.Unavailable), stored()}, true, 0, 2},
		{"lost, then stored", []*nats.Msg{nil, stored()}, true, 0, 2},
		{"unknown, then stored", []*nats.Msg{document(problem.UnknownOutcome), stored()}, true, 0, 2},
		{"never now", []*nats.Msg{document(problem.Unavailable)}, false, problem.Unavailable, attempts},
		// What was lost may have been done, whatever is said later.
		{"lost, then not now", []*nats.Msg{nil, document(problem.Unavailable)}, false, problem.UnknownOutcome, attempts},
		{"never an answer", []*nats.Msg{nil}, false, problem.UnknownOutcome, attempts},
		{"nonsense", []*nats.Msg{{Data: []byte("{")}}, false, problem.UnknownOutcome, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tries := make(chan Request, attempts)
			n := 0
			sub, err := service.Subscribe(wire.CommitPrefix+"*", func(m *nats.Msg) {
				var r Request
				_ = json.Unmarshal(m.Data, &r) // a wrong one shows below
				tries <- r
				answer := tc.answers[min(n, len(tc.answers)-1)]
				n++
				if answer != nil {
					_ = m.RespondMsg(&nats.Msg{Header: answer.Header, Data: answer.Data}) // no answer fails the test
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				// Until the broker has heard of it, somebody is there.
				if err := errors.Join(sub.Unsubscribe(), service.Flush()); err != nil {
					t.Error(err)
				}
			}()
			if err := service.Flush(); err != nil {
				t.Fatal(err)
			}
			c := NewClient(asker, "issuer")
			// No answer is late, however busy the machine is; those that never
			// come are not waited for long.
			if tc.answers[0] == nil {
				c.try = 2 * time.Second
			}
			if len(tc.answers) == 1 && tc.answers[0] == nil {
				c.try = 50 * time.Millisecond
			}
			a, err := c.Commit(t.Context(), Request{Key: "k", Tenant: "default", Op: Revoke})
			if tc.ok != (err == nil) || err == nil && a.Sequence != 7 || err != nil && problem.KindOf(err) != tc.want {
				t.Errorf("%+v, %v", a, err)
			}
			if problem.KindOf(err) == problem.UnknownOutcome && problem.From(err).Key != "k" {
				t.Error("it does not say which key to repeat")
			}
			if len(tries) != tc.tries {
				t.Errorf("%d tries, want %d", len(tries), tc.tries)
			}
			for range len(tries) {
				if r := <-tries; r.Key != "k" {
					t.Errorf("a try had the key %q", r.Key)
				}
			}
		})
	}
	t.Run("nobody there", func(t *testing.T) {
		if _, err := NewClient(asker, "issuer").Commit(t.Context(), Request{Key: "k"}); problem.KindOf(err) != problem.Unavailable {
			t.Errorf("%v: nothing can have been done", err)
		}
	})
}
