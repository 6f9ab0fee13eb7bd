package httpapi

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/quash-project/quash/shared/problem"
	"github.com/quash-project/quash/shared/strictjson"
)

// bodyReader returns what checks query and body of an operation with input I
// before huma reads them, and whether there is a body.
func bodyReader[I any](limit int64) (read func(huma.Context) (huma.Context, error), takesBody bool) {
	var body reflect.Type
	if f, ok := reflect.TypeFor[I]().FieldByName("Body"); ok {
		body = f.Type
	}
	return func(ctx huma.Context) (huma.Context, error) {
		r, w := humago.Unwrap(ctx)
		if err := checkQuery(r.URL.RawQuery); err != nil {
			return ctx, err
		}
		if err := checkOnce(r.Header); err != nil {
			return ctx, err
		}
		if body == nil {
			return ctx, noBody(r)
		}
		data, err := readBody(w, r, limit)
		if err != nil {
			return ctx, err
		}
		if len(data) > 0 || body.Kind() != reflect.Pointer {
			if err := jsonType(r.Header); err != nil {
				return ctx, err
			}
			// Decoded here and again by huma, so that the errors are ours: huma's own
			// do not say which member, and repeat numbers.
			if err := strictjson.Decode(data, reflect.New(body).Interface()); err != nil {
				return ctx, err
			}
		}
		return readContext{ctx, data}, nil
	}, body != nil
}

// readContext gives huma the body that was read. Huma's own unwrapping must find
// the context below, so it is not hidden.
type readContext struct {
	below // its field must not be named like its method Context
	data  []byte
}

type below = huma.Context

func (c readContext) BodyReader() io.Reader { return bytes.NewReader(c.data) }
func (c readContext) Unwrap() huma.Context  { return c.below }

// DecodeBody reads the JSON body of a plain handler as strictly as those of huma.
func DecodeBody(w http.ResponseWriter, r *http.Request, limit int64, v any) error {
	data, err := readBody(w, r, limit)
	if err != nil {
		return err
	}
	if err := jsonType(r.Header); err != nil {
		return err
	}
	return strictjson.Decode(data, v)
}

// bodyTime is how long a caller may take to send a body.
const bodyTime = 10 * time.Second

func readBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	tooLarge := problem.New(problem.TooLarge, "the body may have %d bytes at most", limit)
	if r.ContentLength > limit {
		return nil, tooLarge
	}
	// Only for the body: a deadline that passes later ends the request's context.
	conn := http.NewResponseController(w)
	_ = conn.SetReadDeadline(time.Now().Add(bodyTime)) // a test's recorder has none
	data, err := io.ReadAll(io.LimitReader(r.Body, limit+1))
	_ = conn.SetReadDeadline(time.Time{})
	if int64(len(data)) > limit {
		return nil, tooLarge
	}
	if err != nil {
		return nil, problem.Wrap(problem.Invalid, err, "the body could not be read to its end")
	}
	return data, nil
}

// checkPlain does for a handler outside of huma what huma and bodyReader do for
// the others: only parameters that are documented, and no body.
func checkPlain(r *http.Request, known []*huma.Param) error {
	if err := checkQuery(r.URL.RawQuery); err != nil {
		return err
	}
	for name := range r.URL.Query() {
		if !slices.ContainsFunc(known, func(p *huma.Param) bool { return p.In == "query" && p.Name == name }) {
			return problem.FieldError(name, "unknown query parameter")
		}
	}
	return noBody(r)
}

// checkOnce refuses a header that would count as none, or of which one value
// would be taken at random: whoever sends it means something by it.
func checkOnce(h http.Header) error {
	for name, empty := range map[string]string{
		keyHeader: "leave it out, or repeat with the same one", matchHeader: "leave it out, or name the ETag", noneMatchHeader: "leave it out, or name the ETag",
	} {
		values := h.Values(name)
		switch {
		case len(values) > 1:
			return problem.FieldError(name, "stands there twice")
		case len(values) == 1 && values[0] == "":
			return problem.FieldError(name, "is empty: %s", empty)
		}
	}
	return nil
}

// noBody refuses a body where none is expected: somebody meant something by it.
func noBody(r *http.Request) error {
	var one [1]byte
	if n, _ := io.ReadFull(r.Body, one[:]); n > 0 {
		return problem.New(problem.Invalid, "this operation takes no body")
	}
	return nil
}

// jsonType wants application/json in UTF-8, not compressed.
func jsonType(h http.Header) error {
	if e := h.Values("Content-Encoding"); len(e) > 0 {
		return problem.New(problem.MediaType, "send the body as it is, without Content-Encoding")
	}
	types := h.Values("Content-Type")
	if len(types) != 1 {
		return problem.New(problem.MediaType, "send the body with one header Content-Type: application/json")
	}
	kind, params, err := mime.ParseMediaType(types[0])
	if err != nil || kind != "application/json" {
		return problem.New(problem.MediaType, "send the body with Content-Type: application/json")
	}
	for name, value := range params {
		if name != "charset" || !strings.EqualFold(value, "utf-8") {
			return problem.New(problem.MediaType, "JSON is in UTF-8 here: send Content-Type: application/json")
		}
	}
	return nil
}

// checkQuery refuses what net/url drops in silence, and names that stand twice.
func checkQuery(raw string) error {
	q, err := url.ParseQuery(raw)
	if err != nil {
		return problem.Wrap(problem.Invalid, errors.New("query"), "the query of the URL is malformed")
	}
	for name, values := range q {
		if !utf8.ValidString(name) {
			return problem.New(problem.Invalid, "the query of the URL is not valid UTF-8")
		}
		if len(values) > 1 {
			return problem.FieldError(name, "stands in the query twice")
		}
		if !utf8.ValidString(values[0]) || strings.ContainsFunc(values[0], func(r rune) bool { return r < 0x20 || r == 0x7f }) {
			return problem.FieldError(name, "has a control character or is not valid UTF-8")
		}
	}
	return nil
}
