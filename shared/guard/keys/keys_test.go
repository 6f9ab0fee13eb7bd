package keys

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quash-project/quash/shared/guard/wire"
)

var b64 = base64.RawURLEncoding

const (
	tenant = "default"
	issuer = "https://quash.test"
)

func identity(t testing.TB) (ed25519.PrivateKey, string) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return private, "ed25519:" + b64.EncodeToString(public)
}

func ecJWK(t testing.TB, kid string) map[string]string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return map[string]string{
		"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": kid, "x": b64.EncodeToString(p[1:33]), "y": b64.EncodeToString(p[33:]),
	}
}

func sign(t testing.TB, by ed25519.PrivateKey, header string, state wire.KeyState) wire.Message {
	t.Helper()
	payload, err := json.Marshal(state)
	if err != nil {
		t.Fatal(err)
	}
	text := b64.EncodeToString([]byte(header)) + "." + b64.EncodeToString(payload)
	return wire.Message{Kind: wire.KindKey, KeyID: state.KeyID, JWS: text + "." + b64.EncodeToString(ed25519.Sign(by, []byte(text)))}
}

const keyHeader = `{"alg":"EdDSA","typ":"quash-key+jwt"}`

func TestOnlyTheIdentityKeyMakesKeysTrusted(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	good, trust := identity(t)
	evil, _ := identity(t)
	state := wire.KeyState{Tenant: tenant, Issuer: issuer, KeyID: "k1", JWK: ecJWK(t, "k1"), State: "signing", End: now.Unix() + 3600}
	other := state
	other.Tenant = "other"
	foreign := state
	foreign.Issuer = "https://evil.test"
	private := state
	private.JWK = map[string]string{"d": "AAAA"}
	for k, v := range state.JWK {
		private.JWK[k] = v
	}
	misnamed := state
	misnamed.JWK = ecJWK(t, "k2")
	endless := state
	endless.End = 0
	renamed := sign(t, good, keyHeader, state)
	renamed.KeyID = "k2"
	touched := sign(t, good, keyHeader, state)
	touched.JWS = touched.JWS[:len(touched.JWS)-6] + "AAAAAA"
	padded := sign(t, good, keyHeader, state)
	padded.JWS += "\n"
	for name, c := range map[string]struct {
		m    wire.Message
		want error
	}{
		"another identity":   {sign(t, evil, keyHeader, state), ErrIdentity},
		"touched":            {touched, ErrIdentity},
		"a line feed":        {padded, ErrIdentity},
		"another tenant":     {sign(t, good, keyHeader, other), ErrOther},
		"another issuer":     {sign(t, good, keyHeader, foreign), ErrOther},
		"typ of a token":     {sign(t, good, `{"alg":"EdDSA","typ":"at+jwt"}`, state), ErrForm},
		"alg none":           {sign(t, good, `{"alg":"none","typ":"quash-key+jwt"}`, state), ErrForm},
		"crit":               {sign(t, good, `{"alg":"EdDSA","typ":"quash-key+jwt","crit":["x"]}`, state), ErrForm},
		"a kid of another":   {renamed, ErrForm},
		"JWK of another kid": {sign(t, good, keyHeader, misnamed), ErrForm},
		"no end":             {sign(t, good, keyHeader, endless), ErrForm},
		"a private key":      {sign(t, good, keyHeader, private), nil},
		"nothing":            {wire.Message{Kind: wire.KindKey}, ErrForm},
	} {
		s, err := NewSet(tenant, issuer, []string{trust}, OwnAlgs())
		if err != nil {
			t.Fatal(err)
		}
		err = s.Apply(c.m, now)
		if err == nil || c.want != nil && !errors.Is(err, c.want) || s.Lookup("k1") != nil || s.Lookup("k2") != nil || s.Usable(now) != 0 {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	s, _ := NewSet(tenant, issuer, []string{trust}, OwnAlgs())
	if err := s.Apply(sign(t, good, keyHeader, state), now); err != nil || s.Lookup("k1") == nil || s.Usable(now) != 1 {
		t.Errorf("a good one: %v", err)
	}
}

// TestAnyOrderOfKeyMessagesGivesTheSameState (promise 3).
func TestAnyOrderOfKeyMessagesGivesTheSameState(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	by, trust := identity(t)
	jwk := ecJWK(t, "k1")
	message := func(state string) wire.Message {
		return sign(t, by, keyHeader, wire.KeyState{Tenant: tenant, Issuer: issuer, KeyID: "k1", JWK: jwk, State: state, End: now.Unix() + 3600})
	}
	usable := map[string]error{
		"planned": ErrPlanned, "published": nil, "signing": nil, "retiring": nil, "gone": ErrGone, "revoked": ErrRevoked, "unheard-of": ErrState,
	}
	states := append(append([]string{}, wire.KeyStates...), "unheard-of")
	for i, a := range states {
		for j, b := range states {
			s, _ := NewSet(tenant, issuer, []string{trust}, OwnAlgs())
			for _, state := range []string{a, b, a} {
				if err := s.Apply(message(state), now); err != nil {
					t.Fatal(err)
				}
			}
			want := states[max(i, j)]
			if k := s.Lookup("k1"); k.State != want || !errors.Is(k.Usable(now), usable[want]) {
				t.Errorf("%s, %s: %s %v", a, b, k.State, k.Usable(now))
			}
		}
	}
}

func TestEndAndPublicKeyAreFixedAtBirth(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	by, trust := identity(t)
	state := wire.KeyState{Tenant: tenant, Issuer: issuer, KeyID: "k1", JWK: ecJWK(t, "k1"), State: "published", End: now.Unix() + 3600}
	s, _ := NewSet(tenant, issuer, []string{trust}, OwnAlgs())
	if err := s.Apply(sign(t, by, keyHeader, state), now); err != nil {
		t.Fatal(err)
	}
	first := s.Lookup("k1")
	later, other := state, state
	later.State, later.End = "signing", later.End+1
	other.State, other.JWK = "signing", ecJWK(t, "k1")
	for _, c := range []wire.KeyState{later, other} {
		if err := s.Apply(sign(t, by, keyHeader, c), now); !errors.Is(err, ErrConflict) || s.Lookup("k1") != first {
			t.Errorf("%v", err)
		}
	}
	if err := first.Usable(now.Add(time.Hour - time.Second)); err != nil {
		t.Errorf("before its end: %v", err)
	}
	if err := first.Usable(now.Add(time.Hour)); !errors.Is(err, ErrEnded) {
		t.Errorf("at its end: %v", err)
	}
	state.State = "retiring"
	if err := s.Apply(sign(t, by, keyHeader, state), now); err != nil || !s.Lookup("k1").Same(first) {
		t.Errorf("a known key in another state is not the same: %v", err)
	}
}

func TestFetchedSetsAreBoundedAndHoldNoSecrets(t *testing.T) {
	rsaKey := func(bits int) map[string]string {
		n := new(big.Int).Lsh(big.NewInt(1), uint(bits-1))
		n.SetBit(n, 0, 1)
		return map[string]string{"kty": "RSA", "kid": "r", "n": b64.EncodeToString(n.Bytes()), "e": "AQAB"}
	}
	with := func(jwk map[string]string, pairs ...string) map[string]string {
		out := map[string]string{}
		for k, v := range jwk {
			out[k] = v
		}
		for i := 0; i < len(pairs); i += 2 {
			out[pairs[i]] = pairs[i+1]
		}
		return out
	}
	good := ecJWK(t, "k1")
	for name, c := range map[string]struct {
		keys []map[string]string
		want int
	}{
		"good":              {[]map[string]string{good}, 1},
		"RSA of 2048 bits":  {[]map[string]string{rsaKey(2048)}, 1},
		"RSA of 1024 bits":  {[]map[string]string{rsaKey(1024)}, 0},
		"RSA of 16384 bits": {[]map[string]string{rsaKey(16384)}, 0},
		"RSA, exponent 1":   {[]map[string]string{with(rsaKey(2048), "e", "AQ")}, 0},
		"symmetric":         {[]map[string]string{{"kty": "oct", "kid": "s", "k": "c2VjcmV0", "alg": "HS256"}}, 0},
		"private":           {[]map[string]string{with(good, "d", "AAAA")}, 0},
		"for encryption":    {[]map[string]string{with(good, "use", "enc")}, 0},
		"no kid":            {[]map[string]string{with(good, "kid", "")}, 0},
		"alg of another":    {[]map[string]string{with(good, "alg", "RS256")}, 0},
		"off the curve":     {[]map[string]string{with(good, "y", good["x"])}, 0},
		"a kid twice":       {[]map[string]string{good, ecJWK(t, "k1")}, 0},
		"one bad beside":    {[]map[string]string{good, {"kty": "oct", "kid": "s", "k": "c2VjcmV0"}}, 1},
	} {
		body, err := json.Marshal(map[string]any{"keys": c.keys})
		if err != nil {
			t.Fatal(err)
		}
		keys, _, err := parseSet(body, ForeignAlgs())
		if err != nil || len(keys) != c.want {
			t.Errorf("%s: %d keys, %v; want %d", name, len(keys), err, c.want)
		}
	}
	for name, body := range map[string]string{
		"not JSON": "x", "an array": "[]", "no keys": `{}`, "keys twice": `{"keys":[],"keys":[]}`, "keys a string": `{"keys":"x"}`,
		"too large": `{"keys":[]` + strings.Repeat(" ", maxSet) + `}`, "too many": `{"keys":[` + strings.Repeat("{},", maxKeys) + `{}]}`,
	} {
		if _, _, err := parseSet([]byte(body), ForeignAlgs()); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestRedirectionToPlainHTTPIsNotFollowed(t *testing.T) {
	var asked atomic.Bool
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Store(true)
		http.Redirect(w, r, "http://keys.example.invalid/", http.StatusFound)
	}))
	defer srv.Close()
	r, err := NewRemote(RemoteConfig{URL: srv.URL})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.get(context.Background()); err == nil || !strings.Contains(err.Error(), "https") || !asked.Load() {
		t.Errorf("%v", err)
	}
	for _, url := range []string{"http://keys.example/", "ftp://127.0.0.1/", "https://a:b@keys.example/", "keys.example", "https://"} {
		if _, err := NewRemote(RemoteConfig{URL: url}); err == nil {
			t.Errorf("%s: taken", url)
		} else if strings.Contains(err.Error(), "a:b@") {
			t.Errorf("the error shows a password: %v", err)
		}
	}
}

// TestOldKeysEndWhenTheyCantBeFetched: a provider that is away for long may have
// revoked them.
func TestOldKeysEndWhenTheyCantBeFetched(t *testing.T) {
	now := atomic.Int64{}
	now.Store(time.Now().UnixNano())
	down := atomic.Bool{}
	body, _ := json.Marshal(map[string]any{"keys": []any{ecJWK(t, "k1")}})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if down.Load() {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		_, _ = w.Write(body)
	}))
	defer srv.Close()
	r, err := NewRemote(RemoteConfig{URL: srv.URL, Now: func() time.Time { return time.Unix(0, now.Load()) }})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Lookup(canceled(), "k1"); !errors.Is(err, ErrUnavailable) || r.Ready() == nil {
		t.Errorf("before the first fetch: %v, %v", err, r.Ready())
	}
	if err := r.fetch(context.Background()); err != nil || r.Peek("k1") == nil || r.Ready() != nil {
		t.Fatalf("%v %v", err, r.Ready())
	}
	first := r.Peek("k1")
	if err := r.fetch(context.Background()); err != nil || r.Peek("k1") != first {
		t.Errorf("the same key fetched again is another: %v", err)
	}
	down.Store(true)
	now.Add(int64(59 * time.Minute))
	if err := r.fetch(context.Background()); err == nil || r.Peek("k1") == nil {
		t.Errorf("within the hour: %v", err)
	}
	now.Add(int64(2 * time.Minute))
	if r.Peek("k1") != nil || !errors.Is(r.Ready(), ErrUnavailable) {
		t.Error("keys of an hour ago are still good")
	}
}

// TestPointsOfSmallOrderAreNoKeys: a signature of nothing verifies with them.
func TestPointsOfSmallOrderAreNoKeys(t *testing.T) {
	nothing := append([]byte{1}, make([]byte, 63)...) // R is the neutral element, S is 0
	for _, text := range []string{
		"0000000000000000000000000000000000000000000000000000000000000000",
		"0100000000000000000000000000000000000000000000000000000000000000",
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	} {
		key, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		forged := false
		for i := range 1000 {
			forged = forged || ed25519.Verify(key, []byte{byte(i), byte(i >> 8)}, nothing)
		}
		if !forged || !smallOrder(key) {
			t.Errorf("%s: forged %v, refused %v", text, forged, smallOrder(key))
		}
	}
	_, trust := identity(t)
	if _, err := ParseTrust(trust); err != nil {
		t.Error(err)
	}
	if _, err := ParseTrust("ed25519:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"); err == nil {
		t.Error("an identity key of small order is taken")
	}
}

func canceled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

func TestKeyIsForItsAlgorithmOnly(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := json.Marshal(map[string]any{"keys": []any{map[string]string{
		"kty": "RSA", "kid": "r", "alg": "PS256", "n": b64.EncodeToString(key.N.Bytes()), "e": "AQAB",
	}}})
	keys, _, err := parseSet(body, ForeignAlgs())
	if err != nil {
		t.Fatal(err)
	}
	for _, alg := range []string{"RS256", "HS256", "none", "ES256", ""} {
		if err := keys["r"].Verify(alg, "x", []byte("y")); !errors.Is(err, ErrAlgorithm) {
			t.Errorf("%s: %v", alg, err)
		}
	}
}

// FuzzKeySet: whatever comes from a URL gives keys that can be used, or none.
func FuzzKeySet(f *testing.F) {
	body, _ := json.Marshal(map[string]any{"keys": []any{ecJWK(f, "k1")}})
	f.Add(string(body))
	f.Add(`{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"e","x":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}]}`)
	f.Add(`{"keys":[{"kty":"RSA","kid":"r","n":"AQ","e":"AQAB"}]}`)
	f.Fuzz(func(t *testing.T, body string) {
		keys, _, err := parseSet([]byte(body), ForeignAlgs())
		if err != nil && len(keys) > 0 {
			t.Fatal("keys with an error")
		}
		for id, k := range keys {
			if id == "" || k.ID != id || len(k.Algs) == 0 || k.Public == nil {
				t.Fatalf("%q: %+v", id, k)
			}
			for _, alg := range k.Algs {
				if err := k.Verify(alg, "signed", make([]byte, 64)); !errors.Is(err, ErrSignature) {
					t.Fatalf("a signature of zeros: %v", err)
				}
			}
		}
	})
}

// FuzzKeyMessage: without the identity key nothing gets in.
func FuzzKeyMessage(f *testing.F) {
	by, _ := identity(f)
	_, trust := identity(f)
	state := wire.KeyState{Tenant: tenant, Issuer: issuer, KeyID: "k1", JWK: ecJWK(f, "k1"), State: "signing", End: 1 << 40}
	m := sign(f, by, keyHeader, state)
	f.Add(m.KeyID, m.JWS)
	f.Add("", "..")
	f.Fuzz(func(t *testing.T, kid, jws string) {
		s, err := NewSet(tenant, issuer, []string{trust}, OwnAlgs())
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Apply(wire.Message{Kind: wire.KindKey, KeyID: kid, JWS: jws}, time.Unix(0, 0)); err == nil || s.Lookup(kid) != nil {
			t.Fatal("taken without a trusted signature")
		}
	})
}
