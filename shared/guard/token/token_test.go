package token

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
)

func enc(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

const (
	goodHeader = `{"alg":"ES256","kid":"k1","typ":"at+jwt"}`
	goodClaims = `{"iss":"https://q","sub":"alice","aud":"api","exp":1700000600,"iat":1700000000,"jti":"j1",` +
		`"client_id":"c1","scope":"orders:read orders:write","roles":["admin"],"tenant":"default",` +
		`"rseq":"1700000000000.7","via":["AAAAAAAAAAAAAAAAAAAAAA"]}`
)

func make3(header, claims string) string { return enc(header) + "." + enc(claims) + "." + enc("sig") }

func TestGoodTokenIsRead(t *testing.T) {
	tok, err := Decode(make3(goodHeader, goodClaims))
	if err != nil {
		t.Fatal(err)
	}
	if tok.Alg != "ES256" || tok.KeyID != "k1" || tok.Type != "at+jwt" || tok.Subject != "alice" ||
		tok.Expires != 1700000600 || tok.Stamp.Seq != 7 || len(tok.Via) != 1 || string(tok.Signature) != "sig" ||
		!reflect.DeepEqual(tok.Scopes, []string{"orders:read", "orders:write"}) ||
		!reflect.DeepEqual(tok.Audience, []string{"api"}) || tok.Signed != enc(goodHeader)+"."+enc(goodClaims) {
		t.Errorf("read %+v", tok)
	}
}

func TestHeadersThatDecodersDifferOnAreRefused(t *testing.T) {
	for name, header := range map[string]string{
		"kid a number":      `{"alg":"ES256","kid":1}`,
		"kid an object":     `{"alg":"ES256","kid":{}}`,
		"no kid":            `{"alg":"ES256"}`,
		"kid empty":         `{"alg":"ES256","kid":""}`,
		"alg twice":         `{"alg":"none","alg":"ES256","kid":"k"}`,
		"alg twice escaped": `{"alg":"none","\u0061lg":"ES256","kid":"k"}`,
		"alg in capitals":   `{"ALG":"ES256","alg":"ES256","kid":"k"}`,
		"crit":              `{"alg":"ES256","kid":"k","crit":["b64"]}`,
		"b64":               `{"alg":"ES256","kid":"k","b64":false}`,
		"typ null":          `{"alg":"ES256","kid":"k","typ":null}`,
		"an array":          `[]`,
		"trailing":          `{"alg":"ES256","kid":"k"}{}`,
		"twice deep within": `{"alg":"ES256","kid":"k","x":{"y":[{"a":1,"a":2}]}}`,
		"empty":             ` `,
	} {
		if tok, err := Decode(make3(header, goodClaims)); err == nil {
			t.Errorf("%s: %s was read as %+v", name, header, tok.Header)
		}
	}
}

func TestClaimsThatDecodersDifferOnAreRefused(t *testing.T) {
	for name, claims := range map[string]string{
		"sub twice":            `{"sub":"alice","sub":"root"}`,
		"sub in capitals":      `{"sub":"alice","SUB":"root"}`,
		"sub with a long s":    `{"sub":"alice","ſub":"root"}`,
		"exp a string":         `{"exp":"1700000600"}`,
		"exp a fraction":       `{"exp":1700000600.5}`,
		"exp with an exponent": `{"exp":17e8}`,
		"exp beyond int64":     `{"exp":99999999999999999999}`,
		"exp beyond float64":   `{"exp":9007199254740993}`,
		"exp negative":         `{"exp":-1}`,
		"exp null":             `{"exp":null}`,
		"aud a number":         `{"aud":3}`,
		"aud with a number":    `{"aud":["a",3]}`,
		"aud with an empty":    `{"aud":[""]}`,
		"rseq a number":        `{"rseq":1.7}`,
		"rseq not canonical":   `{"rseq":"01.7"}`,
		"via a string":         `{"via":"AAAAAAAAAAAAAAAAAAAAAA"}`,
		"via not a key":        `{"via":["AAAAAAAAAAAAAAAAAAAAAB"]}`,
		"via of 65":            `{"via":[` + strings.Repeat(`"AAAAAAAAAAAAAAAAAAAAAA",`, 64) + `"AAAAAAAAAAAAAAAAAAAAAA"]}`,
		"half a surrogate":     `{"sub":"\ud800"}`,
		"surrogates turned":    `{"sub":"\udc00\ud800"}`,
		"invalid UTF-8":        "{\"sub\":\"\xff\"}",
		"a control character":  "{\"sub\":\"a\nb\"}",
		"leading zero":         `{"exp":01}`,
		"10,000 deep":          `{"x":` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + `}`,
		"a comma too many":     `{"sub":"alice",}`,
		"single quotes":        `{'sub':'alice'}`,
		"trailing":             `{"sub":"alice"} x`,
	} {
		if tok, err := Decode(make3(goodHeader, claims)); err == nil {
			t.Errorf("%s: was read as %+v", name, tok.Claims)
		} else if strings.Contains(err.Error(), "alice") || strings.Contains(err.Error(), "root") {
			t.Errorf("%s: the error shows the token: %v", name, err)
		}
	}
}

func TestOneTokenHasOneText(t *testing.T) {
	h, c, s := enc(goodHeader), enc(goodClaims), enc("sig")
	for name, text := range map[string]string{
		"line feed in the signature": h + "." + c + "." + s[:2] + "\n" + s[2:],
		"CR in the header":           h[:4] + "\r" + h[4:] + "." + c + "." + s,
		"CR in the claims":           h + "." + c[:4] + "\r\n" + c[4:] + "." + s,
		"padding":                    h + "." + c + "." + "c2lnAA==",
		"bits left over":             h + "." + c + "." + "c2lnAB",
		"standard alphabet":          h + "." + c + "." + "+/++",
		"two segments":               h + "." + c,
		"four segments":              h + "." + c + "." + s + "." + s,
		"no signature":               h + "." + c + ".",
		"no header":                  "." + c + "." + s,
		"blank around":               " " + h + "." + c + "." + s,
	} {
		if _, err := Decode(text); err == nil {
			t.Errorf("%s: was read", name)
		}
	}
	if _, err := Decode(strings.Repeat(".", MaxSize+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too long: %v", err)
	}
}

func TestScopeGoesBeforeScpInAnyOrder(t *testing.T) {
	for _, claims := range []string{`{"scope":"a","scp":["b"]}`, `{"scp":["b"],"scope":"a"}`} {
		tok, err := Decode(make3(goodHeader, claims))
		if err != nil || !reflect.DeepEqual(tok.Scopes, []string{"a"}) {
			t.Errorf("%s: %v, %v", claims, tok, err)
		}
	}
	tok, err := Decode(make3(goodHeader, `{"scp":["b c","d",7],"roles":[{"value":"admin"},"dev"]}`))
	if err != nil || !reflect.DeepEqual(tok.Scopes, []string{"b c", "d"}) || !reflect.DeepEqual(tok.Roles, []string{"dev"}) {
		t.Errorf("%v, %v", tok, err)
	}
}

// FuzzToken: whatever is accepted, encoding/json reads the same.
func FuzzToken(f *testing.F) {
	f.Add(goodHeader, goodClaims)
	f.Add(`{"alg":"a","kid":"\ud83d\ude00","x":[1,2.5e3,{"y":null}]}`, `{"sub":"\u00e9","aud":["a","b"],"cnf":{},"nbf":0}`)
	f.Add(`{"alg":"ES256","kid":"k","kid":"l"}`, `{"SUB":"x"}`)
	f.Fuzz(func(t *testing.T, header, claims string) {
		tok, err := Decode(make3(header, claims))
		if err != nil {
			return
		}
		var h, c map[string]any
		if err := json.Unmarshal([]byte(header), &h); err != nil {
			t.Fatalf("encoding/json refuses the header: %v", err)
		}
		if err := json.Unmarshal([]byte(claims), &c); err != nil {
			t.Fatalf("encoding/json refuses the claims: %v", err)
		}
		for name, got := range map[string]string{"alg": tok.Alg, "kid": tok.KeyID, "typ": tok.Type} {
			if s, _ := h[name].(string); s != got {
				t.Errorf("%s: %q, encoding/json %q", name, got, s)
			}
		}
		for name, got := range map[string]string{
			"iss": tok.Issuer, "sub": tok.Subject, "client_id": tok.ClientID, "azp": tok.AuthorizedParty,
			"jti": tok.ID, "sid": tok.SessionID, "tenant": tok.Tenant,
		} {
			if s, _ := c[name].(string); s != got {
				t.Errorf("%s: %q, encoding/json %q", name, got, s)
			}
		}
		for name, got := range map[string]int64{"exp": tok.Expires, "iat": tok.IssuedAt, "nbf": tok.NotBefore} {
			if n, _ := c[name].(float64); n != float64(got) {
				t.Errorf("%s: %d, encoding/json %v", name, got, n)
			}
		}
		// And into a struct, which matches names without case.
		var s struct {
			Iss, Sub, Jti, Sid, Tenant, Rseq string
			ClientID                         string `json:"client_id"`
			Exp, Iat, Nbf                    int64
		}
		if err := json.Unmarshal([]byte(claims), &s); err != nil {
			t.Fatalf("encoding/json refuses the claims for a struct: %v", err)
		}
		if s.Iss != tok.Issuer || s.Sub != tok.Subject || s.Jti != tok.ID || s.Sid != tok.SessionID ||
			s.Tenant != tok.Tenant || s.ClientID != tok.ClientID || s.Exp != tok.Expires || s.Iat != tok.IssuedAt || s.Nbf != tok.NotBefore {
			t.Errorf("read %+v, encoding/json %+v", tok.Claims, s)
		}
		if _, ok := c["cnf"]; ok != tok.Confirmation {
			t.Errorf("cnf: %v, encoding/json %v", tok.Confirmation, ok)
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	text := make3(goodHeader, goodClaims)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode(text); err != nil {
			b.Fatal(err)
		}
	}
}
