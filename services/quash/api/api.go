// Package api talks to a Quash over its HTTP APIs, as the command line needs
// it: it finds the endpoints by the issuer's metadata, exchanges an API key for
// a token, and tells "it said no" from "I could not ask".
package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/quash-project/quash/shared/problem"
)

// MaxAnswer is the longest answer that is read.
const MaxAnswer = 16 << 20

// Client is one caller of one Quash. It is safe for concurrent use.
type Client struct {
	base string
	key  func() (string, error) // reads the API key; called when a token is needed
	http *http.Client
	now  func() time.Time

	mu    sync.Mutex
	meta  *Metadata
	token string
	until time.Time
}

// Metadata is what a client needs of RFC 8414's document.
type Metadata struct {
	Issuer        string   `json:"issuer"`
	TokenEndpoint string   `json:"token_endpoint"`
	JWKSURI       string   `json:"jwks_uri"`
	Revocation    []string `json:"quash_revocation_endpoints"`
	Rotation      []string `json:"quash_rotation_endpoints"`
}

// New returns a client for the Quash at base, the issuer's URL.
func New(base string, key func() (string, error), hc *http.Client, now func() time.Time) (*Client, error) {
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.RawQuery != "" || u.Fragment != "" {
		return nil, problem.New(problem.Invalid, "QUASH_URL %.100q is no http or https URL of an issuer", base)
	}
	return &Client{base: strings.TrimSuffix(base, "/"), key: key, http: hc, now: now}, nil
}

// Base returns the issuer's URL.
func (c *Client) Base() string { return c.base }

// NotSent is an error of a request that never reached the service, so that
// nothing can have come of it.
type NotSent struct{ Err error }

func (e *NotSent) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *NotSent) Unwrap() error { return e.Err }

// Lost is an error of a request that was sent and whose answer did not come.
type Lost struct{ Err error }

func (e *Lost) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *Lost) Unwrap() error { return e.Err }

// Metadata fetches the issuer's document, once.
func (c *Client) Metadata(ctx context.Context) (Metadata, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.meta != nil {
		return *c.meta, nil
	}
	// RFC 8414 section 3.1: the well-known part goes before the issuer's path.
	u, err := url.Parse(c.base)
	if err != nil {
		return Metadata{}, err
	}
	u.Path = "/.well-known/oauth-authorization-server" + u.Path
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return Metadata{}, err
	}
	var m Metadata
	if err := c.send(req, &m, nil); err != nil {
		return Metadata{}, fmt.Errorf("metadata of %s: %w", c.base, err)
	}
	if m.Issuer != c.base { // RFC 8414 section 3.3
		return Metadata{}, problem.New(problem.Invalid, "the metadata at %s is of the issuer %.100q; set QUASH_URL to the issuer itself", c.base, m.Issuer)
	}
	c.meta = &m
	return m, nil
}

// Token returns an access token for the API key, and keeps it until shortly
// before it expires.
func (c *Client) Token(ctx context.Context) (string, error) {
	c.mu.Lock()
	if c.token != "" && c.now().Before(c.until) {
		defer c.mu.Unlock()
		return c.token, nil
	}
	c.mu.Unlock()
	key, err := c.key()
	if err != nil {
		return "", err
	}
	raw, err := c.Exchange(ctx, key, url.Values{})
	if err != nil {
		return "", fmt.Errorf("exchange of the API key: %w", err)
	}
	var t struct {
		AccessToken string `json:"access_token"`
		ExpiresIn   int64  `json:"expires_in"`
	}
	if err := json.Unmarshal(raw, &t); err != nil || t.AccessToken == "" {
		return "", errors.New("the token endpoint's answer has no access_token")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.token = t.AccessToken
	c.until = c.now().Add(time.Duration(t.ExpiresIn)*time.Second - 30*time.Second)
	return c.token, nil
}

// Exchange exchanges an API key for an access token (RFC 8693); more are further
// parameters. It returns the token endpoint's answer as it came.
func (c *Client) Exchange(ctx context.Context, key string, more url.Values) (json.RawMessage, error) {
	more.Set("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange")
	more.Set("subject_token_type", "urn:quash:token-type:api-key")
	more.Set("subject_token", key)
	return c.tokenRequest(ctx, more, "", "")
}

// ClientCredentials asks for a client's own token (RFC 6749 section 4.4).
func (c *Client) ClientCredentials(ctx context.Context, id, secret string, more url.Values) (json.RawMessage, error) {
	more.Set("grant_type", "client_credentials")
	return c.tokenRequest(ctx, more, id, secret)
}

func (c *Client) tokenRequest(ctx context.Context, form url.Values, id, secret string) (json.RawMessage, error) {
	m, err := c.Metadata(ctx)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, m.TokenEndpoint, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if id != "" {
		req.SetBasicAuth(url.QueryEscape(id), url.QueryEscape(secret))
	}
	var raw json.RawMessage
	return raw, c.send(req, &raw, nil)
}

// Call is one request to an API.
type Call struct {
	Method string
	// Path begins with "/v1/"; revocation and rotation paths are taken relative
	// to the endpoints that the metadata names.
	Path  string
	Query url.Values
	Body  any
	// Key is the idempotency key, if any.
	Key string
	// Patience is how long to go on asking while every address answers that it
	// can't now (503): as when a leader of the log is replaced.
	Patience time.Duration
}

// Do makes a call with a token and decodes the answer into out (nil: none). Where
// a service has several addresses it goes on to the next when one is not there or
// can't answer now, and, if repeating does no harm, when an answer was lost. What
// may have been done by one try is not told as not done because others could not.
func (c *Client) Do(ctx context.Context, call Call, out any) error {
	end := c.now().Add(call.Patience)
	var maybe error
	for {
		err := c.anywhere(ctx, call, func(req *http.Request) error { return c.send(req, out, nil) })
		again := refusedNow(err)
		if Unknown(err) {
			maybe = err
		}
		if err != nil && maybe != nil {
			err = maybe
		}
		if !again || !c.now().Add(askAgain).Before(end) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(askAgain):
		}
	}
}

// refusedNow reports whether a service has answered that it can't now.
func refusedNow(err error) bool {
	var refused *Refused
	return errors.As(err, &refused) && refused.Status == http.StatusServiceUnavailable
}

// askAgain spaces the tries of a patient call.
const askAgain = 250 * time.Millisecond

// Stream makes a call and hands over the body of its answer, which the caller closes.
func (c *Client) Stream(ctx context.Context, call Call) (io.ReadCloser, error) {
	var body io.ReadCloser
	err := c.anywhere(ctx, call, func(req *http.Request) error {
		req.Header.Set("Accept", "text/event-stream")
		return c.send(req, nil, &body)
	})
	return body, err
}

// anywhere tries the addresses of the call's service in turn. The first error
// of a kind that says more stands: a lost answer before a refusal before nobody.
func (c *Client) anywhere(ctx context.Context, call Call, try func(*http.Request) error) error {
	m, err := c.Metadata(ctx)
	if err != nil {
		return &NotSent{err}
	}
	tok, err := c.Token(ctx)
	if err != nil {
		return &NotSent{err}
	}
	urls, err := c.locate(m, call.Path)
	if err != nil {
		return err
	}
	var worst error
	for _, u := range urls {
		req, err := call.request(ctx, u, tok)
		if err != nil {
			return err
		}
		err = try(req)
		if err == nil {
			return nil
		}
		if worst == nil || weight(err) > weight(worst) {
			worst = err
		}
		// Also when it is over before the next one was asked: it has done nothing, and
		// the one before may have.
		if !call.elsewhere(err) || ctx.Err() != nil {
			break
		}
	}
	return worst
}

// elsewhere reports whether another replica may be asked after this error.
func (call Call) elsewhere(err error) bool {
	switch weight(err) {
	case 0:
		return err != nil
	case 1:
		return refusedNow(err)
	}
	return call.Key != "" || call.Method == http.MethodGet
}

// Unknown reports whether a request that ended with err may have been done.
func Unknown(err error) bool {
	var lost *Lost
	var refused *Refused
	return errors.As(err, &lost) || errors.As(err, &refused) && refused.Doc.Type == problem.TypeBase+problem.UnknownOutcome.Name()
}

func weight(err error) int {
	var notSent *NotSent
	switch {
	case err == nil || errors.As(err, &notSent):
		return 0
	case Unknown(err):
		return 2
	}
	return 1
}

func (call Call) request(ctx context.Context, u, token string) (*http.Request, error) {
	if len(call.Query) > 0 {
		u += "?" + call.Query.Encode()
	}
	var body io.Reader
	if call.Body != nil {
		b, err := json.Marshal(call.Body)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, call.Method, u, body)
	if err != nil {
		return nil, err
	}
	if call.Body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if call.Key != "" {
		req.Header.Set("Idempotency-Key", call.Key)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	return req, nil
}

// revocation and rotation name the services whose addresses stand in the metadata.
var (
	revocationPaths = []string{"/v1/revocations", "/v1/fleet", "/v1/decisions", "/v1/feed", "/v1/epochs"}
	rotationPaths   = []string{"/v1/rotations", "/v1/signing-keys"}
)

// locate returns the URLs of a path, one for each replica.
func (c *Client) locate(m Metadata, path string) ([]string, error) {
	under := func(prefixes []string) bool {
		for _, p := range prefixes {
			if path == p || strings.HasPrefix(path, p+"/") {
				return true
			}
		}
		return false
	}
	var endpoints []string
	switch {
	case under(revocationPaths):
		endpoints = m.Revocation
	case under(rotationPaths):
		endpoints = m.Rotation
	}
	if len(endpoints) == 0 {
		return []string{c.base + path}, nil
	}
	var out []string
	for _, endpoint := range endpoints {
		i := strings.LastIndex(endpoint, "/v1/")
		if i < 0 {
			return nil, problem.New(problem.Invalid, "the metadata of %s names the endpoint %.100q, which has no /v1/", c.base, endpoint)
		}
		out = append(out, endpoint[:i]+path)
	}
	return out, nil
}

// send sends req. Whether a failed request was sent decides whether its outcome is known.
func (c *Client) send(req *http.Request, out any, stream *io.ReadCloser) error {
	wrote := false
	req = req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
		WroteHeaders: func() { wrote = true },
	}))
	resp, err := c.http.Do(req)
	if err != nil {
		// url.Error repeats the URL, which has nothing secret in it.
		if wrote {
			return &Lost{err}
		}
		return &NotSent{err}
	}
	if resp.StatusCode/100 == 2 && stream != nil {
		*stream = resp.Body
		return nil
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, MaxAnswer))
	if err != nil {
		return &Lost{err}
	}
	if resp.StatusCode/100 != 2 {
		return refusal(resp, data)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(data, out); err != nil {
		return fmt.Errorf("answer of %s: %w", req.URL.Redacted(), err)
	}
	return nil
}
