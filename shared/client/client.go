// Package client calls the HTTP APIs of a Quash, wherever its services are: it finds
// them by the issuer's metadata, exchanges an API key for tokens, asks the next replica
// where that does no harm, and tells "it said no" from "I could not ask".
//
//	c, err := client.New("https://auth.example.com", client.Options{Key: readKey})
//	made, err := c.CreateKey(ctx, api.CreateKeyJSONRequestBody{Owner: "alice", Scopes: []string{"orders:read"}})
//	fmt.Println(made.Value.ID)
//
// The operations are those of schemas/openapi.json, in the generated package api. An
// answer that is no success is an error: *Refused has the problem (RFC 9457), *NotSent
// and *Lost are for requests that had no answer.
package client

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/quash-project/quash/shared/client/api"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/problem"
)

// MaxAnswer is the longest answer that is read.
const MaxAnswer = 16 << 20

// Options are what a client may be given.
type Options struct {
	// Key reads the API key that signs in; it is called when a token is needed.
	Key  func() (string, error)
	HTTP *http.Client     // default: one with Go's own settings
	Now  func() time.Time // default: time.Now
}

// Client is one caller of one Quash. It is safe for concurrent use.
type Client struct {
	api.Calls

	base string // the issuer's URL
	home string // that of the installation: the issuers of tenants stand below it, the APIs do not
	path string // of home
	key  func() (string, error)
	http *http.Client
	now  func() time.Time

	mu    sync.Mutex
	meta  *Metadata
	token string
	until time.Time
}

// New returns a client for the Quash at base, the issuer's URL: that of the installation, or
// of a tenant below it, whose API keys are good there alone.
func New(base string, o Options) (*Client, error) {
	u, err := url.Parse(base)
	if err != nil {
		return nil, problem.New(problem.Invalid, "the issuer's URL is none") // it may have a password somewhere
	}
	if u.Host == "" || u.User != nil || u.Scheme != "http" && u.Scheme != "https" || u.RawQuery != "" || u.Fragment != "" {
		return nil, problem.New(problem.Invalid, "%.100q is no http or https URL of an issuer", u.Redacted())
	}
	base = strings.TrimSuffix(base, "/")
	home := base
	if i := strings.LastIndexByte(base, '/'); i >= 0 {
		if at, ok := strings.CutSuffix(base[:i+1], wire.TenantIssuer("", "")); ok {
			home = at
		}
	}
	c := &Client{base: base, home: home, path: strings.TrimSuffix(strings.TrimPrefix(home, u.Scheme+"://"+u.Host), "/"), key: o.Key, http: o.HTTP, now: o.Now}
	if c.key == nil {
		c.key = func() (string, error) {
			return "", problem.New(problem.Unauthorized, "there is no API key to sign in with")
		}
	}
	if c.http == nil {
		c.http = &http.Client{}
	}
	if c.now == nil {
		c.now = time.Now
	}
	c.Calls = api.Calls{Requests: &api.Requests{Server: home + "/", Client: sender{c}}}
	return c, nil
}

// Base returns the issuer's URL.
func (c *Client) Base() string { return c.base }

// IdempotencyKey sends a request under a key: repeated with it, it is done once. A
// change that is given none has one of its own, so that it can be repeated by itself
// when its answer was lost; give one to be able to repeat it later.
func IdempotencyKey(key string) api.RequestEditorFn {
	return func(_ context.Context, req *http.Request) error {
		req.Header.Set(idempotencyHeader, key)
		return nil
	}
}

// IfMatch has a record changed only as it was seen: etag is the header ETag of the answer
// that showed it. Changed since, the request is refused.
func IfMatch(etag string) api.RequestEditorFn {
	return func(_ context.Context, req *http.Request) error {
		req.Header.Set("If-Match", etag)
		return nil
	}
}

// Query adds parameters to the request's.
func Query(more url.Values) api.RequestEditorFn {
	return func(_ context.Context, req *http.Request) error {
		q := req.URL.Query()
		for name, values := range more {
			q[name] = values
		}
		req.URL.RawQuery = q.Encode()
		return nil
	}
}

type patienceKey struct{}

// Patient makes requests go on asking for so long while every address answers that it
// can't now (503), as when a leader of the log is replaced, or its answer is lost.
func Patient(ctx context.Context, patience time.Duration) context.Context {
	return context.WithValue(ctx, patienceKey{}, patience)
}

// WatchFeed opens the live feed, as server-sent events; the caller closes it.
func (c *Client) WatchFeed(ctx context.Context) (io.ReadCloser, error) {
	resp, err := c.Calls.WatchFeed(ctx, nil, func(_ context.Context, req *http.Request) error {
		req.Header.Set("Accept", streamType)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// Unknown reports whether a request that ended with err may have been done.
func Unknown(err error) bool {
	var lost *Lost
	var refused *Refused
	return errors.As(err, &lost) || errors.As(err, &refused) && refused.Kind() == problem.UnknownOutcome
}
