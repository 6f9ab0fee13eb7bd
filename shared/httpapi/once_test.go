package httpapi

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/idempotency"
	"github.com/quash-project/quash/shared/problem"
)

// memory is Notes without a broker.
type memory struct {
	mu    sync.Mutex
	notes map[string]idempotency.Note
	revs  map[string]uint64
	last  uint64
}

func newMemory() *memory {
	return &memory{notes: map[string]idempotency.Note{}, revs: map[string]uint64{}}
}

func (m *memory) Begin(_ context.Context, name string, n idempotency.Note) (idempotency.Note, uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if have, ok := m.notes[name]; ok {
		return have, m.revs[name], nil
	}
	return n, m.put(name, n), nil
}

func (m *memory) put(name string, n idempotency.Note) uint64 {
	m.last++
	m.notes[name], m.revs[name] = n, m.last
	return m.last
}

func (m *memory) Write(_ context.Context, name string, n idempotency.Note, rev uint64) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.revs[name] != rev {
		return 0, problem.New(problem.Conflict, "somebody else has written")
	}
	return m.put(name, n), nil
}

func (m *memory) Drop(_ context.Context, name string, rev uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.revs[name] == rev {
		delete(m.notes, name)
		delete(m.revs, name)
	}
	return nil
}

// text is all that is remembered.
func (m *memory) text(t *testing.T) string {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	b, err := json.Marshal(m.notes)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

type boxInput struct {
	Idempotent
	IfMatch
	Note string `query:"note"`
	Body struct {
		Name string         `json:"name"`
		More map[string]int `json:"more,omitempty"`
	}
}

type box struct {
	Name string `json:"name"`
	Seed string `json:"seed"`
	At   Time   `json:"at"`
}

type boxOutput = Tagged[box]

type secretOutput struct {
	Body struct {
		ID     string `json:"id"`
		Secret string `json:"secret"`
	}
}

func (o *secretOutput) Made() string { return "key:" + o.Body.ID }

// boxes is a server whose handler does what the test says.
type boxes struct {
	*httptest.Server
	*memory
	runs atomic.Int32
	now  atomic.Int64 // Unix milliseconds
	do   func(ctx context.Context, in *boxInput) error
	left chan (<-chan struct{}) // of the first request: closed once the caller has left
}

func newBoxes(t *testing.T) *boxes {
	t.Helper()
	b := &boxes{memory: newMemory(), left: make(chan (<-chan struct{}), 1)}
	b.now.Store(time.Now().UnixMilli())
	mux := http.NewServeMux()
	api := New(mux, "test", tokens{}, zap.NewNop())
	api.Remember(Memory{Notes: b.memory, Now: func() time.Time { return time.UnixMilli(b.now.Load()) }, Rand: rand.Reader})
	run := func(ctx context.Context, in *boxInput) (box, error) {
		n := b.runs.Add(1)
		out := box{Name: in.Body.Name, At: Millis(int64(n))}
		if a := AttemptOf(ctx); a != nil {
			out.Seed = a.Seed()
		}
		if b.do != nil {
			return out, b.do(ctx, in)
		}
		return out, nil
	}
	Register(api, huma.Operation{OperationID: "createBox", Method: "POST", Path: "/v1/boxes", DefaultStatus: 201}, "boxes",
		func(ctx context.Context, in *boxInput) (*boxOutput, error) {
			out, err := run(ctx, in)
			if err != nil {
				return nil, err
			}
			return TaggedOf(out)
		})
	Register(api, huma.Operation{OperationID: "createSecret", Method: "POST", Path: "/v1/secrets", DefaultStatus: 201}, "boxes",
		func(ctx context.Context, in *boxInput) (*secretOutput, error) {
			made, err := run(ctx, in)
			if err != nil {
				return nil, err
			}
			out := &secretOutput{}
			out.Body.ID, out.Body.Secret = made.Seed, "the-secret-itself"
			return out, nil
		})
	h := Handler(mux, nil, nil)
	b.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case b.left <- r.Context().Done():
		default:
		}
		h.ServeHTTP(w, r)
	}))
	t.Cleanup(b.Close)
	return b
}

func (b *boxes) post(t *testing.T, path, body string, header ...string) answer {
	t.Helper()
	return do(t, b.Server, "POST", path, "boxes", body, header...)
}

const sameKey = "key-1"

func TestARepeatedRequestIsDoneOnceAndAnsweredAsTheFirstTime(t *testing.T) {
	b := newBoxes(t)
	first := b.post(t, "/v1/boxes?note=n", `{"name":"a","more":{"x":1,"y":2}}`, keyHeader, sameKey)
	if first.StatusCode != 201 {
		t.Fatalf("status %d: %s", first.StatusCode, first.text)
	}
	again := b.post(t, "/v1/boxes?note=n", ` {"more": {"y":2, "x":1}, "name": "a"} `, keyHeader, sameKey)
	if again.StatusCode != 201 || again.text != first.text || again.Header.Get("ETag") != first.Header.Get("ETag") {
		t.Errorf("status %d, %s; the first time %s", again.StatusCode, again.text, first.text)
	}
	if n := b.runs.Load(); n != 1 {
		t.Errorf("it was done %d times", n)
	}
	if b.post(t, "/v1/boxes?note=n", `{"name":"a"}`); b.runs.Load() != 2 {
		t.Error("a request without a key was not done")
	}
}

func TestAnotherRequestUnderTheSameKeyIsRefused(t *testing.T) {
	b := newBoxes(t)
	b.post(t, "/v1/boxes?note=n", `{"name":"a"}`, keyHeader, sameKey)
	for name, c := range map[string]struct{ path, body, match string }{
		"another body":      {"/v1/boxes?note=n", `{"name":"b"}`, ""},
		"another query":     {"/v1/boxes?note=m", `{"name":"a"}`, ""},
		"another operation": {"/v1/secrets?note=n", `{"name":"a"}`, ""},
		"another condition": {"/v1/boxes?note=n", `{"name":"a"}`, `"x"`},
	} {
		header := []string{keyHeader, sameKey}
		if c.match != "" {
			header = append(header, matchHeader, c.match)
		}
		if a := b.post(t, c.path, c.body, header...); a.StatusCode != 409 || a.doc.Existing != "" {
			t.Errorf("%s: status %d: %s", name, a.StatusCode, a.text)
		}
	}
	if n := b.runs.Load(); n != 1 {
		t.Errorf("it was done %d times", n)
	}
}

func TestKeysOfOtherActorsAndTenantsAreOthers(t *testing.T) {
	names := map[string]bool{}
	for _, c := range [][3]string{{"a", "bc", "d"}, {"ab", "c", "d"}, {"a", "b", "cd"}, {"b", "bc", "d"}, {"a", "bc", "e"}} {
		names[idempotency.NameOf(c[0], c[1], c[2])] = true
	}
	if len(names) != 5 {
		t.Errorf("%d names of 5 requests", len(names))
	}
	// The tokens of these tests name the same caller; another scope is another token.
	b := newBoxes(t)
	b.post(t, "/v1/boxes", `{"name":"a"}`, keyHeader, sameKey)
	for name := range maps.Keys(b.notes) {
		if name != idempotency.NameOf("default", "alice\x1fapp", sameKey) {
			t.Errorf("noted as %q", name)
		}
	}
}

func TestASecretIsNotShownAgainNorRemembered(t *testing.T) {
	b := newBoxes(t)
	first := b.post(t, "/v1/secrets", `{"name":"a"}`, keyHeader, sameKey)
	again := b.post(t, "/v1/secrets", `{"name":"a"}`, keyHeader, sameKey)
	var made struct{ ID string }
	if err := json.Unmarshal([]byte(first.text), &made); err != nil || first.StatusCode != 201 {
		t.Fatal(first.StatusCode, first.text, err)
	}
	if again.StatusCode != 409 || again.doc.Existing != "key:"+made.ID {
		t.Errorf("status %d: %s, want 409 that names key:%s", again.StatusCode, again.text, made.ID)
	}
	if strings.Contains(again.text+b.text(t), "the-secret-itself") {
		t.Error("the secret was remembered")
	}
	if n := b.runs.Load(); n != 1 {
		t.Errorf("it was done %d times", n)
	}
}

// What was surely not done may be tried again under the same key; what may have
// been goes on with the same seed, and knows what it was about to make.
func TestWhatARefusalAndAnUnknownOutcomeLeave(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		same bool
	}{
		"no":           {problem.FieldError("name", "not this"), false},
		"not found":    {problem.New(problem.NotFound, "not there"), false},
		"not now":      {problem.New(problem.Unavailable, "not now"), true},
		"who knows":    {problem.New(problem.UnknownOutcome, "who knows"), true},
		"out of order": {context.Canceled, true},
	} {
		b := newBoxes(t)
		var seeds, earlier []string
		b.do = func(ctx context.Context, _ *boxInput) error {
			a := AttemptOf(ctx)
			seeds, earlier = append(seeds, a.Seed()), append(earlier, a.Earlier())
			if err := a.Makes(ctx, "key:x"); err != nil {
				return err
			}
			if len(seeds) == 1 {
				return c.err
			}
			return nil
		}
		if a := b.post(t, "/v1/boxes", `{"name":"a"}`, keyHeader, sameKey); a.StatusCode < 400 {
			t.Errorf("%s: status %d", name, a.StatusCode)
		}
		if a := b.post(t, "/v1/boxes", `{"name":"a"}`, keyHeader, sameKey); a.StatusCode != 201 {
			t.Errorf("%s: again: status %d: %s", name, a.StatusCode, a.text)
		}
		if len(seeds) != 2 || (seeds[0] == seeds[1]) != c.same || (earlier[1] == "key:x") != c.same {
			t.Errorf("%s: seeds %q, earlier %q", name, seeds, earlier)
		}
	}
}

// A caller who is gone does not stop what was begun, and whoever asks meanwhile is
// told to wait.
func TestARequestUnderWay(t *testing.T) {
	b := newBoxes(t)
	begun, goOn := make(chan struct{}, 2), make(chan struct{})
	b.do = func(ctx context.Context, _ *boxInput) error {
		begun <- struct{}{}
		<-goOn
		return ctx.Err()
	}
	ctx, leave := context.WithCancel(t.Context())
	gone := make(chan error, 1)
	go func() {
		req, _ := http.NewRequestWithContext(ctx, "POST", b.URL+"/v1/boxes", strings.NewReader(`{"name":"a"}`))
		req.Header = http.Header{"Content-Type": {"application/json"}, "Authorization": {"Bearer boxes"}, keyHeader: {sameKey}}
		res, err := http.DefaultClient.Do(req)
		if err == nil {
			res.Body.Close()
		}
		gone <- err
	}()
	<-begun
	if a := b.post(t, "/v1/boxes", `{"name":"a"}`, keyHeader, sameKey); a.StatusCode != 409 {
		t.Errorf("while the first is worked on: status %d: %s", a.StatusCode, a.text)
	}
	leave()
	if err := <-gone; err == nil {
		t.Fatal("the caller did not leave")
	}
	<-<-b.left // the server knows
	close(goOn)
	end := time.Now().Add(10 * time.Second)
	for {
		a := b.post(t, "/v1/boxes", `{"name":"a"}`, keyHeader, sameKey)
		if a.StatusCode == 201 {
			break
		}
		if a.StatusCode != 409 || time.Now().After(end) {
			t.Fatalf("after the caller left: status %d: %s", a.StatusCode, a.text)
		}
	}
	if n := b.runs.Load(); n != 1 {
		t.Errorf("it was done %d times", n)
	}
}

// A try that never ends, as by a crash, is gone on with after its time.
func TestATryThatCrashedIsGoneOnWith(t *testing.T) {
	b := newBoxes(t)
	b.do = func(context.Context, *boxInput) error {
		if b.runs.Load() == 1 {
			panic(http.ErrAbortHandler)
		}
		return nil
	}
	req, _ := http.NewRequestWithContext(t.Context(), "POST", b.URL+"/v1/boxes", strings.NewReader(`{"name":"a"}`))
	req.Header = http.Header{"Content-Type": {"application/json"}, "Authorization": {"Bearer boxes"}, keyHeader: {sameKey}}
	if res, err := http.DefaultClient.Do(req); err == nil {
		res.Body.Close()
		t.Fatal("it was answered")
	}
	if a := b.post(t, "/v1/boxes", `{"name":"a"}`, keyHeader, sameKey); a.StatusCode != 409 {
		t.Errorf("before its time is over: status %d: %s", a.StatusCode, a.text)
	}
	b.now.Add((Deadline + grace).Milliseconds() + 1)
	if a := b.post(t, "/v1/boxes", `{"name":"a"}`, keyHeader, sameKey); a.StatusCode != 201 {
		t.Errorf("afterwards: status %d: %s", a.StatusCode, a.text)
	}
}

func TestOddIdempotencyKeysAreRefused(t *testing.T) {
	b := newBoxes(t)
	for _, key := range []string{strings.Repeat("k", 513), "a\xffb"} {
		if a := b.post(t, "/v1/boxes", `{"name":"a"}`, keyHeader, key); a.StatusCode != 422 || a.doc.Field != keyHeader && a.doc.Field != "" {
			t.Errorf("key %.20q: status %d: %s", key, a.StatusCode, a.text)
		}
	}
	if len(b.notes) != 0 || b.runs.Load() != 0 {
		t.Error("it was noted or done")
	}
}
