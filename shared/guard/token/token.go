package token

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/quash-project/quash/shared/guard/revoke"
)

// MaxSize is the longest token, in bytes. Servers cut headers off at 8 or 16 KiB.
const MaxSize = 16 << 10

// Token is a decoded token. Nothing in it is proved.
type Token struct {
	Header
	Claims
	Signed    string // what the signature is over: the first two segments
	Signature []byte
}

// Header is the JOSE header, as far as it counts. Members that could name a key
// (jwk, jku, x5c, x5u) are ignored: keys come from the issuer, never from a token.
type Header struct {
	Alg     string
	KeyID   string // kid
	Type    string // typ; "" if there is none
	HasType bool
}

// Claims are the claims that guards know. Which of them must be there is for the
// caller to say; those that are there have the right type.
type Claims struct {
	Issuer, Subject, ClientID, AuthorizedParty string // iss sub client_id azp
	ID, SessionID, Tenant                      string // jti sid tenant
	Audience, Scopes, Roles                    []string
	hasScope                                   bool
	IssuedAt, Expires, NotBefore               int64 // Unix seconds
	HasIssuedAt, HasExpires, HasNotBefore      bool
	Stamp                                      revoke.Stamp // rseq
	HasStamp                                   bool
	Via                                        []revoke.Key
	HasVia                                     bool
	Confirmation                               bool   // there is a cnf: the token is bound to a key of its holder
	Raw                                        []byte // the payload
}

// Errors of form. They say nothing of the token's contents.
var (
	ErrTooLarge = fmt.Errorf("the token is longer than %d bytes", MaxSize)
	ErrSegments = errors.New("the token does not have exactly three segments")
	ErrEncoding = errors.New("a segment of the token is not canonical base64url")
	ErrNoKeyID  = errors.New("the token's header has no kid: nothing says which key signed it")
	ErrCrit     = errors.New("the token's header has crit or b64: extensions that change what a signature is over are not taken")
)

var encoding = base64.RawURLEncoding.Strict()

// Decode reads a token in JWS compact form.
func Decode(text string) (*Token, error) {
	header, payload, signature, err := Split(text)
	if err != nil {
		return nil, err
	}
	t := &Token{Signed: text[:strings.LastIndexByte(text, '.')]}
	if t.Signature, err = segment(signature); err != nil {
		return nil, err
	}
	head, err := segment(header)
	if err != nil {
		return nil, err
	}
	if err := t.Header.decode(string(head)); err != nil {
		return nil, fmt.Errorf("the token's header: %w", err)
	}
	if t.Raw, err = segment(payload); err != nil {
		return nil, err
	}
	if err := t.Claims.decode(string(t.Raw)); err != nil {
		return nil, fmt.Errorf("the token's claims: %w", err)
	}
	return t, nil
}

// Split returns the three segments of a JWS in compact form, still encoded.
func Split(text string) (header, payload, signature string, err error) {
	if len(text) > MaxSize {
		return "", "", "", ErrTooLarge
	}
	header, rest, ok := strings.Cut(text, ".")
	payload, signature, ok2 := strings.Cut(rest, ".")
	if !ok || !ok2 || header == "" || payload == "" || signature == "" || strings.IndexByte(signature, '.') >= 0 {
		return "", "", "", ErrSegments
	}
	return header, payload, signature, nil
}

// segment decodes base64url without padding. The standard decoder skips CR and LF
// even when strict; here one token has one text.
func segment(text string) ([]byte, error) {
	if strings.IndexByte(text, '\r') >= 0 || strings.IndexByte(text, '\n') >= 0 {
		return nil, ErrEncoding
	}
	b, err := encoding.DecodeString(text)
	if err != nil {
		return nil, ErrEncoding // the decoder's own says where, which is of no use to anyone
	}
	return b, nil
}

// DecodeHeader reads the JOSE header alone, from its encoded segment, by the
// same rules; kid may be missing.
func DecodeHeader(encoded string) (Header, error) {
	b, err := segment(encoded)
	if err != nil {
		return Header{}, err
	}
	var h Header
	if err := h.members(string(b)); err != nil {
		return Header{}, fmt.Errorf("the header: %w", err)
	}
	return h, nil
}

// DecodeBytes decodes a segment: canonical base64url, and nothing else in it.
func DecodeBytes(encoded string) ([]byte, error) { return segment(encoded) }

// DecodeJSON decodes a segment whose contents are strict JSON (CheckJSON).
func DecodeJSON(encoded string) ([]byte, error) {
	b, err := segment(encoded)
	if err != nil {
		return nil, err
	}
	return b, CheckJSON(string(b))
}

func (h *Header) decode(text string) error {
	if err := h.members(text); err != nil {
		return err
	}
	if h.KeyID == "" {
		return ErrNoKeyID
	}
	return nil
}

func (h *Header) members(text string) error {
	return walk(text, func(s *scanner, name string) (err error) {
		switch name {
		case "alg":
			h.Alg, err = s.text1(name)
		case "kid":
			h.KeyID, err = s.text1(name)
		case "typ":
			h.HasType = true
			h.Type, err = s.text1(name)
		case "crit", "b64":
			return ErrCrit
		default:
			if oddCase(name, headerNames[:]) {
				return errCase
			}
			return s.skip()
		}
		return err
	})
}
