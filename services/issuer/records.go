package issuer

import (
	"net/netip"
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

// Key is an API key or a client secret. Nothing of it changes but its mark, its rotation,
// what is noted of it (Warned, Leak) and, by an operator's renewal, its stamp: for other
// rights make another key.
type Key struct {
	ID         string // apikey.ID of the secret
	Kind       KeyKind
	Tenant     string
	Hash       apikey.Hash // of the secret
	Name       string      // for people
	Labels     map[string]string
	Creator    string // who made it, for people; empty: not known
	Owner      string // the principal, sub of its tokens; of a client secret the client's id
	Client     string // client_id; empty: it is a client of its own
	Scopes     []string
	Roles      []RoleRef // given with the key: see heldRoles
	OwnerRoles bool      // the roles bound to its owner count too
	// OwnerMost are those of Quash's own scopes that its owner's roles give it at most: what
	// its creator could give. Whoever makes a key for somebody gets no more by it when that
	// one is given more. nil: there is no such bound.
	OwnerMost []string
	// RightsUntil is until when its maker held Quash's own scopes that it gives: it may give
	// them on, to a successor or another key, no longer. Zero: there is no such bound.
	RightsUntil time.Time
	Audiences   []string       // allowed resources; empty: the tenant's default only
	Networks    []netip.Prefix // from which it may be used; empty: from everywhere
	RateLimit   int            // exchanges a minute, of each replica; 0: no limit
	Imported    bool           // of another system: its id is made from its hash
	Stamp       revoke.Stamp
	Created     time.Time
	Expires     time.Time
	Warned      time.Time // when it was told last that the end is near; zero: not yet
	Leak        *Leak     // nil: nothing is known of one
	Before      []string  // ids of the keys whose place it takes, the newest last: MaxBefore at most
	Rotation    *Rotation // nil: no key takes its place
	// Recipient is to whom the secret of its successor is sealed when nobody is there to be
	// shown it; nil: nobody, and it is rotated by hand alone.
	Recipient *Recipient
	Firing    string     // the unattended rotation that has made it; empty: somebody was there
	TakenBack *TakenBack // nil: no unattended rotation of it was
	Meta      endings.Meta
	Mark      *endings.Mark
}

// MaxBefore is of how many keys before it a key knows: of the first, and of the newest.
const MaxBefore = 20

// Previous returns the id of the key whose place this one has taken; empty: of none.
func (k *Key) Previous() string {
	if len(k.Before) == 0 {
		return ""
	}
	return k.Before[len(k.Before)-1]
}

// Rotation says that another key takes the place of one.
type Rotation struct {
	Next      string // id of the successor
	Begun     time.Time
	Until     time.Time // from then on the old key gives nothing
	By        string
	Emergency bool // there is no overlap
	Made      bool // the successor is there, and its secret was handed over
	// Back ends the successor, after which the key is as before. Since it stands there the
	// key no longer ends at Until.
	Back *endings.Mark
	// Firing names the unattended rotation that it is; empty: it is by hand.
	Firing string
	// Sealed says that the successor's secret waits for its owner; CollectedAt, By and In when
	// and by whom it was collected, and by which request, if that could be repeated.
	Sealed      bool
	CollectedAt time.Time
	CollectedBy string
	CollectedIn string
}

// Recipient is who can open what is sealed to them.
type Recipient struct {
	Age string // an age X25519 recipient
	By  string // who has registered it
	At  time.Time
	// Until is until when they held what the key gives, of Quash's own scopes: so long a
	// successor may give it. Zero: there is no such bound.
	Until time.Time
}

// TakenBack tells of unattended rotations of a key that were taken back, or rolled back.
type TakenBack struct {
	Firing      string // the last one that had a successor: it is not done again
	Uncollected int    // how many were, since nobody had collected the secret in time
}

// Delivery is the secret of a key, sealed to whoever owns it.
type Delivery struct {
	Tenant    string
	ID        string // of the key whose secret it is
	Previous  string // the key whose place it takes
	Recipient string
	Sealed    string // age, armored
	Created   time.Time
	Until     time.Time // it is gone by then at the latest
	Meta      endings.Meta
}

// Leak says when and where a key was first seen that should not have been there.
type Leak struct {
	At    time.Time
	Where string
	From  netip.Addr // of who said so; zero: not known
}

// Use says when, from where and by what a key was used last, of what this replica or
// another has written: for people, and it decides nothing.
type Use struct {
	Tenant string
	ID     string     // of the key
	At     time.Time  // to the minute
	From   netip.Addr // zero: not known
	Agent  string     // what the caller's program calls itself; empty: not said
	Until  time.Time  // the end of the key
	// Next is the successor of the key, if it had one then; and Times is how often it was
	// used since.
	Next  string
	Times uint64
}

// ClientID returns the client_id of the key's tokens.
func (k *Key) ClientID() string {
	if k.Client != "" {
		return k.Client
	}
	return KeyClientPrefix + k.ID
}

// PrincipalKind is what a principal is.
type PrincipalKind string

// The kinds of principals.
const (
	Person   PrincipalKind = "person"
	Workload PrincipalKind = "workload"
)

// Principal is what is known of a user or a machine. Keys and roles go by its name alone,
// and need no record.
type Principal struct {
	ID      string // the sub of its tokens, and the owner of its keys
	Tenant  string
	Birth   string // random: a later record of the name has another
	Kind    PrincipalKind
	Name    string // for people
	Labels  map[string]string
	Created time.Time
	Meta    endings.Meta
	Mark    *endings.Mark
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
	Expires time.Time // zero: never
	Meta    endings.Meta
	Mark    *endings.Mark
}

// Ended reports whether the binding has come to its end by itself.
func (b *Binding) Ended(now time.Time) bool { return !b.Expires.IsZero() && !now.Before(b.Expires) }

// Tenant is what is known of a tenant.
type Tenant struct {
	Name     string
	Operator string // id of the first operator's key, once that was handed over
	Started  bool   // it has been given the roles that it begins with
	Limits   Limits
	// Stamp is where the log was when it was made: what is before is of an earlier one of
	// its name. Zero: nobody had it before.
	Stamp   revoke.Stamp
	Created time.Time
	Meta    endings.Meta
	Mark    *endings.Mark
}

// Limits are how much a tenant may have and use. Zero: no limit.
type Limits struct {
	Keys            int     // API keys and client secrets
	Clients         int     //
	TokensPerSecond float64 // that one replica gives
}

// BindingID returns the id of the binding as a target.
func (b *Binding) BindingID() string { return revoke.PairID(b.Subject, b.Role.ID) }

// The keys of records. Tenants are [a-z0-9-], ids of keys and clients letters
// and digits (and '_'), and everything else is hashed: no foreign text gets
// into a key of the store.

// RecordKey returns the key of a record with an id of ours.
func RecordKey(tenant, id string) string { return tenant + "." + id }

// PrincipalKey returns the key of a principal's record.
func PrincipalKey(tenant, id string) string {
	return RecordKey(tenant, target(tenant, revoke.KindPrincipal, id).String())
}

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
