package backup

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/nats-io/jsm.go/api"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// node answers a restore as a node of a cluster does. A single broker has no other node
// that hears late, so this one begins to listen late by itself.
type node struct {
	t      *testing.T
	client *nats.Conn
	own    *nats.Conn
	got    bytes.Buffer
	chunks int
	late   time.Duration // between the answer and that it listens
}

func newNode(t *testing.T) *node {
	t.Helper()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the broker is not ready")
	}
	n := &node{t: t}
	for _, to := range []**nats.Conn{&n.client, &n.own} {
		if *to, err = nats.Connect(s.ClientURL()); err != nil {
			t.Fatal(err)
		}
		t.Cleanup((*to).Close)
	}
	return n
}

func (n *node) listen(subject string, f func(*nats.Msg)) {
	if _, err := n.own.Subscribe(subject, f); err != nil {
		n.t.Error(err)
	}
	if err := n.own.Flush(); err != nil {
		n.t.Error(err)
	}
}

func (n *node) answer(m *nats.Msg, with any) {
	text, err := json.Marshal(with)
	if err == nil {
		err = m.Respond(text)
	}
	if err != nil {
		n.t.Error(err)
	}
}

// restores answers the request, and then listens for the chunks.
func (n *node) restores(chunk func(*nats.Msg)) {
	n.listen("$JS.API.STREAM.RESTORE.S", func(m *nats.Msg) {
		n.answer(m, api.JSApiStreamRestoreResponse{DeliverSubject: "chunks"})
		time.Sleep(n.late)
		n.listen("chunks", chunk)
	})
}

func TestUploadWaitsForTheNodeThatListens(t *testing.T) {
	n := newNode(t)
	n.late = 300 * time.Millisecond
	n.restores(func(m *nats.Msg) {
		if len(m.Data) == 0 {
			n.answer(m, api.JSApiStreamCreateResponse{StreamInfo: &api.StreamInfo{State: api.StreamState{LastSeq: 7}}})
			return
		}
		n.got.Write(m.Data)
		n.chunks++
		_ = m.Respond(nil)
	})
	want := strings.Repeat("0123456789abcdef", 3*chunkSize/16) + "end"
	last, err := upload(t.Context(), n.client, "S", []byte("{}"), iotest.HalfReader(strings.NewReader(want)))
	if err != nil || last != 7 {
		t.Fatalf("%d, %v", last, err)
	}
	if n.got.String() != want || n.chunks != 4 {
		t.Errorf("%d bytes of %d came, in %d chunks", n.got.Len(), len(want), n.chunks)
	}
}

func TestUploadSaysWhyItWasRefused(t *testing.T) {
	full := &api.ApiError{Code: 503, ErrCode: 10023, Description: "insufficient resources"}
	for _, tc := range []struct {
		name  string
		chunk func(*node, *nats.Msg)
	}{
		{"a chunk", func(n *node, m *nats.Msg) {
			n.answer(m, api.JSApiStreamCreateResponse{JSApiResponse: api.JSApiResponse{Error: full}})
		}},
		{"the end", func(n *node, m *nats.Msg) {
			if len(m.Data) > 0 {
				_ = m.Respond(nil)
				return
			}
			n.answer(m, api.JSApiStreamCreateResponse{JSApiResponse: api.JSApiResponse{Error: full}})
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n := newNode(t)
			n.restores(func(m *nats.Msg) { tc.chunk(n, m) })
			_, err := upload(t.Context(), n.client, "S", []byte("{}"), strings.NewReader("data"))
			if err == nil || !strings.Contains(err.Error(), full.Description) {
				t.Errorf("%v, want %q", err, full.Description)
			}
		})
	}
	t.Run("what is read", func(t *testing.T) {
		n := newNode(t)
		n.restores(func(m *nats.Msg) { _ = m.Respond(nil) })
		broken := errors.New("the file is broken")
		if _, err := upload(t.Context(), n.client, "S", []byte("{}"), io.MultiReader(strings.NewReader(strings.Repeat("0", chunkSize)), iotest.ErrReader(broken))); !errors.Is(err, broken) {
			t.Errorf("%v, want %v", err, broken)
		}
	})
}
