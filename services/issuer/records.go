package issuer

import (
	"strings"
	"time"

	"github.com/quash-project/quash/shared/apikey"
	"github.com/quash-project/quash/shared/endings"
	"github.com/quash-project/quash/shared/guard/revoke"
)

// Records are never changed in place: whoever reads one may share its slices,
// and nobody writes to them.

// Reserved prefixes of client ids: no principal may begin with them, since both
// stand in the claim sub.
const (
	KeyClientPrefix = "key_"    // the client_id of an API key without a client
	ClientPrefix    = "client_" // the client_id of a registered client
)

// KeyKind is what a record in the table of keys is.
type KeyKind string

// The kinds of keys: both are secrets that stand for something else, and both
// are targets of the kind "key".
const (
	APIKey       KeyKind = "key"
	ClientSecret KeyKind = "secret"
)

// Key is an API key or a client secret. Nothing of it changes but its mark and,
// by an operator's renewal, its stamp: for other rights make another key.
type Key struct {
	ID         string // apikey.ID of the secret
	Kind       KeyKind
	Tenant     string
	Hash       apikey.Hash // of the secret
	Name       string      // for people
	Owner      string      // the principal, sub of its tokens; of a client secret the client's id
	Client     string      // client_id; empty: it is a client of its own
	Scopes     []string
	Roles      []RoleRef // given with the key: see heldRoles
	OwnerRoles bool      // the roles bound to its owner count too
	Audiences  []string  // allowed resources; empty: the tenant's default only
	Stamp      revoke.Stamp
	Created    time.Time
	Expires    time.Time
	Meta       endings.Meta
	Mark       *endings.Mark
}

// ClientID returns the client_id of the key's tokens.
func (k *Key) ClientID() string {
	if k.Client != "" {
		return k.Client
	}
	return KeyClientPrefix + k.ID
}

// Client is an OAuth client. Its secrets are Keys, its roles are bindings.
type Client struct {
	ID        string
	Tenant    string
	Name      string
	Grants    []string // grant types that it may use
	Scopes    []string
	Audiences []string // resources that it may ask tokens for; empty: the tenant's default only
	Serves    []string // audiences that it is: it may introspect tokens for them
	Created   time.Time
	Meta      endings.Meta
	Mark      *endings.Mark
}

// RoleRef names a role in another record. The id decides: a new role of an old
// name is another role.
type RoleRef struct {
	ID   string
	Name string
}

// Role is a named set of scopes.
type Role struct {
	ID      string // random, never given out again
	Tenant  string
	Name    string // unique within the tenant
	Scopes  []string
	Fixed   bool // one of Quash's own
	Stamp   revoke.Stamp
	Created time.Time
	Meta    endings.Meta
	Mark    *endings.Mark
}

// Ref returns how other records name the role.
func (r *Role) Ref() RoleRef { return RoleRef{ID: r.ID, Name: r.Name} }

// Binding gives a role to a principal, a client (client_...) or an API key (key_...).
type Binding struct {
	Tenant  string
	Subject string
	Role    RoleRef
	Stamp   revoke.Stamp
	Created time.Time
	Meta    endings.Meta
	Mark    *endings.Mark
}

// Tenant is what is known of a tenant.
type Tenant struct {
	Name     string
	Operator string // id of the first operator's key, once that was handed over
	Created  time.Time
	Meta     endings.Meta
}

// BindingID returns the id of the binding as a target.
func (b *Binding) BindingID() string { return revoke.PairID(b.Subject, b.Role.ID) }

// The keys of records. Tenants are [a-z0-9-], ids of keys and clients letters
// and digits (and '_'), and everything else is hashed: no foreign text gets
// into a key of the store.

// RecordKey returns the key of a record with an id of ours.
func RecordKey(tenant, id string) string { return tenant + "." + id }

// RoleKey returns the key of a role's record.
func RoleKey(tenant, name string) string {
	return RecordKey(tenant, target(tenant, revoke.KindRole, "name\x00"+name).String())
}

// BindingKey returns the key of a binding's record.
func BindingKey(tenant, subject, roleID string) string {
	return RecordKey(tenant, target(tenant, revoke.KindBinding, revoke.PairID(subject, roleID)).String())
}

// target returns the key of a target whose parts are known to be valid, or are
// hashed only.
func target(tenant string, kind revoke.Kind, id string) revoke.Key {
	return revoke.Target{Tenant: tenant, Issuer: revoke.Own, Kind: kind, ID: id}.Key()
}

// reserved reports whether a principal may not be called this.
func reserved(subject string) bool {
	return strings.HasPrefix(subject, KeyClientPrefix) || strings.HasPrefix(subject, ClientPrefix)
}
