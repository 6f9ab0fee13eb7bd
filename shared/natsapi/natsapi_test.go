package natsapi

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/httpapi"
	"github.com/quash-project/quash/shared/identity"
	"github.com/quash-project/quash/shared/problem"
)

type echo struct {
	Text string `json:"text"`
	Name string `json:"name,omitempty"`
	By   string `json:"by,omitempty"`
}

type oneToken struct{}

func (oneToken) Authorize(_ context.Context, token string, scopes []string) (httpapi.Caller, error) {
	if token != "good" {
		return httpapi.Caller{}, problem.New(problem.Unauthorized, "not good")
	}
	if scopes[0] != "echo" {
		return httpapi.Caller{}, problem.New(problem.Forbidden, "no scope")
	}
	return httpapi.Caller{Subject: "alice"}, nil
}

func serve(t *testing.T, n *enginetest.NATSServer, c Config, endpoints ...Endpoint) *Server {
	t.Helper()
	nc := n.Conn(t, identity.Revocation)
	s, err := Serve(nc, wire.APIRevocation, c, endpoints...)
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestRequestsAreServedAndRefusedAsOverHTTP(t *testing.T) {
	n := enginetest.NATS(t)
	reply := func(ctx context.Context, r echo) (echo, error) {
		switch r.Text {
		case "gone":
			return echo{}, &problem.Error{Kind: problem.UnknownOutcome, Detail: "repeat", Key: "k1"}
		case "odd":
			return echo{}, errors.New("secret cause")
		case "panic":
			panic("secret cause")
		}
		return echo{Text: r.Text, Name: Name(ctx), By: httpapi.CallerOf(ctx).Subject}, nil
	}
	serve(t, n, Config{Auth: oneToken{}, MaxBody: 1000},
		On("echo", "echo", reply), On("other", "other", reply), On("*", httpapi.Public, reply))
	guard := n.Conn(t, "orders")
	for name, c := range map[string]struct {
		op, token, text string
		want            echo
		kind            problem.Kind
	}{
		"token":        {"echo", "good", "hi", echo{"hi", "echo", "alice"}, 0},
		"any name":     {"commit", "", "hi", echo{"hi", "commit", ""}, 0},
		"no token":     {"echo", "", "hi", echo{}, problem.Unauthorized},
		"bad token":    {"echo", "bad", "hi", echo{}, problem.Unauthorized},
		"no scope":     {"other", "good", "hi", echo{}, problem.Forbidden},
		"too large":    {"echo", "good", strings.Repeat("x", 2000), echo{}, problem.TooLarge},
		"unclassified": {"echo", "good", "odd", echo{}, problem.Internal},
		"panic":        {"echo", "good", "panic", echo{}, problem.Internal},
		"unknown":      {"echo", "good", "gone", echo{}, problem.UnknownOutcome},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			got, err := Call[echo](ctx, guard, wire.APIRevocation+c.op, c.token, echo{Text: c.text})
			if got != c.want || (err != nil) != (c.want == echo{}) {
				t.Fatalf("got %+v, %v; want %+v", got, err, c.want)
			}
			if err != nil {
				p := problem.From(err)
				if p.Kind != c.kind || strings.Contains(err.Error(), "secret") {
					t.Errorf("got %v of kind %s, want %s", err, p.Kind.Name(), c.kind.Name())
				}
				if c.kind == problem.UnknownOutcome && p.Key != "k1" {
					t.Errorf("the idempotency key is lost: %+v", p)
				}
			}
		})
	}
	answer, err := guard.Request(wire.APIRevocation+"x", []byte(`{"text":"a","Text":"b"}`), 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if p := problem.From(ErrorIn(answer)); p.Kind != problem.Invalid || p.Field != "Text" {
		t.Errorf("a body that can be read in two ways: %+v", p)
	}
}

func TestFullHouseAnswersAtOnceAndStopAnswersTheAccepted(t *testing.T) {
	n := enginetest.NATS(t)
	entered, release := make(chan struct{}), make(chan struct{})
	s := serve(t, n, Config{Workers: 1}, On("*", httpapi.Public, func(ctx context.Context, r echo) (echo, error) {
		close(entered)
		<-release
		return r, nil
	}))
	guard := n.Conn(t, "orders")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var first sync.WaitGroup
	first.Go(func() {
		if got, err := Call[echo](ctx, guard, wire.APIRevocation+"x", "", echo{Text: "1"}); err != nil || got.Text != "1" {
			t.Errorf("the accepted request was lost: %+v, %v", got, err)
		}
	})
	<-entered
	if _, err := Call[echo](ctx, guard, wire.APIRevocation+"x", "", echo{Text: "2"}); problem.KindOf(err) != problem.Unavailable {
		t.Errorf("a second request while the only place is taken: %v, want unavailable", err)
	}
	stopped := make(chan struct{})
	go func() {
		s.Stop(ctx)
		close(stopped)
	}()
	enginetest.Eventually(t, "no listener", func() error {
		_, err := guard.Request(wire.APIRevocation+"x", nil, 100*time.Millisecond)
		if errors.Is(err, nats.ErrNoResponders) {
			return nil
		}
		return errors.New("still listening")
	})
	select {
	case <-stopped:
		t.Error("stopped before the accepted request was answered")
	default:
	}
	close(release)
	<-stopped
	first.Wait()
}
