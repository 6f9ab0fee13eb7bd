package httpapi_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap/zaptest"
	"golang.org/x/mod/sumdb/note"

	"github.com/quash-project/quash/services/revocation/audit"
	"github.com/quash-project/quash/services/revocation/audit/natstrail"
	"github.com/quash-project/quash/services/revocation/httpapi"
	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
	frame "github.com/quash-project/quash/shared/httpapi"
	"github.com/quash-project/quash/shared/identity"
	"github.com/quash-project/quash/shared/problem"
	"github.com/quash-project/quash/shared/rights"
	"github.com/quash-project/quash/shared/seal"
)

// tenants authorizes auditors, whose token is the name of their tenant.
type tenants struct{}

func (tenants) Authorize(_ context.Context, token string, scopes []string) (frame.Caller, error) {
	if !slices.Equal(scopes, []string{rights.AuditRead}) {
		return frame.Caller{}, problem.New(problem.Forbidden, "not an auditor")
	}
	return frame.Caller{Subject: "auditor", Tenant: token}, nil
}

// world is a log, a bucket, the trail of both, and the API about it.
type world struct {
	t    *testing.T
	nats *enginetest.NATSServer
	log  jetstream.JetStream
	keys jetstream.KeyValue
	*httptest.Server
	signer   note.Signer
	verifier note.Verifier
	n        int
	wait     time.Duration // of the API for the trail
	since    map[string]time.Time
	sealed   frame.Pages
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, nats: enginetest.NATS(t), wait: 20 * time.Second, sealed: pages(t)}
	js := func(user string) jetstream.JetStream {
		out, err := jetstream.New(w.nats.Conn(t, user))
		w.must(err)
		return out
	}
	w.log = js(identity.Revocation)
	_, err := w.log.CreateStream(t.Context(), jetstream.StreamConfig{Name: wire.Stream, Subjects: []string{wire.LogAll}})
	w.must(err)
	w.keys, err = js(identity.Issuer).CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "keys", History: 64})
	w.must(err)
	private, public, err := note.GenerateKey(rand.Reader, "quash.test/audit")
	w.must(err)
	w.signer, err = note.NewSigner(private)
	w.must(err)
	w.verifier, err = note.NewVerifier(public)
	w.must(err)
	w.Server = w.serve(func(context.Context) (note.Signer, error) { return w.signer, nil })
	return w
}

// pages are those of a key-encryption key of its own.
func pages(t *testing.T) frame.Pages {
	t.Helper()
	file := filepath.Join(t.TempDir(), "kek")
	if err := seal.CreateKEK(file); err != nil {
		t.Fatal(err)
	}
	kek, err := seal.LoadKEK(file)
	if err != nil {
		t.Fatal(err)
	}
	return frame.NewPages(kek)
}

// serve serves the API with this key.
func (w *world) serve(signer func(context.Context) (note.Signer, error)) *httptest.Server {
	r, err := natstrail.NewReader(w.nats.Conn(w.t, identity.Revocation), w.nats.Conn(w.t, identity.ControlReader))
	w.must(err)
	mux := http.NewServeMux()
	httpapi.RegisterAudit(frame.New(mux, "test", tenants{}, nil), w.sealed, httpapi.Trail{
		Kept: r, Home: "default", Since: func(_ context.Context, tenant string) (time.Time, error) { return w.since[tenant], nil },
		Origin: "quash.test/audit", Signer: signer, Log: zaptest.NewLogger(w.t), Wait: w.wait,
	})
	s := httptest.NewServer(frame.Handler(mux, nil, nil))
	w.t.Cleanup(s.Close)
	return s
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) follow() (stop func()) {
	w.t.Helper()
	f, err := natstrail.New(natstrail.Config{
		NATS: w.nats.Conn(w.t, identity.Revocation), Control: w.nats.Conn(w.t, identity.ControlReader), Gather: 10 * time.Millisecond,
	})
	w.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	ended := false
	stop = func() {
		if !ended {
			ended = true
			cancel()
			w.must(<-done)
		}
	}
	w.t.Cleanup(stop)
	return stop
}

// entry commits an entry of a tenant; its reason tells it from the others. An empty
// tenant: it has none.
func (w *world) entry(tenant, actor string, targets ...string) string {
	w.t.Helper()
	w.n++
	reason := fmt.Sprintf("entry %d", w.n)
	data := map[string]any{"op": "revoke", "service": "issuer", "actor": actor, "reason": reason, "entry": fmt.Sprintf("id%d", w.n)}
	if tenant != "" {
		data["tenant"] = tenant
	}
	var list []any
	for _, text := range targets {
		t, err := revoke.ParseTarget("default", revoke.Own, text)
		w.must(err)
		list = append(list, map[string]any{"issuer": "own", "kind": t.Kind, "id": t.ID})
	}
	data["targets"] = list
	body, err := json.Marshal(map[string]any{
		"specversion": "1.0", "id": "AwMDAwMDAwMDAwMDAwMDAw", "source": "/quash/revocation", "type": "dev.quash.log.entry", "time": "2026-01-02T03:04:05.000Z",
		"datacontenttype": "application/json", "data": data,
	})
	w.must(err)
	_, err = w.log.PublishMsg(w.t.Context(), &nats.Msg{Subject: fmt.Sprintf("%s%d", wire.LogEntry, w.n), Data: body, Header: nats.Header{wire.Header: {"{}"}}})
	w.must(err)
	return reason
}

func (w *world) record(tenant string) string {
	w.t.Helper()
	w.n++
	reason := fmt.Sprintf("record %d", w.n)
	_, err := w.keys.Put(w.t.Context(), fmt.Sprintf("%s.k%d", tenant, w.n), fmt.Appendf(nil,
		`{"sha256":"very secret","meta":{"actor":"bob","reason":%q,"at":"2026-02-03T04:05:06Z"}}`, reason))
	w.must(err)
	return reason
}

// get asks as the auditor of a tenant.
func (w *world) get(s *httptest.Server, tenant, path string, query url.Values) (*http.Response, []byte) {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, s.URL+path+"?"+query.Encode(), nil)
	w.must(err)
	req.Header.Set("Authorization", "Bearer "+tenant)
	resp, err := s.Client().Do(req)
	w.must(err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return resp, nil // it was broken off
	}
	return resp, body
}

type page struct {
	Items []httpapi.AuditItem
	Next  string `json:"next_page"`
}

func (w *world) page(tenant string, query url.Values) (p page) {
	w.t.Helper()
	resp, body := w.get(w.Server, tenant, "/v1/audit", query)
	if resp.StatusCode != 200 || json.Unmarshal(body, &p) != nil {
		w.t.Fatalf("%v: status %d: %s", query, resp.StatusCode, body)
	}
	if bytes.Contains(body, []byte("very secret")) {
		w.t.Error("the value of a record is in the answer")
	}
	return p
}

// search returns the reasons of all that is found, by pages of a size.
func (w *world) search(tenant string, size int, pairs ...string) (out []string) {
	w.t.Helper()
	q := url.Values{"limit": {fmt.Sprint(size)}}
	for i := 0; i+1 < len(pairs); i += 2 {
		q.Set(pairs[i], pairs[i+1])
	}
	for {
		p := w.page(tenant, q)
		for _, it := range p.Items {
			out = append(out, it.Reason)
		}
		if p.Next == "" {
			return out
		}
		q.Set("page", p.Next)
	}
}

// lines are those of an export.
func (w *world) lines(tenant string, pairs ...string) (out []httpapi.AuditItem) {
	w.t.Helper()
	q := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		q.Set(pairs[i], pairs[i+1])
	}
	resp, body := w.get(w.Server, tenant, "/v1/audit/export", q)
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "application/jsonl" || len(body) > 0 && body[len(body)-1] != '\n' {
		w.t.Fatalf("%v: status %d, %v: %s", q, resp.StatusCode, resp.Header, body)
	}
	for line := range bytes.Lines(body) {
		var it httpapi.AuditItem
		d := json.NewDecoder(bytes.NewReader(line))
		d.DisallowUnknownFields()
		if err := d.Decode(&it); err != nil {
			w.t.Fatalf("%q: %v", line, err)
		}
		out = append(out, it)
	}
	return out
}

func TestAuditIsFoundByEachCriterion(t *testing.T) {
	w := newWorld(t)
	w.follow()
	a := w.entry("default", "alice", "principal:mallory", "session:s1")
	b := w.record("default")
	c := w.entry("default", "carol", "principal:mallory")
	d := w.entry("", "alice") // of the installation
	e := w.record("acme")
	f := w.entry("acme", "dave", "principal:mallory")
	w.must(w.keys.Delete(t.Context(), "default.k2"))
	const g = "what was marked is finished"
	all := []string{a, b, c, d, e, f, g}
	// Log and buckets are read by themselves: among them any order is right.
	same := func(got, want []string) bool {
		return slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want)))
	}
	for name, q := range map[string]struct{ pairs, want []string }{
		"all":                {nil, all},
		"actor":              {[]string{"actor", "alice"}, []string{a, d}},
		"nobody":             {[]string{"actor", "alic"}, nil},
		"target":             {[]string{"target", "principal:mallory"}, []string{a, c, f}},
		"target, by key":     {[]string{"target", "session:s1"}, []string{a}},
		"type":               {[]string{"type", audit.TypeRemove}, []string{g}},
		"bucket":             {[]string{"record", "keys"}, []string{b, e, g}},
		"record":             {[]string{"record", "keys/default.k2"}, []string{b, g}},
		"tenant":             {[]string{"tenant", "acme"}, []string{e, f}},
		"two":                {[]string{"actor", "alice", "target", "principal:mallory"}, []string{a}},
		"since long ago":     {[]string{"since", time.Now().Add(-time.Hour).Format(time.RFC3339)}, all},
		"since a time ahead": {[]string{"since", time.Now().Add(time.Hour).Format(time.RFC3339)}, nil},
		"until long ago":     {[]string{"until", time.Now().Add(-time.Hour).Format(time.RFC3339)}, nil},
		"until later":        {[]string{"until", time.Now().Add(time.Hour).Format(time.RFC3339Nano)}, all},
	} {
		newest := w.search("default", 1000, q.pairs...)
		if !same(newest, q.want) {
			t.Errorf("%s: %q, want %q", name, newest, q.want)
		}
		oldest := w.search("default", 1, append(slices.Clone(q.pairs), "order", "oldest")...)
		slices.Reverse(oldest)
		if !slices.Equal(oldest, newest) {
			t.Errorf("%s: %q, and the oldest first %q", name, newest, oldest)
		}
		var exported []string
		for _, it := range w.lines("default", q.pairs...) {
			if n := len(exported); n == 0 || exported[n-1] != it.Reason {
				exported = append(exported, it.Reason)
			}
		}
		slices.Reverse(exported)
		if !slices.Equal(exported, newest) {
			t.Errorf("%s: exported %q, found %q", name, exported, newest)
		}
	}
	for query, field := range map[string]string{
		"since=yesterday": "since", "until=1": "until", "target=mallory": "target", "order=any": "order", "tenant=A": "tenant", "limit=0": "limit",
		"actors=a": "actors", "actor=" + strings.Repeat("a", 513): "actor", "page=AAAA": "page",
	} {
		q, err := url.ParseQuery(query)
		w.must(err)
		resp, body := w.get(w.Server, "default", "/v1/audit", q)
		if resp.StatusCode != 422 || !bytes.Contains(body, fmt.Appendf(nil, "%q", field)) {
			t.Errorf("%.40s: status %d: %s", query, resp.StatusCode, body)
		}
	}
	for query, field := range map[string]string{
		"since=yesterday": "since", "target=mallory": "target", "tenant=A": "tenant", "actors=a": "actors", "actor=" + strings.Repeat("a", 513): "actor",
		"from=0": "from", "from=x": "from", "follow=yes": "follow", "for=1s": "for", "follow=true&for=2h": "for",
	} {
		q, err := url.ParseQuery(query)
		w.must(err)
		resp, body := w.get(w.Server, "default", "/v1/audit/export", q)
		if resp.StatusCode != 422 || !bytes.Contains(body, fmt.Appendf(nil, "%q", field)) {
			t.Errorf("export %.40s: status %d: %s", query, resp.StatusCode, body)
		}
	}
}

// TestTenantsSeeNothingOfOthersInTheAudit, not by the token of a page either.
func TestTenantsSeeNothingOfOthersInTheAudit(t *testing.T) {
	w := newWorld(t)
	w.follow()
	var theirs []string
	for range 3 {
		w.entry("default", "alice", "principal:mallory")
		theirs = append(theirs, w.entry("acme", "dave", "principal:mallory"))
		w.entry("", "alice", "principal:mallory")
		w.record("default")
		theirs = append(theirs, w.record("acme"))
		w.record("acmecorp") // whose name only begins alike
	}
	slices.Sort(theirs)
	for _, size := range []int{1, 4, 1000} {
		if got := w.search("acme", size); !slices.Equal(slices.Sorted(slices.Values(got)), theirs) {
			t.Errorf("by pages of %d: %q, want %q", size, got, theirs)
		}
	}
	// What is there since now was another's of the same name before.
	w.since = map[string]time.Time{"acme": time.Now()}
	if got, lines := w.search("acme", 10), w.lines("acme"); len(got)+len(lines) != 0 {
		t.Errorf("of the former tenant of the name are seen %q, exported %+v", got, lines)
	}
	if got := w.search("default", 1000, "tenant", "acme"); len(got) != len(theirs) {
		t.Errorf("the home tenant sees %q of it", got)
	}
	w.since = nil
	var lines []string
	for _, it := range w.lines("acme") {
		lines = append(lines, it.Reason)
		if it.Tenant != "acme" {
			t.Errorf("exported: %+v", it)
		}
	}
	slices.Sort(lines)
	if !slices.Equal(lines, theirs) {
		t.Errorf("exported: %q, want %q", lines, theirs)
	}
	if got := w.search("globex", 10); len(got) != 0 {
		t.Errorf("a tenant that has nothing sees %q", got)
	}
	token := w.page("default", url.Values{"limit": {"1"}}).Next
	for tenant, want := range map[string]int{"default": 200, "acme": 422, "globex": 422} {
		if resp, body := w.get(w.Server, tenant, "/v1/audit", url.Values{"limit": {"1"}, "page": {token}}); resp.StatusCode != want {
			t.Errorf("the token of the home tenant, by %s: status %d: %s", tenant, resp.StatusCode, body)
		}
	}
	if resp, _ := w.get(w.Server, "default", "/v1/audit", url.Values{"limit": {"1"}, "page": {token}, "actor": {"alice"}}); resp.StatusCode != 422 {
		t.Errorf("the token of another question: status %d", resp.StatusCode)
	}
	for path, q := range map[string]url.Values{
		"/v1/audit": {"tenant": {"default"}}, "/v1/audit/export": {"tenant": {"default"}}, "/v1/audit/pages": nil, "/v1/audit/checkpoint": nil,
	} {
		if resp, body := w.get(w.Server, "acme", path, q); resp.StatusCode != 403 || bytes.Contains(body, []byte("entry")) {
			t.Errorf("%s %v: status %d: %s", path, q, resp.StatusCode, body)
		}
	}
}

// TestAuditAnswersHaveWhatWasCommittedJustBefore, or are none.
func TestAuditAnswersHaveWhatWasCommittedJustBefore(t *testing.T) {
	w := newWorld(t)
	stop := w.follow()
	for i := range 15 {
		entry, record := w.entry("default", "alice", "principal:mallory"), w.record("default")
		var got []string
		if i%2 == 0 {
			got = w.search("default", 5)
		} else {
			for _, it := range w.lines("default") {
				got = append(got, it.Reason)
			}
		}
		if !slices.Contains(got, entry) || !slices.Contains(got, record) {
			t.Fatalf("%q, want %q and %q too", got, entry, record)
		}
	}
	before := w.page("default", url.Values{"limit": {"1"}})
	stop()
	w.entry("default", "alice")
	w.wait = 50 * time.Millisecond
	w.Server = w.serve(func(context.Context) (note.Signer, error) { return w.signer, nil })
	for _, path := range []string{"/v1/audit", "/v1/audit/export", "/v1/audit/checkpoint"} {
		if resp, body := w.get(w.Server, "default", path, nil); resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
			t.Errorf("%s: status %d: %s; want 503 and when to ask again", path, resp.StatusCode, body)
		}
	}
	// What goes on is about what there was when it began.
	if p := w.page("default", url.Values{"limit": {"1"}, "page": {before.Next}}); len(p.Items) != 1 {
		t.Errorf("the next page: %+v", p)
	}
	_, body := w.get(w.Server, "default", "/v1/audit/pages", nil)
	if first, _, _ := bytes.Cut(body, []byte("\n")); !bytes.Contains(first, []byte(`"behind":"the audit trail has read QUASH_LOG up to`)) {
		t.Errorf("the pages of a trail that is behind begin with %s", first)
	}
}

// TestExportHasALineForEachTarget, and goes on with what comes if it is asked to.
func TestExportHasALineForEachTarget(t *testing.T) {
	w := newWorld(t)
	w.follow()
	w.entry("default", "alice", "principal:a", "principal:b", "key:c")
	w.record("default")
	w.entry("default", "alice", "principal:d")
	var got []string
	for _, it := range w.lines("default", "type", "dev.quash.log.entry") {
		got = append(got, it.Target)
		if len(it.Targets) > 0 || it.ID == "" || it.Op != "revoke" || it.Actor != "alice" || it.Sequence == 0 || len(it.Digest) != 43 {
			t.Errorf("%+v", it)
		}
	}
	if want := []string{"principal:a", "principal:b", "key:c", "principal:d"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.URL+"/v1/audit/export?follow=true&type=dev.quash.log.entry&from=1", nil)
	w.must(err)
	req.Header.Set("Authorization", "Bearer default")
	resp, err := w.Client().Do(req)
	w.must(err)
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	next := func() (it httpapi.AuditItem) {
		t.Helper()
		if !lines.Scan() || json.Unmarshal(lines.Bytes(), &it) != nil {
			t.Fatalf("%q, %v", lines.Text(), lines.Err())
		}
		return it
	}
	for _, want := range got {
		if it := next(); it.Target != want {
			t.Errorf("%+v, want %s", it, want)
		}
	}
	for i := range 3 {
		want := fmt.Sprint("principal:later", i)
		w.entry("default", "alice", want)
		if it := next(); it.Target != want {
			t.Errorf("%+v, want %s", it, want)
		}
	}
	if lines := w.lines("default", "type", "dev.quash.log.entry", "follow", "true", "for", "300ms"); len(lines) != 7 {
		t.Errorf("%d lines for a moment, want 7", len(lines))
	}
}

// TestCheckpointIsOfTheTrailAsItIs, and there is none without a key.
func TestCheckpointIsOfTheTrailAsItIs(t *testing.T) {
	w := newWorld(t)
	w.follow()
	for range 3 {
		w.entry("default", "alice", "principal:a")
		resp, body := w.get(w.Server, "default", "/v1/audit/checkpoint", nil)
		c, err := audit.OpenCheckpoint(body, note.VerifierList(w.verifier))
		if err != nil || resp.StatusCode != 200 {
			t.Fatalf("status %d: %s: %v", resp.StatusCode, body, err)
		}
		v := audit.NewVerifier(nil)
		v.Against(c)
		r, err := natstrail.NewReader(w.nats.Conn(t, identity.Revocation), nil)
		w.must(err)
		last, had, err := r.Last(t.Context())
		w.must(err)
		w.must(r.Pages(t.Context(), 1, last.Number, func(s audit.Stored) error { return v.Page(s.Number, s.Body) }))
		w.must(v.End(had))
		if c.Origin != "quash.test/audit" || c.Size != last.Number {
			t.Errorf("%+v, and the trail has %d pages", c, last.Number)
		}
	}
	for name, signer := range map[string]func(context.Context) (note.Signer, error){
		"none": nil, "one that can't be had": func(context.Context) (note.Signer, error) { return nil, errors.New("sealed") },
	} {
		if resp, body := w.get(w.serve(signer), "default", "/v1/audit/checkpoint", nil); resp.StatusCode != 503 || bytes.Contains(body, []byte("sealed")) {
			t.Errorf("%s: status %d: %s", name, resp.StatusCode, body)
		}
	}
}

// TestDamagedTrailIsNoAnswer: it is told, or broken off.
func TestDamagedTrailIsNoAnswer(t *testing.T) {
	w := newWorld(t)
	stop := w.follow()
	for range 3 {
		w.entry("default", "alice", "principal:a")
		w.search("default", 1)
	}
	stop()
	js, err := jetstream.New(w.nats.Admin(t, identity.Log))
	w.must(err)
	s, err := js.Stream(t.Context(), audit.Stream)
	w.must(err)
	cfg, n := s.CachedInfo().Config, s.CachedInfo().State.LastSeq
	var pages [][]byte
	for seq := range n {
		m, err := s.GetMsg(t.Context(), seq+1)
		w.must(err)
		pages = append(pages, m.Data)
	}
	w.must(js.DeleteStream(t.Context(), audit.Stream))
	_, err = js.CreateStream(t.Context(), cfg)
	w.must(err)
	pages[0] = []byte("{}")
	for _, p := range pages {
		_, err := js.Publish(t.Context(), audit.Subject, p)
		w.must(err)
	}
	if resp, body := w.get(w.Server, "default", "/v1/audit", nil); resp.StatusCode != 500 || !bytes.Contains(body, []byte("page 1 of the audit trail is damaged")) {
		t.Errorf("search: status %d: %s", resp.StatusCode, body)
	}
	if resp, body := w.get(w.Server, "default", "/v1/audit/export", nil); resp.StatusCode == 200 && body != nil {
		t.Errorf("export: status %d, and it ends well: %s", resp.StatusCode, body)
	}
	if resp, body := w.get(w.Server, "default", "/v1/audit/pages", nil); resp.StatusCode != 200 || bytes.Count(body, []byte("\n")) != int(n)+1 {
		t.Errorf("pages: status %d: %s; want all, for who verifies them", resp.StatusCode, body)
	}
}
