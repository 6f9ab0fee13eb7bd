package issuer

import (
	"context"
	"iter"
	"time"

	"github.com/quash-project/quash/shared/endings"
)

// Table keeps the records of one kind, and a copy of them all that is at most
// as old as Ready allows. Errors are problem.Errors: NotFound, Conflict,
// Unavailable. All methods are safe for concurrent use; records that are
// returned are shared and must not be changed.
type Table[T any] interface {
	// Get reads from the copy, and on a miss from the store.
	Get(ctx context.Context, key string) (T, error)
	// Peek reads from the copy alone.
	Peek(key string) (T, bool)
	// Load reads from the store.
	Load(ctx context.Context, key string) (T, error)
	// Create writes a record that must not exist; Conflict if it does. The same
	// record written twice (a lost answer) is one success. When it returns, the
	// copy has the record too, if it can be had within a second.
	Create(ctx context.Context, key string, v T) error
	// Change rewrites a record by compare-and-set; fn must be pure, and its error
	// leaves the record as it was. What is returned is what stands there now. A
	// lost answer is read back: fn then sees its own work.
	Change(ctx context.Context, key string, fn func(T) (T, error)) (T, error)
	// Remove removes the record if ok says so of what stands there; a record that
	// is gone already is no error.
	Remove(ctx context.Context, key string, ok func(T) bool) error
	// All and Group give records of the copy, in no order: all of them, or those
	// of a group that the store indexes (see the Group functions), in a slice that is
	// the caller's own.
	All() iter.Seq2[string, T]
	Group(name string) []T
	// Walk gives the records of a group one by one, as they are when each comes up, without
	// a copy of them all.
	Walk(group string) iter.Seq[T]
	// Size is how many records a group has.
	Size(group string) int
	// Stored gives the keys of a tenant's records from the store.
	Stored(ctx context.Context, tenant string) ([]string, error)
	// Fresh returns nil once the copy has all that stood in the store when it was asked.
	Fresh(ctx context.Context) error
	// Ready tells whether the copy may be used: nil if a write of this replica's
	// own, made a short while ago, has come back in it.
	Ready() error
}

// Store is where the issuer keeps its records.
type Store struct {
	Tenants    Table[Tenant]
	Principals Table[Principal]
	Keys       Table[Key]
	Clients    Table[Client]
	Roles      Table[Role]
	Bindings   Table[Binding]
	// Uses may be nil: then what a replica has seen is known to it alone. Nothing is
	// decided by them, so that Ready does not ask for them.
	Uses Table[Use]
	// Deliveries are sealed secrets; nil: then no key is rotated unattended. They are read from the
	// store itself, so that Ready does not ask for them.
	Deliveries Table[Delivery]
	// Turn gives what has a name to one at a time, of all replicas, and waits for it a
	// short while: done gives it back. Who has it uses it for TurnTime at most.
	Turn func(ctx context.Context, name string) (done func(), err error)
}

// TurnTime is how long one may take in its turn.
const TurnTime = 15 * time.Second

// Ready tells whether all copies may be used.
func (s *Store) Ready() error {
	for _, t := range []interface{ Ready() error }{s.Tenants, s.Principals, s.Keys, s.Clients, s.Roles, s.Bindings} {
		if err := t.Ready(); err != nil {
			return err
		}
	}
	return nil
}

// The groups by which the store indexes the copies. Each record is in that of its tenant. A
// key is in the group of its owner, of its client, of the day of its end and of each key
// before it too, a binding in that of its subject and of its role.

// TenantGroup holds the records of a tenant.
func TenantGroup(tenant string) string { return "t\x00" + tenant }

// OwnerGroup holds the keys of a principal.
func OwnerGroup(tenant, owner string) string { return "o\x00" + tenant + "\x00" + owner }

// ClientGroup holds the keys and secrets of a client.
func ClientGroup(tenant, client string) string { return "c\x00" + tenant + "\x00" + client }

// SubjectGroup holds the bindings of a subject.
func SubjectGroup(tenant, subject string) string { return "s\x00" + tenant + "\x00" + subject }

// RoleGroup holds the bindings of a role.
func RoleGroup(tenant, roleID string) string { return "r\x00" + tenant + "\x00" + roleID }

// ExpiryGroup holds the keys of all tenants that come to their end on a day.
func ExpiryGroup(end time.Time) string { return "e\x00" + end.UTC().Format(time.DateOnly) }

// ImportedGroup holds the keys of an id, of all tenants, that another system gave out.
func ImportedGroup(id string) string { return "i\x00" + id }

// RotatingGroup holds the keys of all tenants whose place another one takes.
const RotatingGroup = "rotating"

// AfterGroup holds the keys that have taken the place of one, and those after them.
func AfterGroup(tenant, id string) string { return "p\x00" + tenant + "\x00" + id }

// MarkedGroup holds the records of a table that are ending.
const MarkedGroup = "marked"

func marked(m *endings.Mark, groups ...string) []string {
	if m != nil {
		groups = append(groups, MarkedGroup)
	}
	return groups
}

// KeyGroups returns the groups of a key.
func KeyGroups(k Key) []string {
	g := []string{TenantGroup(k.Tenant), OwnerGroup(k.Tenant, k.Owner), ExpiryGroup(k.Expires)}
	if k.Client != "" {
		g = append(g, ClientGroup(k.Tenant, k.Client))
	}
	if k.Imported {
		g = append(g, ImportedGroup(k.ID))
	}
	for _, id := range k.Before {
		g = append(g, AfterGroup(k.Tenant, id))
	}
	if k.Rotation != nil {
		g = append(g, RotatingGroup)
	}
	return marked(k.Mark, g...)
}

// ClientGroups returns the groups of a client.
func ClientGroups(c Client) []string { return marked(c.Mark, TenantGroup(c.Tenant)) }

// TenantGroups returns the groups of a tenant.
func TenantGroups(t Tenant) []string { return marked(t.Mark) }

// PrincipalGroups returns the groups of a principal.
func PrincipalGroups(p Principal) []string { return marked(p.Mark, TenantGroup(p.Tenant)) }

// RoleGroups returns the groups of a role.
func RoleGroups(r Role) []string { return marked(r.Mark, TenantGroup(r.Tenant)) }

// BindingGroups returns the groups of a binding.
func BindingGroups(b Binding) []string {
	return marked(b.Mark, TenantGroup(b.Tenant), SubjectGroup(b.Tenant, b.Subject), RoleGroup(b.Tenant, b.Role.ID))
}
