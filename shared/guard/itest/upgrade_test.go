package itest

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/guard/follow"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// TestMembersOfNewerMessagesAreIgnored: of every frozen message, alone and on the
// feed, what is added to it says nothing to this version.
func TestMembersOfNewerMessagesAreIgnored(t *testing.T) {
	samples(t, func(name, of string, text []byte) {
		if of != "message.json" {
			return
		}
		t.Run(name, func(t *testing.T) {
			old, err := wire.Decode(text)
			if err != nil {
				t.Fatal(err)
			}
			later := strings.Replace(string(text), "{", `{"later":{"cut":["x"],"a":[1.5,null]},`, 1)
			m, err := wire.Decode([]byte(later))
			if err != nil {
				t.Fatal(err)
			}
			same(t, marshal(t, m), marshal(t, old))
			unknown := strings.Replace(string(text), `"kind": "`+old.Kind+`"`, `"kind": "later"`, 1)
			if _, err := wire.Decode([]byte(unknown)); old.Optional == errors.Is(err, wire.ErrUnknownKind) {
				t.Errorf("of a kind that is not known: %v", err)
			}
		})
	})
}

// TestOlderReadersDenyAfterWhatTheyCanNotRead: a newer service writes a kind, or an
// op, that this version does not know. It may be a revocation: who follows denies,
// connected before or after it, and says why; what is marked optional is passed over.
func TestOlderReadersDenyAfterWhatTheyCanNotRead(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{
		"kind": `{"kind":"later","id":"%s","epoch":%d%s,"cut":7}`,
		"op":   `{"kind":"entry","id":"%s","epoch":%d%s,"ops":["later","end"],"later":{"x":1},"end":["XNvRzQlByDpqeTAE_eNtDA"],"at":1764000000005,"until":4764000000}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			m := w.member("orders", nil)
			known, err := revoke.ParseKey("XNvRzQlByDpqeTAE_eNtDA")
			if err != nil {
				t.Fatal(err)
			}
			w.ready(m)
			put := func(id, optional string) {
				t.Helper()
				text := fmt.Sprintf(body, id, m.Position().Epoch, optional)
				msg := &nats.Msg{Subject: wire.LogPrefix + "later." + id, Header: nats.Header{wire.Header: {text}}}
				if _, err := w.nats.Conn(t, "revocation").RequestMsg(msg, enginetest.Patience()); err != nil {
					t.Fatal(err)
				}
			}
			put("AAAAAAAAAAAAAAAAAAAAAA", `,"optional":true`)
			last := w.end()
			w.caughtUp(m)
			if err := m.accepts(); err != nil {
				t.Fatalf("what is optional stopped it: %v", err)
			}
			if op := m.View().State(known).Ended; op != (name == "op") {
				t.Errorf("of an optional entry the op that is known: applied %t", op)
			}
			put("AQEBAQEBAQEBAQEBAQEBAQ", "")
			enginetest.Eventually(t, "the reader denies", func() error {
				if _, err := m.Check(); !errors.Is(err, follow.ErrUnknown) {
					return fmt.Errorf("%v: want it to say that it can't read the log", err)
				}
				return nil
			})
			if !m.View().State(last.key).Ended {
				t.Error("it has forgotten what it knew")
			}
			// The service at this version says so as well, and proves nobody fresh.
			enginetest.Eventually(t, "the service is not ready", func() error {
				if w.log.Ready() == nil {
					return errors.New("it is")
				}
				return nil
			})
			late := w.member("billing", nil)
			for range 50 {
				if late.accepts() == nil {
					t.Fatal("a reader that came later accepts, and has not read the message")
				}
				time.Sleep(10 * time.Millisecond)
			}
		})
	}
}
