package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/quash-project/quash/shared/guard"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/identity"
	"github.com/quash-project/quash/shared/signing"
)

// stranger has every right on the log and its stream, as a stolen revocation
// service would, and a key pair of its own; the rotator's identity key it has not.
type stranger struct {
	s     *services
	js    jetstream.JetStream
	epoch uint64
	id    ed25519.PrivateKey
	key   *ecdsa.PrivateKey
	jwk   map[string]string
}

func (s *services) stranger(epoch uint64) *stranger {
	s.t.Helper()
	js, err := jetstream.New(s.nats.Conn(s.t, identity.Revocation))
	if err != nil {
		s.t.Fatal(err)
	}
	_, id, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	point, err := key.PublicKey.Bytes()
	if err != nil {
		s.t.Fatal(err)
	}
	b64 := base64.RawURLEncoding
	return &stranger{s: s, js: js, epoch: epoch, id: id, key: key, jwk: map[string]string{
		"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "x": b64.EncodeToString(point[1:33]), "y": b64.EncodeToString(point[33:]),
	}}
}

// announce writes into the log what a key message with this signature would say.
func (x *stranger) announce(kid, state string, sign func(wire.KeyState) string) {
	x.s.t.Helper()
	end := time.Now().Add(24 * time.Hour).Unix()
	jwk := map[string]string{"kid": kid}
	for k, v := range x.jwk {
		jwk[k] = v
	}
	id, err := wire.NewID(rand.Reader)
	if err != nil {
		x.s.t.Fatal(err)
	}
	st := wire.KeyState{Tenant: "default", Issuer: x.s.url, KeyID: kid, JWK: jwk, State: state, End: end}
	head, err := wire.Encode(wire.Message{
		Kind: wire.KindKey, ID: id, Epoch: x.epoch, At: time.Now().UnixMilli(), Until: end + 600, KeyID: kid, JWS: sign(st),
	})
	if err != nil {
		x.s.t.Fatal(err)
	}
	target, err := signing.Target("default", kid)
	if err != nil {
		x.s.t.Fatal(err)
	}
	msg := &nats.Msg{Subject: wire.LogKey + target.Key().String(), Header: nats.Header{wire.Header: {string(head)}}}
	if _, err := x.js.PublishMsg(x.s.t.Context(), msg); err != nil {
		x.s.t.Fatal(err)
	}
}

// token is one as the issuer makes them, but for the key.
func (x *stranger) token(kid, like string) string {
	x.s.t.Helper()
	claims := jwt.MapClaims{}
	if err := json.Unmarshal(segment(x.s.t, like, 1), &claims); err != nil {
		x.s.t.Fatal(err)
	}
	tok := jwt.NewWithClaims(jwt.SigningMethodES256, claims)
	tok.Header["typ"], tok.Header["kid"] = "at+jwt", kid
	text, err := tok.SignedString(x.key)
	if err != nil {
		x.s.t.Fatal(err)
	}
	return text
}

// Who can write the log can't mint tokens: a key counts only when the rotator's
// identity key signed what is said of it, also where the kid is known.
func TestPromise7OnlyTheRotatorMakesKeys(t *testing.T) {
	t.Parallel()
	s := inProcess(t)
	admin := s.token(s.operator)
	g := s.guard(guard.WithNATS(s.nats.URL, s.nats.Creds(t, "orders")))
	g.ready()
	_, token := s.issue(admin, "alice")
	g.until(token, http.StatusOK)
	signer := kid(t, token)
	x := s.stranger(s.commit(admin, "revoke", "token:x").Epoch)
	b64 := base64.RawURLEncoding
	for name, sign := range map[string]func(wire.KeyState) string{
		"another identity": func(st wire.KeyState) string {
			text, err := signing.SignState(x.id, st)
			if err != nil {
				t.Fatal(err)
			}
			return text
		},
		"no signature": func(st wire.KeyState) string {
			payload, err := json.Marshal(st)
			if err != nil {
				t.Fatal(err)
			}
			return b64.EncodeToString([]byte(`{"alg":"none","typ":"`+wire.KeyStateType+`"}`)) + "." + b64.EncodeToString(payload) + ".AA"
		},
		"the new key itself": func(st wire.KeyState) string {
			payload, err := json.Marshal(st)
			if err != nil {
				t.Fatal(err)
			}
			text := b64.EncodeToString([]byte(`{"alg":"ES256","typ":"`+wire.KeyStateType+`"}`)) + "." + b64.EncodeToString(payload)
			sig, err := jwt.SigningMethodES256.Sign(text, x.key)
			if err != nil {
				t.Fatal(err)
			}
			return text + "." + b64.EncodeToString(sig)
		},
	} {
		for _, kid := range []string{"stranger" + fmt.Sprint(len(name)), signer} {
			for _, state := range []string{signing.Published, signing.Signing, signing.Revoked} {
				x.announce(kid, state, sign)
			}
			// The probe is answered after what was announced.
			probe := guard.Requirement{MaxStale: guard.Probe}
			if d := g.Decide(context.Background(), x.token(kid, token), probe); d.Status != http.StatusUnauthorized {
				t.Errorf("%s: a stranger's token with the kid %s: %d: %s", name, kid, d.Status, d.Reason)
			}
			if d := g.Decide(context.Background(), token, probe); d.Status != http.StatusOK {
				t.Errorf("%s: a valid token: %d: %s", name, d.Status, d.Reason)
			}
			if kid != signer && slices.Contains(s.jwks(), kid) {
				t.Errorf("%s: it is in the JWKS", name)
			}
			if r := s.api(x.token(kid, admin), http.MethodGet, "/v1/keys", nil); r.status != http.StatusUnauthorized {
				t.Errorf("%s: a stranger calls our own API: %d", name, r.status)
			}
		}
	}
	if got := kid(t, s.token(s.operator)); got != signer {
		t.Errorf("the issuer signs with %s since", got)
	}
}
