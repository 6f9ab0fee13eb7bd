package proof_test

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/mod/sumdb/note"

	"github.com/quash-project/quash/services/revocation/proof"
	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/identity"
	"github.com/quash-project/quash/shared/problem"
	"github.com/quash-project/quash/shared/seal"
	"github.com/quash-project/quash/shared/signing"
)

const typ = "quash-receipt+jwt"

func load(t testing.TB, file string) *seal.KEK {
	t.Helper()
	kek, err := seal.LoadKEK(file)
	if err != nil {
		t.Fatal(err)
	}
	return kek
}

// TestReplicasMakeOneKey: of many that start at once one makes it, all sign with it,
// another key-encryption key opens nothing, and nothing secret stands in the record.
func TestReplicasMakeOneKey(t *testing.T) {
	nc := enginetest.NATS(t).Admin(t, identity.Log)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	b, err := js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "receipts"})
	if err != nil {
		t.Fatal(err)
	}
	bucket := func(context.Context) (jetstream.KeyValue, error) { return b, nil }
	file := enginetest.KEK(t)
	var (
		all sync.WaitGroup
		mu  sync.Mutex
	)
	kids := map[string]bool{}
	for range 8 {
		all.Go(func() {
			keys := proof.New(proof.Config{Bucket: bucket, KEK: load(t, file)})
			text, err := keys.Sign(t.Context(), typ, []byte(`{"iat":`+fmt.Sprint(time.Now().Unix())+`}`))
			if err != nil {
				t.Error(err)
				return
			}
			set, err := keys.Public(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			s, err := proof.Verify(text, typ, set)
			if err != nil || len(set.Keys) != 1 {
				t.Errorf("%d keys, %v", len(set.Keys), err)
			}
			mu.Lock()
			defer mu.Unlock()
			kids[s.Key.KeyID] = true
		})
	}
	all.Wait()
	if len(kids) != 1 {
		t.Errorf("they sign with %d keys, want one", len(kids))
	}
	other := proof.New(proof.Config{Bucket: bucket, KEK: load(t, enginetest.KEK(t))})
	if _, _, err := other.Signer(t.Context()); problem.KindOf(err) != problem.Unavailable {
		t.Errorf("with another key-encryption key: %v", err)
	}
	if set, err := other.Public(t.Context()); err != nil || len(set.Keys) != 1 {
		t.Errorf("with another key-encryption key the public ones are %v, %v: what was signed must stay verifiable", set, err)
	}
	keys := proof.New(proof.Config{Bucket: bucket, KEK: load(t, file)})
	kid, signer, err := keys.Signer(t.Context())
	if err != nil || !kids[kid] {
		t.Fatalf("%s, %v", kid, err)
	}
	e, err := b.Get(t.Context(), proof.Record)
	if err != nil {
		t.Fatal(err)
	}
	seed := signer.(ed25519.PrivateKey).Seed()
	for _, secret := range []string{string(seed), base64.StdEncoding.EncodeToString(seed), base64.RawURLEncoding.EncodeToString(seed)} {
		if strings.Contains(string(e.Value()), secret) {
			t.Error("the private key stands in the record")
		}
	}
}

// kept is a key of a test, and its set.
func kept(t testing.TB, from time.Time, until *time.Time) (ed25519.PrivateKey, proof.KeySet) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	jwk, kid, err := signing.PublicJWK(public)
	if err != nil {
		t.Fatal(err)
	}
	return private, proof.KeySet{Keys: []proof.PublicKey{{KeyType: "OKP", Curve: "Ed25519", X: jwk["x"], KeyID: kid, ValidFrom: from, ValidUntil: until}}}
}

func jws(t testing.TB, key any, method jwt.SigningMethod, header, payload string) string {
	t.Helper()
	enc := base64.RawURLEncoding
	text := enc.EncodeToString([]byte(header)) + "." + enc.EncodeToString([]byte(payload))
	sig, err := method.Sign(text, key)
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + enc.EncodeToString(sig)
}

func TestOnlyWhatItsKeySignedIsTaken(t *testing.T) {
	now := time.Now()
	private, set := kept(t, now.Add(-time.Hour), nil)
	kid := set.Keys[0].KeyID
	head := fmt.Sprintf(`{"alg":"EdDSA","typ":%q,"kid":%q}`, typ, kid)
	claims := fmt.Sprintf(`{"iat":%d,"complete":false}`, now.Unix())
	good := jws(t, private, jwt.SigningMethodEdDSA, head, claims)
	if s, err := proof.Verify(good, typ, set); err != nil || string(s.Payload) != claims || s.At.Unix() != now.Unix() {
		t.Fatalf("%+v, %v", s, err)
	}
	parts := strings.Split(good, ".")
	enc := base64.RawURLEncoding
	other, otherSet := kept(t, now.Add(-time.Hour), nil)
	ended := now.Add(-30 * time.Minute)
	past := proof.KeySet{Keys: []proof.PublicKey{set.Keys[0]}}
	past.Keys[0].ValidUntil = &ended
	later := proof.KeySet{Keys: []proof.PublicKey{set.Keys[0]}}
	later.Keys[0].ValidFrom = now.Add(time.Hour)
	twice := proof.KeySet{Keys: []proof.PublicKey{set.Keys[0], set.Keys[0]}}
	forged := proof.KeySet{Keys: []proof.PublicKey{otherSet.Keys[0]}}
	forged.Keys[0].KeyID = kid
	public, err := set.Keys[0].Ed25519()
	if err != nil {
		t.Fatal(err)
	}
	edit := func(from, to string) string { return strings.Replace(head, from, to, 1) }
	for name, c := range map[string]struct {
		text string
		set  proof.KeySet
		want error
	}{
		"payload altered":        {parts[0] + "." + enc.EncodeToString([]byte(strings.Replace(claims, "false", "true", 1))) + "." + parts[2], set, proof.ErrSignature},
		"header altered":         {enc.EncodeToString([]byte(edit(`"kid"`, ` "kid"`))) + "." + parts[1] + "." + parts[2], set, proof.ErrSignature},
		"signature of another":   {jws(t, other, jwt.SigningMethodEdDSA, head, claims), set, proof.ErrSignature},
		"another key":            {jws(t, other, jwt.SigningMethodEdDSA, edit(kid, otherSet.Keys[0].KeyID), claims), set, proof.ErrKey},
		"a forged key set":       {jws(t, other, jwt.SigningMethodEdDSA, head, claims), forged, proof.ErrKey},
		"a kid twice":            {good, twice, proof.ErrKey},
		"an empty set":           {good, proof.KeySet{}, proof.ErrKey},
		"another type":           {jws(t, private, jwt.SigningMethodEdDSA, edit(typ, "at+jwt"), claims), set, proof.ErrType},
		"no type":                {jws(t, private, jwt.SigningMethodEdDSA, edit(`"typ":"`+typ+`",`, ""), claims), set, proof.ErrType},
		"alg none":               {parts[0] + "." + parts[1] + ".", set, proof.ErrSignature},
		"alg none, said so":      {enc.EncodeToString([]byte(edit("EdDSA", "none"))) + "." + parts[1] + ".", set, proof.ErrType},
		"HMAC by the public key": {jws(t, []byte(public), jwt.SigningMethodHS256, edit("EdDSA", "HS256"), claims), set, proof.ErrType},
		"crit":                   {jws(t, private, jwt.SigningMethodEdDSA, edit("{", `{"crit":["x"],`), claims), set, proof.ErrForm},
		"a key of its own":       {jws(t, private, jwt.SigningMethodEdDSA, edit("{", `{"jwk":{},`), claims), set, proof.ErrForm},
		"kid twice":              {jws(t, private, jwt.SigningMethodEdDSA, edit("{", `{"kid":"x",`), claims), set, proof.ErrForm},
		"a member twice":         {jws(t, private, jwt.SigningMethodEdDSA, head, strings.Replace(claims, "{", `{"complete":true,`, 1)), set, proof.ErrForm},
		"no time":                {jws(t, private, jwt.SigningMethodEdDSA, head, `{}`), set, proof.ErrForm},
		"time in another case":   {jws(t, private, jwt.SigningMethodEdDSA, head, strings.Replace(claims, "iat", "IAT", 1)), set, proof.ErrForm},
		"after its key's end":    {good, past, proof.ErrTime},
		"before its key":         {good, later, proof.ErrTime},
		"a newline within":       {good[:20] + "\n" + good[20:], set, proof.ErrForm},
		"padded":                 {good + "=", set, proof.ErrForm},
		"two parts":              {parts[0] + "." + parts[1], set, proof.ErrForm},
		"four parts":             {good + ".x", set, proof.ErrForm},
		"nothing":                {"", set, proof.ErrForm},
		"too long":               {strings.Repeat("a", proof.MaxJWS+1), set, proof.ErrForm},
	} {
		if _, err := proof.Verify(c.text, typ, c.set); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// FuzzVerify: nothing passes but what was signed, and nothing panics.
func FuzzVerify(f *testing.F) {
	private, set := kept(f, time.Unix(1, 0), nil)
	head := fmt.Sprintf(`{"alg":"EdDSA","typ":%q,"kid":%q}`, typ, set.Keys[0].KeyID)
	good := jws(f, private, jwt.SigningMethodEdDSA, head, `{"iat":1800000000,"complete":true}`)
	f.Add(good)
	f.Add(good + "=")
	f.Add(strings.Replace(good, ".", "..", 1))
	f.Add("..")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := proof.Verify(text, typ, set)
		if err == nil && (text != good || !json.Valid(s.Payload)) {
			t.Errorf("%q is taken", text)
		}
	})
}

// The same key signs notes, and only under the name that it was asked for.
func TestNotesAreSignedByTheProofKey(t *testing.T) {
	js, err := jetstream.New(enginetest.NATS(t).Admin(t, identity.Log))
	if err != nil {
		t.Fatal(err)
	}
	b, err := js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "receipts"})
	if err != nil {
		t.Fatal(err)
	}
	keys := proof.New(proof.Config{Bucket: func(context.Context) (jetstream.KeyValue, error) { return b, nil }, KEK: load(t, enginetest.KEK(t))})
	by, err := keys.NoteSigner(t.Context(), "auth.example.com/audit")
	if err != nil {
		t.Fatal(err)
	}
	signed, err := note.Sign(&note.Note{Text: "auth.example.com/audit\n1\nAAAA\n"}, by)
	if err != nil {
		t.Fatal(err)
	}
	set, err := keys.Public(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for name, good := range map[string]bool{"auth.example.com/audit": true, "other.example.com/audit": false} {
		known, err := set.NoteVerifiers(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := note.Open(signed, known); (err == nil) != good {
			t.Errorf("by the key as %s: %v", name, err)
		}
	}
}

// TestAnOutageLetsNobodyQueue: of many that want the keys one reads them, none waits
// longer than it wants to, and a failed try counts for a second.
func TestAnOutageLetsNobodyQueue(t *testing.T) {
	kek := load(t, enginetest.KEK(t))
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		keys := proof.New(proof.Config{KEK: kek, Bucket: func(ctx context.Context) (jetstream.KeyValue, error) {
			tries++
			<-ctx.Done()
			return nil, ctx.Err()
		}})
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := keys.Public(ctx); problem.KindOf(err) != problem.Unavailable || time.Since(began) != time.Second {
			t.Errorf("%v after %s, want it refused when its context ends", err, time.Since(began))
		}
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				if _, err := keys.Public(t.Context()); problem.KindOf(err) != problem.Unavailable {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if _, _, err := keys.Signer(t.Context()); problem.KindOf(err) != problem.Unavailable {
			t.Error(err)
		}
		if took := time.Since(began); took > 6*time.Second || tries != 1 {
			t.Errorf("all were answered after %s and %d tries, want one try for all", took, tries)
		}
		time.Sleep(2 * time.Second)
		if _, err := keys.Public(t.Context()); err == nil || tries != 2 {
			t.Errorf("%v after %d tries, want another once the failed one is old", err, tries)
		}
	})
}
