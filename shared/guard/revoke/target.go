package revoke

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxID is the longest id of a target, in bytes.
const MaxID = 512

// Own is the short name of a tenant's own issuer in a Target. No foreign issuer
// can be registered under it.
const Own = "own"

// Kind is what sort of thing a target is. The zero Kind is invalid.
type Kind uint8

// The kinds of targets. The numbers never cross a wire; the names do.
const (
	KindInvalid    Kind = iota
	KindToken           // an access token, by its jti
	KindSession         // one sign-in with its refresh tokens, by its sid
	KindKey             // an API key or a client secret, by its id
	KindSigningKey      // a key that signs tokens, by its kid
	KindPrincipal       // a user or a machine: the sub of a token
	KindSignIns         // all sessions of a principal and what came from them
	KindClient          // an OAuth client, by its client_id
	KindGrant           // what a principal allowed a client: GrantID
	KindRole            // a role, by its random id
	KindBinding         // a role given to a subject: BindingID
	KindIssuer          // an issuer, by its short name
	KindTenant          // a tenant, by its name
	kindEnd
)

var kindNames = [kindEnd]string{
	KindToken: "token", KindSession: "session", KindKey: "key", KindSigningKey: "signing-key",
	KindPrincipal: "principal", KindSignIns: "sign-ins", KindClient: "client", KindGrant: "grant",
	KindRole: "role", KindBinding: "binding", KindIssuer: "issuer", KindTenant: "tenant",
}

// Kinds returns every valid kind, in a fixed order.
func Kinds() []Kind {
	ks := make([]Kind, 0, kindEnd-1)
	for k := KindToken; k < kindEnd; k++ {
		ks = append(ks, k)
	}
	return ks
}

// String returns the kind's name on the wire, "invalid" for none.
func (k Kind) String() string {
	if k == KindInvalid || k >= kindEnd {
		return "invalid"
	}
	return kindNames[k]
}

// Final reports whether revoking ends the target for good (its id is random
// and never given out again), instead of cutting what was made before.
func (k Kind) Final() bool {
	return k == KindToken || k == KindSession || k == KindKey || k == KindSigningKey
}

// ParseKind is the inverse of String.
func ParseKind(name string) (Kind, error) {
	for k := KindToken; k < kindEnd; k++ {
		if kindNames[k] == name {
			return k, nil
		}
	}
	return KindInvalid, fmt.Errorf("kind %.40q: want one of %s", name, strings.Join(kindNames[1:], ", "))
}

// MarshalText implements encoding.TextMarshaler.
func (k Kind) MarshalText() ([]byte, error) {
	if k == KindInvalid || k >= kindEnd {
		return nil, errors.New("revoke: no such kind of target")
	}
	return []byte(kindNames[k]), nil
}

// UnmarshalText implements encoding.TextUnmarshaler by ParseKind.
func (k *Kind) UnmarshalText(b []byte) error {
	p, err := ParseKind(string(b))
	if err == nil {
		*k = p
	}
	return err
}

// Key is the hash under which a target is known on the wire, in Redis and in
// the View: of fixed size, and safe anywhere, whatever the id is.
type Key [16]byte

// String returns 22 characters of unpadded base64url.
func (k Key) String() string { return base64.RawURLEncoding.EncodeToString(k[:]) }

// MarshalText implements encoding.TextMarshaler.
func (k Key) MarshalText() ([]byte, error) {
	return base64.RawURLEncoding.AppendEncode(nil, k[:]), nil
}

// UnmarshalText implements encoding.TextUnmarshaler; it takes what ParseKey
// takes, and allocates nothing.
func (k *Key) UnmarshalText(b []byte) error {
	var p [18]byte // Decode writes in threes
	// The decoder would skip line ends.
	if len(b) == 22 && bytes.IndexByte(b, '\n') < 0 && bytes.IndexByte(b, '\r') < 0 {
		if n, err := strictB64.Decode(p[:], b); err == nil && n == len(k) {
			*k = Key(p[:16])
			return nil
		}
	}
	return fmt.Errorf("target key %.40q: want 22 characters of base64url", b)
}

var strictB64 = base64.RawURLEncoding.Strict()

// ParseKey is the inverse of Key.String and takes no other spelling.
func ParseKey(text string) (Key, error) {
	var k Key
	var b [23]byte // one more, so that a longer text is seen as such
	err := k.UnmarshalText(b[:copy(b[:], text)])
	if err != nil {
		return Key{}, fmt.Errorf("target key %.40q: want 22 characters of base64url", text)
	}
	return k, nil
}

// Target is one thing that can be revoked. Build it with NewTarget or
// ParseTarget: those are the only places that check it.
type Target struct {
	Tenant string
	Issuer string // Own, or the short name of a registered foreign issuer
	Kind   Kind
	ID     string
}

// NewTarget checks its parts. An empty issuer is Own. Targets of kind issuer
// and tenant are about themselves: their id must be the issuer or the tenant.
func NewTarget(tenant, issuer string, kind Kind, id string) (Target, error) {
	if issuer == "" {
		issuer = Own
	}
	t := Target{Tenant: tenant, Issuer: issuer, Kind: kind, ID: id}
	return t, t.validate()
}

func (t Target) validate() error {
	if err := CheckName("tenant", t.Tenant); err != nil {
		return err
	}
	if err := CheckName("issuer", t.Issuer); err != nil {
		return err
	}
	if t.Kind == KindInvalid || t.Kind >= kindEnd {
		return fmt.Errorf("target kind %d: no such kind", t.Kind)
	}
	if err := CheckID(t.Kind.String()+" id", t.ID); err != nil {
		return err
	}
	switch t.Kind {
	case KindIssuer:
		if t.ID != t.Issuer {
			return fmt.Errorf("issuer target %.60q: the id must be the issuer itself, %q", t.ID, t.Issuer)
		}
	case KindTenant:
		if t.ID != t.Tenant {
			return fmt.Errorf("tenant target %.60q: the id must be the tenant itself, %q", t.ID, t.Tenant)
		}
	case KindGrant, KindBinding:
		if _, _, err := SplitPair(t.ID); err != nil {
			return fmt.Errorf("%s id: %w", t.Kind, err)
		}
	}
	return nil
}

// CheckID tells whether id can name something: 1 to MaxID bytes of UTF-8
// without control characters.
func CheckID(what, id string) error {
	switch {
	case id == "":
		return fmt.Errorf("%s is empty", what)
	case len(id) > MaxID:
		return fmt.Errorf("%s has %d bytes: %d at most", what, len(id), MaxID)
	case !utf8.ValidString(id):
		return fmt.Errorf("%s is not valid UTF-8", what)
	}
	for _, r := range id {
		if unicode.IsControl(r) {
			return fmt.Errorf("%s has the control character %U", what, r)
		}
	}
	return nil
}

// CheckName tells whether name can be the short name of a tenant or issuer:
// 1 to 63 of a-z, 0-9 and '-', beginning with a letter or digit.
func CheckName(what, name string) error {
	ok := name != "" && len(name) <= 63 && name[0] != '-'
	for i := 0; ok && i < len(name); i++ {
		c := name[i]
		ok = c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-'
	}
	if !ok {
		return fmt.Errorf("%s %.70q: want 1 to 63 of a-z, 0-9 and -, not beginning with -", what, name)
	}
	return nil
}

// Key returns the first 16 bytes of SHA-256 over tenant, issuer, kind name and
// id, each with its length before it as four bytes, big-endian. Vectors are in
// schemas/target-keys.json.
func (t Target) Key() Key {
	var a [4*4 + 63 + 63 + 16 + MaxID]byte // on the stack for every valid target
	b := a[:0]
	for _, part := range [...]string{t.Tenant, t.Issuer, t.Kind.String(), t.ID} {
		b = binary.BigEndian.AppendUint32(b, uint32(len(part)))
		b = append(b, part...)
	}
	sum := sha256.Sum256(b)
	return Key(sum[:16])
}

// String returns "kind:id", the form that ParseTarget reads: '%' and '/' of an
// id are percent-encoded, so that the only bare '/' is that between the halves
// of a pair.
func (t Target) String() string {
	if t.Kind == KindGrant || t.Kind == KindBinding {
		return t.Kind.String() + ":" + t.ID
	}
	return t.Kind.String() + ":" + escapeHalf(t.ID)
}

// ParseTarget reads "kind:id", as a person writes it: the id percent-encoded
// where it has a '/' or '%', that of a pair (grant, binding) as two such halves
// with a '/' between.
func ParseTarget(tenant, issuer, text string) (Target, error) {
	name, id, ok := strings.Cut(text, ":")
	if !ok {
		return Target{}, fmt.Errorf("target %.60q: want kind:id, as in principal:alice", text)
	}
	kind, err := ParseKind(name)
	if err != nil {
		return Target{}, fmt.Errorf("target %w", err)
	}
	pair := kind == KindGrant || kind == KindBinding
	halves := strings.Split(id, "/")
	switch {
	case pair && len(halves) != 2:
		return Target{}, fmt.Errorf("target %.60q: the id of a %s is two ids with a '/' between; write %%2F for a '/' within one", text, kind)
	case !pair && len(halves) != 1:
		return Target{}, fmt.Errorf("target %.60q: the id of a %s has no '/'; write %%2F for one that belongs to the id", text, kind)
	}
	for i, h := range halves {
		if halves[i], err = url.PathUnescape(h); err != nil {
			return Target{}, fmt.Errorf("target %.60q: %w; write %%25 for a '%%' that belongs to the id", text, err)
		}
	}
	if pair {
		return NewTarget(tenant, issuer, kind, PairID(halves[0], halves[1]))
	}
	return NewTarget(tenant, issuer, kind, halves[0])
}

// PairID joins two ids to the id of a grant (sub, client_id) or of a binding
// (subject, role id). '%' and '/' within a half are percent-encoded, so that no
// two pairs have one spelling.
func PairID(a, b string) string { return escapeHalf(a) + "/" + escapeHalf(b) }

// SplitPair is the inverse of PairID, and takes its spelling only.
func SplitPair(id string) (a, b string, err error) {
	a, b, ok := strings.Cut(id, "/")
	if ok && a != "" && b != "" && !strings.Contains(b, "/") {
		ua, ub := unescapeHalf(a), unescapeHalf(b)
		if escapeHalf(ua) == a && escapeHalf(ub) == b {
			return ua, ub, nil
		}
	}
	return "", "", fmt.Errorf("%.60q: want A/B, with %%2F for a '/' and %%25 for a '%%' within a half", id)
}

var (
	halfEscaper   = strings.NewReplacer("%", "%25", "/", "%2F")
	halfUnescaper = strings.NewReplacer("%25", "%", "%2F", "/")
)

func escapeHalf(s string) string   { return halfEscaper.Replace(s) }
func unescapeHalf(s string) string { return halfUnescaper.Replace(s) }
