package client

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/quash-project/quash/shared/problem"
)

const (
	idempotencyHeader = "Idempotency-Key"
	streamType        = "text/event-stream"
)

// streams are the types of answers that are handed on as they come.
var streams = []string{streamType, "application/jsonl"}

// askAgain spaces the tries of a patient request.
const askAgain = 250 * time.Millisecond

// sender sends what the generated requests ask for, which know neither where a service
// is nor who asks.
type sender struct{ *Client }

// Do sends a request with a token. Where a service has several addresses it goes on to
// the next when one is not there, can't answer now, or its answer was lost: repeating
// does no harm, since every change has an idempotency key, the same for every try. What
// may have been done by one try is not told as not done because others could not.
func (s sender) Do(req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	patience, _ := ctx.Value(patienceKey{}).(time.Duration)
	end := s.now().Add(patience)
	if req.Method != http.MethodGet && req.Header.Get(idempotencyHeader) == "" {
		req.Header.Set(idempotencyHeader, rand.Text())
	}
	var maybe error
	for {
		resp, err := s.anywhere(req)
		again := refusedNow(err) || Unknown(err)
		if Unknown(err) {
			maybe = err
		}
		if err != nil && maybe != nil {
			err = maybe
		}
		if !again || !s.now().Add(askAgain).Before(end) {
			return resp, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(askAgain):
		}
	}
}

// refusedNow reports whether a service has answered that it can't now.
func refusedNow(err error) bool {
	var refused *Refused
	return errors.As(err, &refused) && refused.Status == http.StatusServiceUnavailable
}

// anywhere tries the addresses of the request's service in turn. The first error of a
// kind that says more stands: a lost answer before a refusal before nobody.
func (s sender) anywhere(req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	m, err := s.Metadata(ctx)
	if err != nil {
		return nil, &NotSent{err}
	}
	urls, err := s.locate(m, strings.TrimPrefix(req.URL.EscapedPath(), s.path))
	if err != nil {
		return nil, err
	}
	var worst error
	for _, u := range urls {
		resp, err := s.signed(req, u)
		if err == nil {
			return resp, nil
		}
		if worst == nil || weight(err) > weight(worst) {
			worst = err
		}
		// Also when it is over before the next one was asked: it has done nothing, and
		// the one before may have.
		if !elsewhere(err) || ctx.Err() != nil {
			break
		}
	}
	return nil, worst
}

// signed sends the request to one address. A kept token may have been revoked, or the
// key that signed it, while the API key is good: what is refused with 401 was not done,
// and is asked once more with a new token.
func (s sender) signed(req *http.Request, at string) (*http.Response, error) {
	kept := s.kept() != ""
	for {
		token, err := s.Token(req.Context())
		if err != nil {
			return nil, &NotSent{err}
		}
		one, err := addressed(req, at, token)
		if err != nil {
			return nil, err
		}
		resp, err := s.send(one)
		var refused *Refused
		if !kept || !errors.As(err, &refused) || refused.Status != http.StatusUnauthorized {
			return resp, err
		}
		s.forget(token)
		kept = false
	}
}

// addressed is a copy of req for one try at one address.
func addressed(req *http.Request, at, token string) (*http.Request, error) {
	u, err := url.Parse(at)
	if err != nil {
		return nil, fmt.Errorf("the metadata names an address that is no URL: %w", err)
	}
	u.RawQuery = req.URL.RawQuery
	one := req.Clone(req.Context())
	one.URL, one.Host = u, u.Host
	if req.GetBody != nil {
		if one.Body, err = req.GetBody(); err != nil {
			return nil, err
		}
	}
	one.Header.Set("Authorization", "Bearer "+token)
	return one, nil
}

// elsewhere reports whether another replica may be asked after this error.
func elsewhere(err error) bool { return weight(err) != 1 || refusedNow(err) }

// weight orders errors by how much they say of what was done.
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

// send sends one request to one address. Whether a failed request was sent decides
// whether its outcome is known. The body of the answer is read, so that to lose it is
// to lose the answer; that of a stream is not.
func (c *Client) send(req *http.Request) (*http.Response, error) {
	wrote := false
	req = req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
		WroteHeaders: func() { wrote = true },
	}))
	resp, err := c.http.Do(req)
	if err != nil {
		// url.Error repeats the URL, which has nothing secret in it.
		if wrote {
			return nil, &Lost{err}
		}
		return nil, &NotSent{err}
	}
	ok := resp.StatusCode/100 == 2
	if kind, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); ok && err == nil && slices.Contains(streams, kind) {
		return resp, nil
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, MaxAnswer+1))
	if err != nil {
		return nil, &Lost{err}
	}
	if len(data) > MaxAnswer {
		return nil, &Lost{problem.New(problem.Internal, "the answer of %s is longer than %d bytes", req.URL.Redacted(), MaxAnswer)}
	}
	if !ok {
		return nil, refusal(resp, data)
	}
	resp.Body = io.NopCloser(bytes.NewReader(data))
	return resp, nil
}

// fetch sends a request and returns the body of its answer.
func (c *Client) fetch(req *http.Request) ([]byte, error) {
	resp, err := c.send(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(resp.Body)
}
