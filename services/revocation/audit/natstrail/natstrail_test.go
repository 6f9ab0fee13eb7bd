package natstrail

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/quash-project/quash/schemas/schematest"
	"github.com/quash-project/quash/services/revocation/audit"
	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/identity"
	"github.com/quash-project/quash/shared/kv"
)

// world has a log and a bucket, and whoever writes them.
type world struct {
	t    *testing.T
	nats *enginetest.NATSServer
	log  jetstream.JetStream
	keys jetstream.KeyValue
	n    int
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, nats: enginetest.NATS(t)}
	w.log = w.js(identity.Revocation)
	w.makeLog()
	var err error
	w.keys, err = w.js(identity.Issuer).CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "keys", History: 64})
	w.must(err)
	return w
}

func (w *world) js(user string) jetstream.JetStream {
	w.t.Helper()
	js, err := jetstream.New(w.nats.Conn(w.t, user))
	w.must(err)
	return js
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) makeLog() {
	w.t.Helper()
	_, err := w.log.CreateStream(w.t.Context(), jetstream.StreamConfig{Name: wire.Stream, Subjects: []string{wire.LogAll}})
	w.must(err)
}

// start starts the broker again, and waits until it is reached.
func (w *world) start() {
	w.t.Helper()
	w.nats.Start(w.t)
	enginetest.Eventually(w.t, "the broker is reached", func() error {
		if _, err := w.keys.Status(w.t.Context()); err != nil {
			return err
		}
		_, err := w.log.Stream(w.t.Context(), wire.Stream)
		return err
	})
}

// admin has every right in the log's account.
func (w *world) admin() *nats.Conn { return w.nats.Admin(w.t, identity.Log) }

// event stores an entry in the log; its reason tells it from the others.
func (w *world) event() string {
	w.t.Helper()
	w.n++
	reason := fmt.Sprintf("event %d", w.n)
	body := fmt.Sprintf(`{"specversion":"1.0","id":"AwMDAwMDAwMDAwMDAwMDAw","source":"/quash/revocation","type":"dev.quash.log.entry","time":"2026-01-02T03:04:05.000Z",
		"datacontenttype":"application/json","data":{"op":"release","service":"issuer","actor":"alice","reason":%q,"target_keys":["XNvRzQlByDpqeTAE_eNtDA"]}}`, reason)
	_, err := w.log.PublishMsg(w.t.Context(), &nats.Msg{Subject: fmt.Sprintf("%s%d", wire.LogEntry, w.n), Data: []byte(body), Header: nats.Header{wire.Header: {"{}"}}})
	w.must(err)
	_, err = w.log.Publish(w.t.Context(), wire.LogTick, nil)
	w.must(err)
	return reason
}

// record changes a record of a bucket.
func (w *world) record() string {
	w.t.Helper()
	w.n++
	reason := fmt.Sprintf("record %d", w.n)
	_, err := w.keys.Put(w.t.Context(), fmt.Sprintf("default.k%d", w.n), fmt.Appendf(nil,
		`{"sealed":"very secret","sha256":"very secret","meta":{"actor":"carol","reason":"old","at":"2026-01-01T00:00:00Z"},"mark":{"actor":"bob","reason":%q,"at":"2026-02-03T04:05:06Z"}}`, reason))
	w.must(err)
	return reason
}

func (w *world) follower(name string) (stop func()) {
	w.t.Helper()
	f, err := New(Config{
		NATS: w.nats.Conn(w.t, identity.Revocation), Control: w.nats.Conn(w.t, identity.ControlReader),
		Log: zaptest.NewLogger(w.t, zaptest.Level(zap.ErrorLevel)).Named(name), Gather: 10 * time.Millisecond,
	})
	w.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			cancel()
			w.must(<-done)
		}
	}
	w.t.Cleanup(stop)
	return stop
}

// items verifies the chain and returns it.
func (w *world) items() ([]audit.Item, error) {
	var out []audit.Item
	_, err := Verify(w.t.Context(), w.nats.Conn(w.t, identity.Revocation), func(it audit.Item) error {
		out = append(out, it)
		return nil
	})
	return out, err
}

// has waits until the verified chain has exactly these reasons, in any order.
func (w *world) has(reasons ...string) []audit.Item {
	w.t.Helper()
	var items []audit.Item
	enginetest.Eventually(w.t, "all of it is in the chain", func() error {
		var err error
		var broken *audit.Broken
		if items, err = w.items(); errors.As(err, &broken) {
			w.t.Fatal(err) // no waiting mends it
		}
		if err != nil {
			return err
		}
		var got []string
		for _, it := range items {
			got = append(got, it.Reason)
		}
		slices.Sort(got)
		want := slices.Sorted(slices.Values(reasons))
		if !slices.Equal(got, want) {
			return fmt.Errorf("the chain has %q, want %q", got, want)
		}
		return nil
	})
	return items
}

func TestEveryChangeIsInTheChainOnce(t *testing.T) {
	w := newWorld(t)
	want := []string{w.event(), w.record()}
	w.follower("a")
	want = append(want, w.event(), w.record(), w.event())
	_, err := w.keys.Put(t.Context(), kv.BeatPrefix+"replica", []byte("{}"))
	w.must(err)
	w.must(w.keys.Delete(t.Context(), "default.k2"))
	items := w.has(append(want, "what was marked is finished")...)
	for _, it := range items {
		switch {
		case strings.HasPrefix(it.Reason, "event"):
			if it.Actor != "alice" || it.Type != "dev.quash.log.entry" || it.At.Format(time.RFC3339) != "2026-01-02T03:04:05Z" || len(it.Event) == 0 {
				t.Errorf("%+v", it)
			}
		case strings.HasPrefix(it.Reason, "record"):
			if it.Actor != "bob" || it.Type != audit.TypePut || it.Bucket != "keys" || !strings.HasPrefix(it.Key, "default.k") || it.At.Year() != 2026 || it.At.Month() != 2 {
				t.Errorf("%+v", it)
			}
		default:
			if it.Type != audit.TypeRemove || it.Actor != identity.Issuer || it.Key != "default.k2" {
				t.Errorf("%+v", it)
			}
		}
	}
	all, err := json.Marshal(items)
	w.must(err)
	if strings.Contains(string(all), "secret") {
		t.Error("the value of a record is in the chain")
	}
}

func TestPagesAreWhatTheSchemaSays(t *testing.T) {
	w := newWorld(t)
	w.follower("a")
	w.has(w.event(), w.record())
	all := schematest.Load(t)
	for _, page := range w.pages() {
		all.Valid(t, "audit.json", page)
	}
}

// Several followers at once, which come and go.
func TestReplicasAndRestartsLeaveNothingOutAndRepeatNothing(t *testing.T) {
	w := newWorld(t)
	var want []string
	some := func() {
		for range 20 {
			want = append(want, w.event(), w.record())
		}
	}
	stopA := w.follower("a")
	w.follower("b")
	some()
	w.follower("c")
	some()
	w.has(want...)
	stopA()
	some()
	w.has(want...)
}

func TestFollowerGoesOnWhereTheChainEnds(t *testing.T) {
	w := newWorld(t)
	want := []string{w.event(), w.record()}
	stop := w.follower("a")
	w.has(want...)
	stop()
	want = append(want, w.event(), w.record())
	w.follower("b")
	w.has(want...)
}

func TestSourceThatIsMadeAnewIsNamedAndFollowed(t *testing.T) {
	w := newWorld(t)
	before := []string{w.event(), w.event(), w.record()}
	stop := w.follower("a")
	w.has(before...)
	stop()
	js, err := jetstream.New(w.admin())
	w.must(err)
	w.must(js.DeleteStream(t.Context(), wire.Stream))
	w.makeLog()
	after := w.event()
	w.follower("b")
	enginetest.Eventually(t, "the new stream is followed", func() error {
		items, err := w.items()
		if err != nil {
			return err
		}
		restarts, news := 0, 0
		for _, it := range items {
			if it.Type == audit.TypeRestart && it.Source == wire.Stream {
				restarts++
			}
			if it.Reason == after {
				news++
			}
		}
		if restarts != 1 || news != 1 {
			return fmt.Errorf("%d restarts, %d new items: %+v", restarts, news, items)
		}
		return nil
	})
}

// TestSourceThatWentBackAndHasGrownIsRead: its end tells nothing, since it is above what
// was read of the former history; what differs is what stands there.
func TestSourceThatWentBackAndHasGrownIsRead(t *testing.T) {
	for _, running := range []bool{true, false} {
		t.Run(fmt.Sprintf("running=%t", running), func(t *testing.T) {
			w := newWorld(t)
			dir, at := w.nats.Dir, t.TempDir()
			swap := func(from, to string) {
				w.must(os.RemoveAll(to))
				w.must(os.CopyFS(to, os.DirFS(from)))
			}
			before := []string{w.event(), w.record()}
			w.nats.Stop()
			swap(dir, at+"/before")
			w.start()
			other := []string{w.event(), w.event(), w.record(), w.event(), w.record()}
			w.nats.Stop()
			swap(dir, at+"/other")
			swap(at+"/before", dir)
			w.start()
			lost := []string{w.event(), w.record()}
			stop := w.follower("a")
			w.has(append(before, lost...)...)
			if !running {
				stop()
			}
			pages := filepath.Join("jetstream", "*", "streams", audit.Stream)
			w.nats.Stop()
			kept, err := filepath.Glob(filepath.Join(dir, pages))
			w.must(err)
			swap(kept[0], at+"/audit")
			swap(at+"/other", dir)
			swap(at+"/audit", kept[0])
			w.start()
			if !running {
				w.follower("b")
			}
			enginetest.Eventually(t, "the other history is in the chain", func() error {
				items, err := w.items()
				if err != nil {
					return err
				}
				seen := map[string]int{}
				for _, it := range items {
					seen[it.Reason]++
					seen[it.Source+" "+it.Type]++
				}
				for _, reason := range other {
					if seen[reason] != 1 {
						return fmt.Errorf("%q is %d times in the chain", reason, seen[reason])
					}
				}
				if a, b := seen[wire.Stream+" "+audit.TypeRestart], seen["KV_keys "+audit.TypeRestart]; a != 1 || b != 1 {
					return fmt.Errorf("%d and %d restarts are named", a, b)
				}
				return nil
			})
		})
	}
}

func TestBreaksAreFound(t *testing.T) {
	pages := func(t *testing.T) [][]byte {
		w := newWorld(t)
		w.follower("a")
		var want []string
		for range 4 {
			want = append(want, w.event())
			w.has(want...)
		}
		return w.pages()
	}(t)
	check := func(pages [][]byte, had int) error {
		v := audit.NewVerifier(nil)
		for i, p := range pages {
			if p == nil {
				continue // gone
			}
			if err := v.Page(uint64(i)+1, p); err != nil {
				return err
			}
		}
		return v.End(uint64(had))
	}
	if err := check(pages, len(pages)); err != nil || len(pages) < 4 {
		t.Fatalf("%d pages: %v", len(pages), err)
	}
	for name, c := range map[string]struct {
		change func(p [][]byte) [][]byte
		page   uint64 // that is named
	}{
		"a word changed":  {func(p [][]byte) [][]byte { p[1] = []byte(strings.Replace(string(p[1]), "alice", "alicf", 1)); return p }, 3},
		"a page gone":     {func(p [][]byte) [][]byte { p[1] = nil; return p }, 2},
		"the first gone":  {func(p [][]byte) [][]byte { p[0] = nil; return p }, 1},
		"the last gone":   {func(p [][]byte) [][]byte { return p[:len(p)-1] }, uint64(len(pages))},
		"pages exchanged": {func(p [][]byte) [][]byte { p[1], p[2] = p[2], p[1]; return p }, 2},
		"a page twice":    {func(p [][]byte) [][]byte { p[2] = p[1]; return p }, 3},
		"a page inserted": {func(p [][]byte) [][]byte { return slices.Insert(p, 2, p[1]) }, 3},
		"garbage":         {func(p [][]byte) [][]byte { p[2] = []byte("{"); return p }, 3},
	} {
		t.Run(name, func(t *testing.T) {
			var broken *audit.Broken
			if err := check(c.change(slices.Clone(pages)), len(pages)); !errors.As(err, &broken) || broken.Number != c.page {
				t.Errorf("found: %v, want page %d", err, c.page)
			}
		})
	}
}

// pages are those of the chain as they are stored.
func (w *world) pages() (out [][]byte) {
	w.t.Helper()
	s, err := w.log.Stream(w.t.Context(), audit.Stream)
	w.must(err)
	for seq := range s.CachedInfo().State.LastSeq {
		m, err := s.GetMsg(w.t.Context(), seq+1)
		w.must(err)
		out = append(out, m.Data)
	}
	return out
}

func FuzzItem(f *testing.F) {
	f.Add("$KV.keys.a.b", []byte(`{"meta":{"actor":"a","reason":"r","at":1}}`), true)
	f.Add("quash.log.entry.x", []byte(`{"type":"t","time":"2026-01-02T03:04:05Z"}`), false)
	f.Fuzz(func(t *testing.T, subject string, body []byte, record bool) {
		s := &stored{source: wire.Stream, sequence: 1, at: time.Unix(1, 0), subject: subject, body: body}
		if record {
			s.source = "KV_keys"
		}
		it, ok := s.item()
		if !ok {
			return
		}
		if it.Digest != s.digest() || it.At.IsZero() {
			t.Errorf("%+v", it)
		}
		b, err := json.Marshal(it)
		if err != nil {
			return // an event that is no JSON is never stored; what is checked is that nothing panics
		}
		var again audit.Item
		if err := json.Unmarshal(b, &again); err != nil {
			t.Errorf("%s: %v", b, err)
		}
	})
}
