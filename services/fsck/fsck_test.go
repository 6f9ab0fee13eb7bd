package fsck_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/quash-project/quash/services/fsck"
	"github.com/quash-project/quash/services/revocation/ledger"
	"github.com/quash-project/quash/services/revocation/receipts"
	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/identity"
)

// world is a log that a service has written, and that nobody writes any more.
type world struct {
	t    *testing.T
	nats *enginetest.NATSServer
	last wire.Position // an entry
	now  time.Time
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, nats: enginetest.NATS(t), now: time.Now()}
	l, err := ledger.New(ledger.Config{NATS: w.nats.Conn(t, identity.Revocation), SyncAlways: true})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	enginetest.Eventually(t, "the ledger is ready", l.Ready)
	a, err := l.Commit(t.Context(), commit.Request{
		Key: "k", Tenant: "default", Op: commit.Revoke, Targets: []commit.Target{{Kind: revoke.KindPrincipal, ID: "alice"}}, Reason: "a test", Actor: "a test",
	}, "test")
	if err != nil {
		t.Fatal(err)
	}
	w.last.Stamp = a.Stamp()
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) check(change ...func(*fsck.Config)) fsck.Report {
	w.t.Helper()
	cfg := fsck.Config{
		Log: w.nats.Conn(w.t, identity.Revocation), Control: w.nats.Conn(w.t, identity.ControlReader), Now: func() time.Time { return w.now },
	}
	for _, f := range change {
		f(&cfg)
	}
	r, err := fsck.Check(w.t.Context(), cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// want wants these differences, as "AREA NAME", and no other.
func (w *world) want(r fsck.Report, want ...string) {
	w.t.Helper()
	var have []string
	for _, d := range r.Differences {
		have = append(have, d.Area+" "+d.Name)
	}
	slices.Sort(have)
	slices.Sort(want)
	if !slices.Equal(have, want) || r.OK != (len(want) == 0) {
		w.t.Errorf("ok %t, differences %q, want %q:\n%q", r.OK, have, want, r.Differences)
	}
}

func (w *world) id() string {
	w.t.Helper()
	id, err := wire.NewID(rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	return id
}

// TestReceiptsThatSayOtherThanTheLogAreNamed: each of them is one that a service would
// not write.
func TestReceiptsThatSayOtherThanTheLogAreNamed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	nc := w.nats.Conn(t, identity.Revocation)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	st, err := js.Stream(t.Context(), wire.Stream)
	if err != nil {
		t.Fatal(err)
	}
	m, err := st.GetMsg(t.Context(), w.last.Seq)
	if err != nil {
		t.Fatal(err)
	}
	var entry struct{ ID string }
	if err := json.Unmarshal([]byte(m.Header.Get(wire.Header)), &entry); err != nil {
		t.Fatal(err)
	}
	b, err := js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: receipts.Bucket})
	if err != nil {
		t.Fatal(err)
	}
	id := strings.TrimPrefix(m.Subject, wire.LogEntry)
	for _, c := range []struct {
		change func(*receipts.Receipt)
		want   []string
	}{
		{func(*receipts.Receipt) {}, nil},
		{func(r *receipts.Receipt) { r.Actor = "mallory" }, []string{"receipts log-differs"}},
		{func(r *receipts.Receipt) { r.Targets = []string{"principal:bob"} }, []string{"receipts log-differs"}},
		{func(r *receipts.Receipt) { r.Op, r.Reason = "hold", "another" }, []string{"receipts log-differs", "receipts log-differs"}},
		{func(r *receipts.Receipt) { r.Epoch++ }, []string{"receipts log-differs", "receipts unknown-epoch"}},
		{func(r *receipts.Receipt) { r.Message = "x" }, []string{"receipts another-message"}},
		{func(r *receipts.Receipt) { r.Message, r.Sequence = "x", r.Sequence+1000 }, []string{"receipts above-head"}},
		{func(r *receipts.Receipt) { r.ID = "x" }, []string{"receipts unreadable"}},
		{func(r *receipts.Receipt) { r.Complete, r.JudgedAt = true, 0 }, []string{"receipts contradicts-itself"}},
		{func(r *receipts.Receipt) { r.Unconfirmed = []receipts.Unconfirmed{{Name: "orders", Open: true}} }, []string{"receipts contradicts-itself"}},
		{func(r *receipts.Receipt) {
			r.Unconfirmed = []receipts.Unconfirmed{{Name: "orders", FencedBy: 9, Fenced: true}}
		}, []string{"receipts contradicts-itself"}},
		{func(r *receipts.Receipt) { r.Redis = &receipts.Redis{} }, []string{"receipts contradicts-itself"}},
	} {
		r := receipts.Receipt{
			ID: id, Message: entry.ID, Tenant: "default", Op: "revoke", Targets: []string{"principal:alice"}, Reason: "a test", Actor: "a test",
			Epoch: w.last.Epoch, Sequence: w.last.Seq, Complete: true, JudgedAt: 5,
		}
		c.change(&r)
		data, err := json.Marshal(r)
		if err == nil {
			_, err = b.Put(t.Context(), "r."+id, data)
		}
		if err != nil {
			t.Fatal(err)
		}
		w.want(w.check(), c.want...)
	}
	other := receipts.Receipt{ID: id, Message: "x", Tenant: "default", Op: "revoke", Targets: []string{"principal:alice"}, Reason: "a test", Actor: "a test", Epoch: w.last.Epoch, Sequence: w.last.Seq}
	data, err := json.Marshal(other)
	if err == nil {
		_, err = b.Put(t.Context(), "r."+id, data)
	}
	if err != nil {
		t.Fatal(err)
	}
	w.want(w.check(), "receipts another-message")
	// Before it was noticed that the log had gone back another message was written there.
	w.put(w.epoch(w.last.Epoch+1, fmt.Sprintf("%d.%d", w.last.Epoch, w.last.Seq-1)))
	w.want(w.check())
}

// odd is a message that a service would not write.
type odd struct {
	subject, head, body string
	ttl                 time.Duration // 0: for ever
}

// entry is one that a service would write.
func (w *world) entry() odd {
	id, until := w.id(), w.now.Add(24*time.Hour).Unix()
	k := revoke.Target{Tenant: "default", Issuer: revoke.Own, Kind: revoke.KindSession, ID: "s"}.Key()
	return odd{
		subject: wire.LogEntry + "e", ttl: 25 * time.Hour,
		head: fmt.Sprintf(`{"kind":"entry","id":%q,"epoch":%d,"ops":["end"],"end":[%q],"at":%d,"until":%d}`, id, w.last.Epoch, k, w.now.UnixMilli(), until),
		body: fmt.Sprintf(`{"specversion":"1.0","id":%q,"source":"/quash/revocation","type":"dev.quash.log.entry","time":"2026-01-02T03:04:05.000Z","data":{"op":"revoke","tenant":"default","service":"test","actor":"a","reason":"r","entry":"e","targets":[{"issuer":"own","kind":"session","id":"s"}]}}`, id),
	}
}

func (w *world) put(o odd) {
	w.t.Helper()
	m := &nats.Msg{Subject: o.subject, Data: []byte(o.body), Header: nats.Header{wire.Header: {o.head}}}
	if o.ttl > 0 {
		m.Header[jetstream.MsgTTLHeader] = []string{strconv.Itoa(int(o.ttl / time.Second))}
	}
	js, err := jetstream.New(w.nats.Conn(w.t, identity.Revocation))
	if err == nil {
		_, err = js.PublishMsg(w.t.Context(), m)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// changed replaces text of a message's part, which must be there.
func changed(t *testing.T, text, from, to string) string {
	t.Helper()
	before, after, ok := strings.Cut(text, from)
	if !ok {
		t.Fatalf("%q is not in %q", from, text)
	}
	return before + to + after
}

func TestWhatNoServiceWouldWriteIntoTheLogIsNamed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.want(w.check())
	good := w.entry()
	w.put(good)
	w.want(w.check())
	var want []string
	for _, c := range []struct {
		what   string
		change func(o *odd)
		names  []string
	}{
		{"the id of another", func(o *odd) { *o = good }, []string{"log same-id"}},
		{"another id in its body", func(o *odd) { o.body = changed(t, o.body, `"source"`, `"id":"`+w.id()+`","source"`) }, []string{"log body"}},
		{"another target in its body", func(o *odd) { o.body = changed(t, o.body, `"id":"s"`, `"id":"t"`) }, []string{"log body"}},
		{"another op in its body", func(o *odd) { o.body = changed(t, o.body, `"revoke"`, `"hold"`) }, []string{"log body"}},
		{"no actor", func(o *odd) { o.body = changed(t, o.body, `"actor":"a"`, `"actor":""`) }, []string{"log body"}},
		{"no body", func(o *odd) { o.body = "" }, []string{"log body"}},
		{"another's subject", func(o *odd) { o.subject = wire.LogEntry + "f" }, []string{"log body"}},
		{"no JSON", func(o *odd) { o.head = "x" }, []string{"log unreadable"}},
		{"an unknown op", func(o *odd) { o.head = changed(t, o.head, `["end"]`, `["end","melt"]`) }, []string{"log unreadable"}},
		{"an unknown kind", func(o *odd) { o.head = changed(t, o.head, `"entry"`, `"melt"`) }, []string{"log unreadable"}},
		{"a life that is too short", func(o *odd) { o.ttl = time.Minute }, []string{"log ttl"}},
		{"a life that is shorter than its meaning", func(o *odd) { o.ttl = 2 * time.Hour }, []string{"log ttl"}},
		{"a life without an end", func(o *odd) { o.ttl = 0 }, []string{"log ttl"}},
		{"an epoch that was not begun", func(o *odd) {
			o.head = changed(t, o.head, fmt.Sprint(w.last.Epoch), fmt.Sprint(w.last.Epoch+1))
		}, []string{"log unknown-epoch"}},
		{"an epoch below the last", func(o *odd) { *o = w.epoch(w.last.Epoch-1, "0.0") }, []string{"log epoch-order"}},
		{"an epoch that shares what never was", func(o *odd) { *o = w.epoch(w.last.Epoch+5, fmt.Sprintf("%d.7", w.last.Epoch-9)) }, []string{"log epoch-shared"}},
	} {
		o := w.entry()
		c.change(&o)
		w.put(o)
		want = append(want, c.names...)
		t.Log(c.what)
		w.want(w.check(), want...)
	}
	// Two faults of one message are two differences of it, and each is counted.
	if r := w.check(); r.Messages < len(want) || r.Targets != 2 {
		t.Errorf("%+v: want the two targets that can be read", r)
	}
}

func (w *world) epoch(number uint64, d string) odd {
	id := w.id()
	return odd{
		subject: wire.LogEpoch,
		head:    fmt.Sprintf(`{"kind":"epoch","id":%q,"epoch":%d,"d":%q,"at":%d}`, id, number, d, w.now.UnixMilli()),
		body:    fmt.Sprintf(`{"id":%q,"source":"/quash/revocation","type":"dev.quash.log.epoch","time":"2026-01-02T03:04:05.000Z","data":{"op":"epoch","actor":"a","reason":"r"}}`, id),
	}
}

func TestGuardsBeyondTheLogAreNamed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, c := range []struct {
		at   revoke.Stamp
		want []string
	}{
		{revoke.Stamp{}, nil},
		{w.last.Stamp, nil},
		{revoke.Stamp{Epoch: w.last.Epoch, Seq: w.last.Seq + 1000}, []string{"fleet above-head"}},
		{revoke.Stamp{Epoch: w.last.Epoch + 1, Seq: 1}, []string{"fleet unknown-epoch"}},
	} {
		r := w.check(func(cfg *fsck.Config) {
			cfg.Fleet = func(context.Context) ([]fsck.Guard, error) {
				return []fsck.Guard{{Name: "orders", Instance: "i", Position: c.at}}, nil
			}
		})
		w.want(r, c.want...)
		if r.Guards != 1 {
			t.Errorf("%d guards, want 1", r.Guards)
		}
	}
}

func TestRecordsThatCantBeAreNamed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	js, err := jetstream.New(w.nats.Conn(t, identity.Issuer))
	if err != nil {
		t.Fatal(err)
	}
	b, err := js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "keys", Storage: jetstream.FileStorage, History: 8})
	if err != nil {
		t.Fatal(err)
	}
	put := func(key string, change func(map[string]any)) {
		t.Helper()
		v := map[string]any{
			"id": "k", "tenant": "default", "stamp": w.last.Stamp.String(), "created_at": w.now, "meta": map[string]any{"actor": "a", "at": w.now},
		}
		change(v)
		data, err := json.Marshal(v)
		if err == nil {
			_, err = b.Put(t.Context(), key, data)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		change func(map[string]any)
		want   []string
	}{
		{func(map[string]any) {}, nil},
		{func(v map[string]any) { v["stamp"] = "x" }, []string{"buckets unreadable"}},
		{func(v map[string]any) { delete(v, "stamp") }, []string{"buckets unreadable"}},
		{func(v map[string]any) { delete(v, "meta") }, []string{"buckets unreadable"}},
		{func(v map[string]any) { v["id"] = "l" }, []string{"buckets key"}},
		{func(v map[string]any) { v["stamp"] = fmt.Sprintf("%d.%d", w.last.Epoch, w.last.Seq+1000) }, []string{"buckets above-head"}},
		{func(v map[string]any) { v["stamp"] = fmt.Sprintf("%d.1", w.last.Epoch+1) }, []string{"buckets unknown-epoch"}},
		{func(v map[string]any) { v["mark"] = map[string]any{"id": "m", "at": w.now.Add(-2 * time.Minute)} }, []string{"buckets mark"}},
		{func(v map[string]any) { v["mark"] = map[string]any{"id": "m", "at": w.now.Add(-time.Second)} }, nil},
	} {
		put("default.k", c.change)
		r := w.check()
		w.want(r, c.want...)
		if r.Records != 1 {
			t.Errorf("%d records, want 1", r.Records)
		}
	}
	if _, err := b.PutString(t.Context(), "default.k", "{"); err != nil {
		t.Fatal(err)
	}
	w.want(w.check(), "buckets unreadable")
	if err := b.Purge(t.Context(), "default.k"); err != nil {
		t.Fatal(err)
	}
	w.want(w.check())
}
