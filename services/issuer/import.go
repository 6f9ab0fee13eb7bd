package issuer

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/quash-project/quash/shared/apikey"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/problem"
)

// MaxImport is how many keys one request can import.
const MaxImport = 200

// ImportedKey asks for an API key of which another system has given the secret out.
type ImportedKey struct {
	NewKey // without Client, Life and Reason
	SHA256 string
	// Expires is when it ends; zero: after the life of the policy.
	Expires time.Time
}

// Outcome says what became of one key of an import.
type Outcome string

// The outcomes.
const (
	Imported Outcome = "imported"
	Exists   Outcome = "exists"  // from an earlier import, and is as it was asked for now
	Refused  Outcome = "refused" // Err says why; nothing was done
)

// Import is the answer for one key.
type Import struct {
	Outcome Outcome
	ID      string // empty: the hash could not be read
	Err     error
}

// ImportKeys makes API keys of which only the hash is known. The same hash is the same
// key, so that an import can be repeated as a whole when its outcome is unknown. What is
// wrong with one key stands in its answer, and stops no other; an error is about all of
// them.
func (s *Service) ImportKeys(ctx context.Context, c Caller, keys []ImportedKey, reason string) ([]Import, error) {
	if err := s.checkTenant(c); err != nil {
		return nil, err
	}
	if len(keys) == 0 || len(keys) > MaxImport {
		return nil, problem.FieldError("keys", "%d keys: want 1 to %d in one request", len(keys), MaxImport)
	}
	out := make([]Import, len(keys))
	return stampFirst(ctx, s, true, func(m *making) ([]Import, error) {
		for i := range keys {
			if out[i].Outcome != "" {
				continue // done before the view was found to be behind
			}
			keys[i].Reason = reason
			id, outcome, err := s.importKey(ctx, m, c, &keys[i])
			if err != nil {
				switch problem.KindOf(err) {
				case problem.Invalid, problem.Forbidden, problem.Conflict, problem.RateLimited:
					outcome = Refused
				default: // it would be the same for those that follow
					return nil, err
				}
			}
			out[i] = Import{Outcome: outcome, ID: id, Err: err}
		}
		return out, nil
	})
}

func (s *Service) importKey(ctx context.Context, m *making, c Caller, n *ImportedKey) (string, Outcome, error) {
	hash, err := importedHash(n.SHA256)
	if err != nil {
		return "", "", err
	}
	id := apikey.ImportedID(hash)
	if err := s.checkNewKey(c, &n.NewKey); err != nil {
		return id, "", err
	}
	k := s.newKey(m, c, &n.NewKey, APIKey)
	k.ID, k.Hash, k.Imported = id, hash, true
	if k.Expires, err = s.importedEnd(n.Expires, k.Created); err != nil {
		return id, "", err
	}
	if err := s.furnishKey(ctx, m, c, &n.NewKey, &k); err != nil {
		return id, "", err
	}
	// The log remembers an end for longer than the record does.
	if hit, err := m.hit(k.Stamp, target(k.Tenant, revoke.KindKey, k.ID)); err != nil {
		return id, "", err
	} else if hit {
		return id, "", problem.New(problem.Conflict, "this key was revoked, deleted or held here: an import does not bring it back; give its owner another one")
	}
	if _, there := s.d.Store.Keys.Peek(RecordKey(k.Tenant, k.ID)); !there {
		if err := s.roomForKey(ctx); err != nil {
			return id, "", err
		}
	}
	err = s.d.Store.Keys.Create(ctx, RecordKey(k.Tenant, k.ID), k)
	if err == nil {
		return id, Imported, nil
	}
	if problem.KindOf(err) != problem.Conflict {
		return id, "", err
	}
	have, err := s.d.Store.Keys.Load(ctx, RecordKey(k.Tenant, k.ID))
	if err != nil {
		return id, "", err
	}
	if !have.sameAs(&k) || !n.Expires.IsZero() && !have.Expires.Equal(k.Expires) {
		return id, "", problem.New(problem.Conflict, "a key with this hash was imported before, and is another now than it was then: it stays as it is; delete key %s if that is wrong", id)
	}
	return id, Exists, nil
}

// importedEnd is when an imported key ends: what another system has given out for ever
// needs an end here.
func (s *Service) importedEnd(asked, now time.Time) (time.Time, error) {
	if asked.IsZero() {
		return now.Add(s.cfg.Keys.Life), nil
	}
	end := asked.UTC().Truncate(time.Millisecond)
	if life := end.Sub(now); life < time.Minute || life > s.cfg.Keys.MaxLife {
		return time.Time{}, problem.FieldError("expires", "%s: want a time that is 1m to %d days away", end.Format(time.RFC3339), int(s.cfg.Keys.MaxLife/(24*time.Hour)))
	}
	return end, nil
}

// sameAs reports whether two keys give the same to the same.
func (k *Key) sameAs(o *Key) bool {
	return k.Hash.Equal(o.Hash) && k.Owner == o.Owner && k.Name == o.Name && k.OwnerRoles == o.OwnerRoles && k.RateLimit == o.RateLimit &&
		slices.Equal(k.Scopes, o.Scopes) && slices.Equal(k.Roles, o.Roles) && slices.Equal(k.Audiences, o.Audiences) &&
		slices.Equal(k.Networks, o.Networks) && maps.Equal(k.Labels, o.Labels)
}

// importedHash reads a hash and refuses those of texts that are no secrets. It can't
// tell how hard to guess any other is: that is upon whoever made it.
func importedHash(text string) (apikey.Hash, error) {
	var h apikey.Hash
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != len(h) {
		return h, problem.FieldError("sha256", "want the SHA-256 hash of the whole secret, in 64 hexadecimal digits")
	}
	copy(h[:], raw)
	if known[h] {
		return h, problem.FieldError("sha256", "this is the hash of an empty text or of a well-known one, and no secret")
	}
	return h, nil
}

// known are hashes of what stands in a column by mistake: nothing at all, also with the
// end of its line, examples of standards and manuals, and what people try things with.
var known = func() map[apikey.Hash]bool {
	m := map[apikey.Hash]bool{{}: true, apikey.Hash(slices.Repeat([]byte{0xff}, sha256.Size)): true}
	for _, text := range []string{
		"", " ", "abc", "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", // FIPS 180-4's examples
		"The quick brown fox jumps over the lazy dog", "The quick brown fox jumps over the lazy dog.",
		"hello", "hello world", "Hello World", "Hello, World!", "test", "secret", "password", "Password1", "changeme", "admin", "root", "123456", "12345678",
		"123456789", "1234567890", "qwerty", "foo", "bar", "foobar", "null", "NULL", "nil", "None", "undefined", "key", "apikey", "api_key", "api-key", "token",
		"0", "1", strings.Repeat("a", 1_000_000),
	} {
		for _, end := range []string{"", "\n", "\r\n"} {
			m[apikey.HashOf(text+end)] = true
		}
	}
	return m
}()
