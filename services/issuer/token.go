package issuer

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/problem"
)

// TokenType is the header typ of an access token: RFC 9068, 2.1.
const TokenType = "at+jwt"

// Claims are those of an access token, in the order in which they are written.
type Claims struct {
	Issuer   string       `json:"iss"`
	Subject  string       `json:"sub"`
	Audience Audience     `json:"aud"`
	Expires  int64        `json:"exp"`
	IssuedAt int64        `json:"iat"`
	ID       string       `json:"jti"`
	ClientID string       `json:"client_id"`
	Scope    string       `json:"scope,omitempty"`
	Roles    []string     `json:"roles,omitempty"`
	Tenant   string       `json:"tenant"`
	Stamp    revoke.Stamp `json:"rseq"`
	Via      []revoke.Key `json:"via,omitempty"`
}

// Audience is written as a string when there is one (RFC 7519, 4.1.3).
type Audience []string

// MarshalJSON implements json.Marshaler.
func (a Audience) MarshalJSON() ([]byte, error) {
	jwtAudience := jwt.ClaimStrings(a)
	if len(a) == 1 {
		return appendString(nil, a[0])
	}
	return jwtAudience.MarshalJSON()
}

// The methods of jwt.Claims: what golang-jwt asks of claims that are parsed. We
// only write them.

// GetExpirationTime implements jwt.Claims.
func (c *Claims) GetExpirationTime() (*jwt.NumericDate, error) {
	return jwt.NewNumericDate(time.Unix(c.Expires, 0)), nil
}

// GetIssuedAt implements jwt.Claims.
func (c *Claims) GetIssuedAt() (*jwt.NumericDate, error) {
	return jwt.NewNumericDate(time.Unix(c.IssuedAt, 0)), nil
}

// GetNotBefore implements jwt.Claims.
func (c *Claims) GetNotBefore() (*jwt.NumericDate, error) { return nil, nil } //nolint:nilnil // its contract: absent

// GetIssuer implements jwt.Claims.
func (c *Claims) GetIssuer() (string, error) { return c.Issuer, nil }

// GetSubject implements jwt.Claims.
func (c *Claims) GetSubject() (string, error) { return c.Subject, nil }

// GetAudience implements jwt.Claims.
func (c *Claims) GetAudience() (jwt.ClaimStrings, error) { return jwt.ClaimStrings(c.Audience), nil }

// Token is an access token that was issued.
type Token struct {
	Text   string // it is a secret
	Life   time.Duration
	Scopes []string
	Claims Claims
	// BoundTo is the address that the networks of its key were held against; the zero Addr:
	// the key is good from everywhere.
	BoundTo netip.Addr
}

// maxToken is the longest token that a guard reads.
const maxToken = 16 << 10

// subject is what a token is made from, after it was checked.
type subject struct {
	key       *Key // the API key or the client secret
	scopes    []string
	roles     effective
	audiences []string // allowed
}

// request is what was asked for.
type request struct {
	scopes    []string // nil: all
	resources []string
}

// sign makes the token. Everything that it is made from was checked in m.
func (s *Service) sign(ctx context.Context, m *making, sub subject, req request) (Token, error) {
	scopes, err := narrow(union(slices.Clone(sub.scopes), sub.roles.scopes), req.scopes)
	if err != nil {
		return Token{}, err
	}
	audience, err := s.audience(sub.audiences, req.resources)
	if err != nil {
		return Token{}, err
	}
	// Whole seconds: iat rounded down, so that no clock in step with ours sees
	// a token from the future, and no token outlives its record.
	iat := m.now.Unix()
	exp := min(m.now.Add(s.cfg.TokenLife).Unix(), sub.key.Expires.Unix())
	if until := sub.roles.until; !until.IsZero() {
		exp = min(exp, until.Unix())
	}
	if exp <= iat {
		return Token{}, problem.New(problem.Unavailable, "the credential is about to expire")
	}
	jti, err := randomText(s.d.Rand)
	if err != nil {
		return Token{}, err
	}
	via := append([]revoke.Key{target(sub.key.Tenant, revoke.KindKey, sub.key.ID)}, sub.roles.via...)
	if len(via) > wire.MaxVia {
		return Token{}, refuse(CodeInvalidRequest, "it has more roles than a token can carry: take some away")
	}
	c := Claims{
		Issuer: s.cfg.Issuer, Subject: sub.key.Owner, Audience: audience, Expires: exp, IssuedAt: iat,
		ID: jti, ClientID: sub.key.ClientID(), Scope: strings.Join(scopes, " "), Roles: sub.roles.names,
		Tenant: s.cfg.Tenant, Stamp: m.stamp, Via: via,
	}
	signer, err := s.d.Signers.Signer(ctx, s.cfg.Tenant)
	if err != nil {
		return Token{}, err
	}
	text, err := signer.Sign(TokenType, &c)
	if err != nil {
		return Token{}, err
	}
	if len(text) > maxToken {
		return Token{}, refuse(CodeInvalidScope, "a token with all that would be too large: ask for fewer scopes")
	}
	return Token{Text: text, Life: time.Duration(exp-iat) * time.Second, Scopes: scopes, Claims: c}, nil
}

// narrow returns what was asked for if all of it is held: scopes never grow.
func narrow(held, asked []string) ([]string, error) {
	if asked == nil {
		return held, nil
	}
	for _, a := range asked {
		if !slices.Contains(held, a) {
			return nil, refuse(CodeInvalidScope, "the scope %q was not given to this credential", a)
		}
	}
	return asked, nil
}

// audience returns the aud of a token: the requested resources if they are
// allowed (RFC 8707), otherwise the tenant's default, or, where that is not
// allowed, the first that is.
func (s *Service) audience(allowed, asked []string) ([]string, error) {
	if len(allowed) == 0 {
		allowed = []string{s.cfg.Audience}
	}
	if len(asked) == 0 {
		if slices.Contains(allowed, s.cfg.Audience) {
			return []string{s.cfg.Audience}, nil
		}
		return allowed[:1], nil
	}
	for _, a := range asked {
		if !slices.Contains(allowed, a) {
			return nil, refuse(CodeInvalidTarget, "the resource %.200q is not one that this credential may ask tokens for", a)
		}
	}
	return union(nil, asked), nil
}

// randomText returns 22 characters of base64url: 16 random bytes.
func randomText(rand io.Reader) (string, error) {
	var b [16]byte
	if _, err := io.ReadFull(rand, b[:]); err != nil {
		return "", fmt.Errorf("random bytes: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(b[:]), nil
}
