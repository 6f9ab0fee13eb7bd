package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/quash-project/quash/shared/apikey"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/idempotency"
	"github.com/quash-project/quash/shared/problem"
)

const keyHeader = "Idempotency-Key"

// Idempotent is part of the input of what changes something and is remembered by
// its idempotency key. What is derived from the key itself (a commit to the log, a
// rotation) has a field of its own in its place.
type Idempotent struct {
	Key string `header:"Idempotency-Key" maxLength:"512" doc:"the same key of the same caller for 24 hours, the same request: it is done once, and answered as the first time. Another request under it is refused (409), and so is a repetition while the first is worked on. A secret is not shown again: what was made with one is named (409, existing)"`
}

func (Idempotent) remembered() {}

// Secretive is the output of what makes a secret: it can't be given again.
type Secretive interface {
	// Made names what was made, as kind:id.
	Made() string
}

// Attempt is one try of a request that may be repeated.
type Attempt struct {
	notes    idempotency.Notes
	name     string
	note     idempotency.Note
	revision uint64
	earlier  string
}

type attemptKey struct{}

// AttemptOf returns the try that ctx belongs to; nil for a request without an
// idempotency key.
func AttemptOf(ctx context.Context) *Attempt {
	a, _ := ctx.Value(attemptKey{}).(*Attempt)
	return a
}

// Seed returns 22 letters and digits that every try of the request has.
func (a *Attempt) Seed() string { return a.note.Seed }

// Earlier names what an earlier try was about to make: it may be there.
func (a *Attempt) Earlier() string { return a.earlier }

// Makes notes what is about to be made, as kind:id.
func (a *Attempt) Makes(ctx context.Context, what string) error {
	a.note.Makes = what
	return a.write(ctx)
}

func (a *Attempt) write(ctx context.Context) error {
	rev, err := a.notes.Write(ctx, a.name, a.note, a.revision)
	if err == nil {
		a.revision = rev
	}
	return err
}

// Memory is what requests with an idempotency key are remembered with. All fields
// are required.
type Memory struct {
	Notes idempotency.Notes
	Now   func() time.Time
	Rand  io.Reader
}

// Remember must be called before the first request on an API with operations that
// are Idempotent.
func (a *API) Remember(m Memory) { a.memory = m }

type askedKey struct{}

// asked is a request that has an idempotency key.
type asked struct{ name, digest string }

// remembers reports whether inputs of this type are Idempotent.
func remembers[I any]() bool {
	_, ok := any(new(I)).(interface{ remembered() })
	return ok
}

// ask reads what a repetition is compared by: all of the request that an
// operation looks at, the same however its JSON is written.
func ask(ctx huma.Context, who Caller) (huma.Context, error) {
	r, _ := humago.Unwrap(ctx)
	key := r.Header.Get(keyHeader)
	if key == "" {
		return ctx, nil
	}
	if err := revoke.CheckID("idempotency key", key); err != nil {
		return ctx, problem.FieldError(keyHeader, "%v", err)
	}
	body := ""
	if c, ok := ctx.(readContext); ok && len(c.data) > 0 {
		var v any
		d := json.NewDecoder(bytes.NewReader(c.data))
		d.UseNumber()
		if err := d.Decode(&v); err != nil {
			return ctx, problem.Wrap(problem.Invalid, err, "the body is not JSON")
		}
		text, err := json.Marshal(v) // members in order
		if err != nil {
			return ctx, err
		}
		body = string(text)
	}
	return huma.WithValue(ctx, askedKey{}, asked{
		name:   idempotency.NameOf(who.Tenant, who.Subject+"\x1f"+who.Client, key),
		digest: idempotency.DigestOf(r.Method, r.URL.EscapedPath(), r.URL.Query().Encode(), r.Header.Get("If-Match"), body),
	}), nil
}

// grace is how long after its deadline a try is taken to be still under way: its
// last writes have a few seconds of their own.
const grace = 10 * time.Second

// once runs an operation unless it was done before.
func once[O any](ctx context.Context, m *Memory, deadline time.Duration, run func(context.Context) (*O, error)) (*O, error) {
	q, ok := ctx.Value(askedKey{}).(asked)
	if !ok {
		return run(ctx)
	}
	if m.Notes == nil {
		return nil, errors.New("httpapi: an operation is Idempotent, and nothing remembers requests")
	}
	t, before, err := m.begin(ctx, q, deadline)
	if err != nil {
		return nil, err
	}
	if before != nil {
		return again[O](before)
	}
	// Whoever asked may have gone: what was begun is brought to its end, so that
	// asking again tells of it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), deadline)
	defer cancel()
	out, err := run(context.WithValue(ctx, attemptKey{}, t))
	t.end(ctx, out, err)
	return out, err
}

// begin notes a try, or returns the note of a request that is done.
func (m *Memory) begin(ctx context.Context, q asked, deadline time.Duration) (*Attempt, *idempotency.Note, error) {
	seed, err := apikey.RandomID(m.Rand)
	if err != nil {
		return nil, nil, err
	}
	until := m.Now().Add(deadline + grace).UnixMilli()
	n, rev, err := m.Notes.Begin(ctx, q.name, idempotency.Note{Digest: q.digest, Seed: seed, Until: until})
	switch {
	case err != nil:
		return nil, nil, err
	case n.Digest != q.digest:
		return nil, nil, problem.New(problem.Conflict, "the idempotency key was used for another request; use a new one")
	case n.Done():
		return nil, &n, nil
	case n.Seed == seed:
		return &Attempt{notes: m.Notes, name: q.name, note: n, revision: rev}, nil, nil
	case m.Now().UnixMilli() < n.Until:
		return nil, nil, problem.New(problem.Conflict, "the first request under this idempotency key is still worked on; repeat it in a moment")
	}
	// Whoever had it has crashed, or could not tell what became of it.
	t := &Attempt{notes: m.Notes, name: q.name, note: n, revision: rev, earlier: n.Makes}
	t.note.Until = until
	return t, nil, t.write(ctx)
}

// again answers as the first time.
func again[O any](n *idempotency.Note) (*O, error) {
	if n.Makes != "" {
		return nil, problem.MadeBefore(n.Makes)
	}
	out := new(O)
	err := json.Unmarshal(n.Answer, out)
	return out, err
}

// end notes what became of a try. If it can't, the next one finds it under way,
// and then given up.
func (a *Attempt) end(ctx context.Context, out any, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace/2)
	defer cancel()
	if err == nil {
		err = a.done(ctx, out)
	} else if isNo(err) {
		err = a.notes.Drop(ctx, a.name, a.revision)
	} else {
		a.note.Until = 0 // what is done of it is not known: the next try goes on
		err = a.write(ctx)
	}
	if err != nil {
		note(ctx, err)
	}
}

func (a *Attempt) done(ctx context.Context, out any) error {
	a.note.Status, a.note.Makes = http.StatusOK, ""
	if s, ok := out.(Secretive); ok {
		a.note.Makes = s.Made()
		return a.write(ctx)
	}
	var err error
	if a.note.Answer, err = json.Marshal(out); err != nil {
		return err
	}
	return a.write(ctx)
}

// isNo reports whether an error says for sure that nothing was done.
func isNo(err error) bool {
	switch problem.KindOf(err) {
	case problem.Internal, problem.Unavailable, problem.UnknownOutcome:
		return false
	default:
		return true
	}
}

// hasHeader reports whether an input reads a header, its embedded parts included.
func hasHeader[I any](name string) bool {
	for _, f := range reflect.VisibleFields(reflect.TypeFor[I]()) {
		if f.Tag.Get("header") == name {
			return true
		}
	}
	return false
}
