package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Token returns an access token for the API key, and keeps it until shortly before it
// expires.
func (c *Client) Token(ctx context.Context) (string, error) {
	if t := c.kept(); t != "" {
		return t, nil
	}
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

// kept is the token that is good by its time, if there is one.
func (c *Client) kept() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.token != "" && c.now().Before(c.until) {
		return c.token
	}
	return ""
}

// forget drops a token that was refused.
func (c *Client) forget(token string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.token == token {
		c.token = ""
	}
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
	return c.fetch(req)
}
