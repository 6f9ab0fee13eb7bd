package guard

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/quash-project/quash/shared/guard/token"
)

// Names of RFC 8693, sections 2.1 and 3, and our own type of an API key.
const (
	grantExchange   = "urn:ietf:params:oauth:grant-type:token-exchange"
	typeAccessToken = "urn:ietf:params:oauth:token-type:access_token"
	typeAPIKey      = "urn:quash:token-type:api-key"
)

func exchangeClient(cfg Exchange, byDefault *http.Client) *http.Client {
	c := &http.Client{}
	switch {
	case cfg.Client != nil:
		*c = *cfg.Client
	case cfg.RootCAs == nil && byDefault != nil:
		*c = *byDefault
	default:
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.TLSClientConfig = &tls.Config{RootCAs: cfg.RootCAs, MinVersion: tls.VersionTLS12}
		t.MaxIdleConnsPerHost, t.MaxConnsPerHost = 16, maxFlights/4
		c.Transport = t
	}
	// A redirection would take the key elsewhere.
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return c
}

const cantExchange = "the API key can't be exchanged now: the issuer did not answer, or not as it should"

const cantTellFrom = "the API key is bound to networks, and the issuer can't tell whether the request comes from one of them"

// errUnbelieved is of an answer for another address than the caller's.
var errUnbelieved = errors.New("the key is bound to networks, which the issuer held against another address than that of the caller: " +
	"put this server's network into the issuer's trusted_proxies, and let the server know who calls it (Requirement.Request, guardhttp.WithCaller)")

// exchange asks for a token of a key, for the first of these audiences that the key
// may have one for. err says what failed where the fault is Unavailable.
func (x *exchanger) exchange(ctx context.Context, u *use) (tok *exchanged, f *fault, err error) {
	for _, a := range u.audience {
		tok, f, err = x.ask(ctx, u, a)
		if f == nil || f.check != CheckAudience {
			break
		}
	}
	return tok, f, err
}

func (x *exchanger) ask(ctx context.Context, u *use, audience string) (*exchanged, *fault, error) {
	status, header, body, err := x.post(ctx, x.cfg.TokenURL, url.Values{
		"grant_type": {grantExchange}, "subject_token": {u.key}, "subject_token_type": {typeAPIKey},
		"requested_token_type": {typeAccessToken}, "audience": {audience},
	}, u.from)
	if err != nil {
		return nil, unable(CheckExchange, cantExchange), err
	}
	switch status {
	case http.StatusOK:
		tok, err := x.answer(body, u.from)
		if errors.Is(err, errUnbelieved) {
			return nil, unable(CheckExchange, cantTellFrom), err
		}
		if err != nil {
			return nil, unable(CheckExchange, cantExchange), err
		}
		return tok, nil, nil
	case http.StatusBadRequest:
		if f := refusedBy(body); f != nil {
			return nil, f, nil
		}
	}
	f := unable(CheckExchange, cantExchange)
	if status == http.StatusTooManyRequests {
		f.reason = "the issuer does not exchange that many API keys"
	}
	if s, err := strconv.Atoi(header.Get("Retry-After")); err == nil && s > 0 {
		f.retry = min(time.Duration(min(s, 3600))*time.Second, maxRetry)
	}
	return nil, f, fmt.Errorf("status %d", status)
}

// post sends a form and reads the answer, up to a bound. from is for whom, if that is known.
func (x *exchanger) post(ctx context.Context, to string, form url.Values, from netip.Addr) (status int, header http.Header, body []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, strings.NewReader(form.Encode()))
	if err != nil {
		return 0, nil, nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	if from.IsValid() {
		req.Header.Set("X-Forwarded-For", from.String())
	}
	res, err := x.client.Do(req)
	if err != nil {
		return 0, nil, nil, err
	}
	defer res.Body.Close()
	body, err = io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err == nil && len(body) > maxAnswer {
		err = fmt.Errorf("the answer has more than %d bytes", maxAnswer)
	}
	return res.StatusCode, res.Header, body, err
}

// refusedBy reads an error of RFC 6749, 5.2; nil where it is not about the key.
func refusedBy(body []byte) *fault {
	var doc struct {
		Error string `json:"error"`
	}
	if token.CheckJSON(string(body)) != nil || json.Unmarshal(body, &doc) != nil {
		return nil
	}
	switch doc.Error {
	case "invalid_request", "invalid_grant": // RFC 8693, 2.2.2, and what others answer
		return bad(CheckExchange, "the API key is not good: it is unknown, expired, revoked or held, or not for this network")
	case "unauthorized_client":
		return bad(CheckExchange, "the API key's client may not exchange it")
	case "invalid_target":
		return bad(CheckAudience, "the API key is not meant for this resource")
	}
	return nil
}

// answer reads RFC 8693, 2.2.1. What the token is worth is decided later; here it
// must only be one of the issuer that was asked.
func (x *exchanger) answer(body []byte, from netip.Addr) (*exchanged, error) {
	var doc struct {
		AccessToken string `json:"access_token"`
		IssuedType  string `json:"issued_token_type"`
		TokenType   string `json:"token_type"`
		Bound       string `json:"quash_bound_address"`
	}
	if err := token.CheckJSON(string(body)); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(body, &doc); err != nil {
		return nil, errors.New("the answer is not that of a token endpoint")
	}
	if doc.IssuedType != typeAccessToken || !strings.EqualFold(doc.TokenType, "Bearer") {
		return nil, errors.New("the answer has no access token of the type Bearer")
	}
	bound, believed := boundTo(doc.Bound, from)
	if !believed {
		return nil, errUnbelieved
	}
	t, err := token.Decode(doc.AccessToken)
	if err != nil {
		return nil, fmt.Errorf("the token of the answer: %w", err)
	}
	now := x.guard.opts.now()
	left := time.Unix(t.Expires, 0).Sub(now)
	switch {
	case t.Issuer != x.iss.URL:
		return nil, errors.New("the token of the answer is of another issuer")
	case !t.HasExpires || left <= 0:
		return nil, errors.New("the token of the answer has expired: this clock, or the issuer's, is wrong")
	}
	margin := min(max(left/10, minMargin), maxMargin)
	return &exchanged{token: doc.AccessToken, bound: bound, expires: t.Expires, renew: now.Add(left - margin)}, nil
}
