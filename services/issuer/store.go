package issuer

import (
	"context"
	"iter"

	"github.com/quash-project/quash/shared/endings"
)

// Table keeps the records of one kind, and a copy of them all that is at most
// as old as Ready allows. Errors are problem.Errors: NotFound, Conflict,
// Unavailable. All methods are safe for concurrent use; records that are
// returned are shared and must not be changed.
type Table[T any] interface {
	// Get reads from the copy, and on a miss from the store.
	Get(ctx context.Context, key string) (T, error)
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
	// of a group that the store indexes (see the Group functions).
	All() iter.Seq2[string, T]
	Group(name string) []T
	// Ready tells whether the copy may be used: nil if a write of this replica's
	// own, made a short while ago, has come back in it.
	Ready() error
}

// Store is where the issuer keeps its records.
type Store struct {
	Tenants  Table[Tenant]
	Keys     Table[Key]
	Clients  Table[Client]
	Roles    Table[Role]
	Bindings Table[Binding]
}

// Ready tells whether all copies may be used.
func (s *Store) Ready() error {
	for _, t := range []interface{ Ready() error }{s.Keys, s.Clients, s.Roles, s.Bindings} {
		if err := t.Ready(); err != nil {
			return err
		}
	}
	return nil
}

// The groups by which the store indexes the copies. A key is in the group of
// its owner and of its client, a binding in that of its subject and of its role.

// OwnerGroup holds the keys of a principal.
func OwnerGroup(tenant, owner string) string { return "o\x00" + tenant + "\x00" + owner }

// ClientGroup holds the keys and secrets of a client.
func ClientGroup(tenant, client string) string { return "c\x00" + tenant + "\x00" + client }

// SubjectGroup holds the bindings of a subject.
func SubjectGroup(tenant, subject string) string { return "s\x00" + tenant + "\x00" + subject }

// RoleGroup holds the bindings of a role.
func RoleGroup(tenant, roleID string) string { return "r\x00" + tenant + "\x00" + roleID }

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
	g := []string{OwnerGroup(k.Tenant, k.Owner)}
	if k.Client != "" {
		g = append(g, ClientGroup(k.Tenant, k.Client))
	}
	return marked(k.Mark, g...)
}

// ClientGroups returns the groups of a client.
func ClientGroups(c Client) []string { return marked(c.Mark) }

// RoleGroups returns the groups of a role.
func RoleGroups(r Role) []string { return marked(r.Mark) }

// BindingGroups returns the groups of a binding.
func BindingGroups(b Binding) []string {
	return marked(b.Mark, SubjectGroup(b.Tenant, b.Subject), RoleGroup(b.Tenant, b.Role.ID))
}
