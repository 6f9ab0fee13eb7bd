package client

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/quash-project/quash/shared/problem"
)

// Metadata is what a client needs of RFC 8414's document.
type Metadata struct {
	Issuer        string   `json:"issuer"`
	TokenEndpoint string   `json:"token_endpoint"`
	JWKSURI       string   `json:"jwks_uri"`
	Revocation    []string `json:"quash_revocation_endpoints"`
	Rotation      []string `json:"quash_rotation_endpoints"`
}

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
	data, err := c.fetch(req)
	if err != nil {
		return Metadata{}, fmt.Errorf("metadata of %s: %w", c.base, err)
	}
	var m Metadata
	if err := json.Unmarshal(data, &m); err != nil {
		return Metadata{}, fmt.Errorf("metadata of %s: %w", c.base, err)
	}
	if m.Issuer != c.base { // RFC 8414 section 3.3
		return Metadata{}, problem.New(problem.Invalid, "the metadata at %s is of the issuer %.100q; ask at that URL", c.base, m.Issuer)
	}
	c.meta = &m
	return m, nil
}

// revocationPaths and rotationPaths are of the services whose addresses stand in the
// metadata.
var (
	revocationPaths = []string{"/v1/revocations", "/v1/previews", "/v1/pending", "/v1/receipts", "/v1/incidents", "/v1/fleet", "/v1/decisions", "/v1/feed", "/v1/epochs", "/v1/audit", "/v1/slo"}
	rotationPaths   = []string{"/v1/rotations", "/v1/schedules", "/v1/signing-keys"}
)

// locate returns the URLs of a path below the issuer's, one for each replica.
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
		return []string{c.home + path}, nil
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
