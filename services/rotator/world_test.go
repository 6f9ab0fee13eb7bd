package rotator

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/problem"
	"github.com/quash-project/quash/shared/seal"
	"github.com/quash-project/quash/shared/signing"
)

const tenant = "default"

var homeTenant = Tenant{Name: tenant, Issuer: "http://issuer"}

var errFault = errors.New("fault injected")

// world is everything outside a rotator: records, log and fleet, in memory.
// Each outside call is counted; call number failAt fails: before it takes
// effect, or after (lost).
type world struct {
	t        testing.TB
	mu       sync.Mutex
	identity ed25519.PrivateKey
	kek      *seal.KEK
	now      func() time.Time

	sets      map[string][]byte
	tenants   map[string]bool // as the copy has them
	again     map[string]bool // names that were given again, which the copy has not heard
	revision  uint64          // of sets
	rotations map[string]Rotation
	changed   chan struct{}

	log    []logged
	epoch  uint64
	ended  map[revoke.Key]bool
	guards map[string]*fakeGuard

	calls, failAt int
	lost          bool
}

type logged struct {
	state *wire.KeyState // nil: an entry
	jws   string         // of a state
	ends  string         // kid, of an entry
	key   string         // idempotency key, of an entry
}

type fakeGuard struct {
	behind bool // has not applied what came since
	limit  time.Duration
	open   bool
}

func newWorld(t testing.TB, now func() time.Time) *world {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kek.json")
	if err := seal.CreateKEK(path); err != nil {
		t.Fatal(err)
	}
	kek, err := seal.LoadKEK(path)
	if err != nil {
		t.Fatal(err)
	}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &world{
		t: t, identity: private, kek: kek, now: now, epoch: 1000, failAt: -1,
		sets: map[string][]byte{}, rotations: map[string]Rotation{}, changed: make(chan struct{}),
		ended: map[revoke.Key]bool{}, guards: map[string]*fakeGuard{},
	}
}

func testPolicy() Policy {
	return Policy{Lead: DefaultLead, KeyLife: DefaultKeyLife, TokenLife: wire.MaxTokenLife, Alg: signing.ES256}
}

// rotator returns a new replica, as after a restart.
func (w *world) rotator() *Rotator {
	w.t.Helper()
	r, err := New(Config{Home: homeTenant, Policy: testPolicy()}, Deps{
		Store: w, Entries: w, Keys: w, Reader: w, KEK: w.kek, Identity: w.identity,
		Now: w.now, Rand: rand.Reader, Log: zap.NewNop(),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// fault runs effect unless this is the call that fails before it.
func (w *world) fault(effect func() error) error {
	n := w.calls
	w.calls++
	if n == w.failAt && !w.lost {
		return problem.Wrap(problem.Unavailable, errFault, "not done")
	}
	if err := effect(); err != nil {
		return err
	}
	if n == w.failAt {
		return problem.Wrap(problem.UnknownOutcome, errFault, "done, and the answer was lost")
	}
	return nil
}

func (w *world) wake() {
	close(w.changed)
	w.changed = make(chan struct{})
}

func (w *world) Set(_ context.Context, name string) (signing.Set, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	data, ok := w.sets[name]
	if !ok {
		return signing.Set{}, problem.New(problem.NotFound, "none")
	}
	var s signing.Set
	return s, json.Unmarshal(data, &s)
}

func (w *world) put(s signing.Set) error {
	data, err := json.Marshal(s)
	w.sets[s.Tenant] = data
	w.revision++
	w.wake()
	return err
}

func (w *world) CreateSet(_ context.Context, s signing.Set) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.fault(func() error {
		if _, ok := w.sets[s.Tenant]; ok {
			return problem.New(problem.Conflict, "exists")
		}
		return w.put(s)
	})
}

func (w *world) ChangeSet(_ context.Context, name string, fn func(*signing.Set) error) (signing.Set, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var s signing.Set
	err := w.fault(func() error {
		if err := json.Unmarshal(w.sets[name], &s); err != nil {
			return err
		}
		if err := fn(&s); err != nil {
			return err
		}
		return w.put(s)
	})
	return s, err
}

func (w *world) RemoveSet(_ context.Context, seen signing.Set) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.fault(func() error {
		var s signing.Set
		if err := json.Unmarshal(w.sets[seen.Tenant], &s); err != nil || !reflect.DeepEqual(s, seen) {
			return problem.New(problem.Conflict, "it is another one now: %v", err)
		}
		delete(w.sets, seen.Tenant)
		w.wake()
		return nil
	})
}

func (w *world) Tenants() map[string]bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.tenants)
}

// Ends is not behind, as Tenants can be.
func (w *world) Ends(_ context.Context, tenant string) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.again[tenant] {
		return false, nil
	}
	ending, there := w.tenants[tenant]
	return ending || !there, nil
}

func (w *world) Rotation(_ context.Context, id string) (Rotation, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r, ok := w.rotations[id]
	if !ok {
		return r, problem.New(problem.NotFound, "none")
	}
	return r, nil
}

func (w *world) CreateRotation(_ context.Context, r Rotation) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.fault(func() error {
		if _, ok := w.rotations[r.ID]; ok {
			return problem.New(problem.Conflict, "exists")
		}
		w.rotations[r.ID] = r
		w.wake()
		return nil
	})
}

func (w *world) ChangeRotation(_ context.Context, id string, fn func(*Rotation) error) (Rotation, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var r Rotation
	err := w.fault(func() error {
		r = w.rotations[id]
		if err := fn(&r); err != nil {
			return err
		}
		w.rotations[id] = r
		w.wake()
		return nil
	})
	return r, err
}

func (w *world) Open(name string) (out []Rotation, _ error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.rotations {
		if r.Tenant == name && r.State == Waiting {
			out = append(out, r)
		}
	}
	return out, nil
}

func (w *world) Rotations(name string) (ids []string, _ error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, r := range w.rotations {
		if r.Tenant == name {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

func (w *world) RemoveRotation(_ context.Context, id string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.fault(func() error {
		delete(w.rotations, id)
		w.wake()
		return nil
	})
}

func (w *world) Changed() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.changed
}

func (w *world) Epoch() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.epoch
}

func (w *world) Ended(k revoke.Key) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ended[k]
}

func (w *world) answer() commit.Answer {
	return commit.Answer{Epoch: w.epoch, Sequence: uint64(len(w.log)), CommittedAt: w.now().UnixMilli()}
}

func (w *world) CommitKey(_ context.Context, r commit.KeyRequest) (commit.Answer, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var a commit.Answer
	err := w.fault(func() error {
		st, err := readState(r.JWS, w.identity.Public().(ed25519.PublicKey))
		if err != nil {
			return err
		}
		if st.KeyID != r.KeyID || st.Tenant != r.Tenant || r.Until != st.End+600 {
			return fmt.Errorf("request %+v does not match its state %+v", r, st)
		}
		w.log = append(w.log, logged{state: &st, jws: r.JWS})
		a = w.answer()
		return nil
	})
	return a, err
}

// readState checks a key message as a reader would.
func readState(jws string, pub ed25519.PublicKey) (wire.KeyState, error) {
	var st wire.KeyState
	parts := strings.Split(jws, ".")
	if len(parts) != 3 {
		return st, errors.New("not a JWS")
	}
	sig, err1 := base64.RawURLEncoding.DecodeString(parts[2])
	payload, err2 := base64.RawURLEncoding.DecodeString(parts[1])
	if err := errors.Join(err1, err2); err != nil {
		return st, err
	}
	if !ed25519.Verify(pub, []byte(parts[0]+"."+parts[1]), sig) {
		return st, errors.New("signature of a stranger")
	}
	return st, json.Unmarshal(payload, &st)
}

func (w *world) Commit(_ context.Context, r commit.Request) (commit.Answer, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var a commit.Answer
	err := w.fault(func() error {
		for i, l := range w.log {
			if l.key == r.Key {
				a = w.answer()
				a.Sequence, a.Repeated = uint64(i+1), true
				return nil
			}
		}
		if len(r.Targets) != 1 || r.Targets[0].Kind != revoke.KindSigningKey || r.Op != commit.Revoke || r.Reason == "" {
			return fmt.Errorf("unexpected request %+v", r)
		}
		t, err := signing.Target(r.Tenant, r.Targets[0].ID)
		if err != nil {
			return err
		}
		w.ended[t.Key()] = true
		w.log = append(w.log, logged{ends: r.Targets[0].ID, key: r.Key})
		a = w.answer()
		return nil
	})
	return a, err
}

// Lacking blocks as the service does, a little less long.
func (w *world) Lacking(ctx context.Context, r commit.LackingRequest) (commit.LackingAnswer, error) {
	deadline := w.now().Add(time.Duration(r.WaitMS) * time.Millisecond)
	for {
		var a commit.LackingAnswer
		w.mu.Lock()
		err := w.fault(func() error {
			for name, g := range w.guards {
				if g.behind && (r.Name == "" || r.Name == name) {
					a.Lacking = append(a.Lacking, commit.Lacking{
						Name: name, Instance: "i", Open: g.open, FencedBy: r.CommittedAt + g.limit.Milliseconds(),
						Fenced: !g.open && w.now().UnixMilli() >= r.CommittedAt+g.limit.Milliseconds(),
					})
				}
			}
			return nil
		})
		w.mu.Unlock()
		if err != nil || len(a.Lacking) == 0 || !w.now().Before(deadline) {
			return a, err
		}
		select {
		case <-ctx.Done():
			return a, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (w *world) set() *signing.Set {
	w.t.Helper()
	s, err := w.Set(w.t.Context(), tenant)
	if err != nil {
		w.t.Fatal(err)
	}
	return &s
}

func (w *world) entries() []logged {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]logged(nil), w.log...)
}

func (w *world) with(fn func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fn()
}

// settle runs a rotator, a new one after every step, until nothing is left to
// do now.
func (w *world) settle() {
	w.t.Helper()
	for range 200 {
		progress, _, err := w.rotator().Advance(w.t.Context(), homeTenant)
		if err != nil && !errors.Is(err, errFault) {
			w.t.Fatal(err)
		}
		if !progress && err == nil {
			return
		}
	}
	w.t.Fatal("it never comes to rest")
}

// checkLog holds the log against promise 7, as a reader that applies one
// message after the other.
func (w *world) checkLog() {
	w.t.Helper()
	states := map[string]string{}
	order := map[string]int{}
	for i, s := range wire.KeyStates {
		order[s] = i
	}
	began := false
	for i, m := range w.entries() {
		if m.state != nil {
			kid, state := m.state.KeyID, m.state.State
			if state == signing.Signing && order[states[kid]] < order[signing.Published] {
				w.t.Errorf("message %d: key %s signs before it was published", i, kid)
			}
			if order[state] > order[states[kid]] || states[kid] == "" {
				states[kid] = state
			}
		} else {
			states[m.ends] = signing.Revoked
		}
		able := 0
		for _, s := range states {
			if s == signing.Signing {
				able++
			}
		}
		began = began || able > 0
		if began && able == 0 {
			w.t.Errorf("after message %d no key can sign", i)
		}
	}
}
