// Package rights holds the scopes of Quash's own APIs and the fixed roles made
// of them. Everything that begins with "quash:" is Quash's own; every other
// scope belongs to applications.
package rights

import (
	"fmt"
	"slices"
	"strings"
)

// Prefix begins every scope of Quash's own.
const Prefix = "quash:"

// The scopes of Quash's own APIs.
const (
	Revoke          = "quash:revoke" // revoke, hold, release
	FleetRead       = "quash:fleet:read"
	FleetWrite      = "quash:fleet:write"
	EpochsWrite     = "quash:epochs:write"
	Decide          = "quash:decide" // ask whether a token would be taken, and why
	PrincipalsRead  = "quash:principals:read"
	PrincipalsWrite = "quash:principals:write"
	KeysRead        = "quash:keys:read"
	KeysWrite       = "quash:keys:write"
	ClientsRead     = "quash:clients:read"
	ClientsWrite    = "quash:clients:write"
	RolesRead       = "quash:roles:read" // roles and bindings
	RolesWrite      = "quash:roles:write"
	Rotate          = "quash:rotate"
	RotationsRead   = "quash:rotations:read"
	AuditRead       = "quash:audit:read"
	TenantsRead     = "quash:tenants:read"
	TenantsWrite    = "quash:tenants:write"
)

// All returns every scope of Quash's own, in a fixed order.
func All() []string {
	return []string{
		Revoke, FleetRead, FleetWrite, EpochsWrite, Decide, PrincipalsRead, PrincipalsWrite, KeysRead, KeysWrite,
		ClientsRead, ClientsWrite, RolesRead, RolesWrite, Rotate, RotationsRead, AuditRead, TenantsRead, TenantsWrite,
	}
}

// OfInstallation reports whether a scope is about the whole installation: only the home
// tenant's roles can have it, and only its tokens count for it.
func OfInstallation(scope string) bool {
	return slices.Contains([]string{FleetRead, FleetWrite, EpochsWrite, TenantsRead, TenantsWrite}, scope)
}

// OfTenant returns the scopes of Quash's own that a tenant's admin holds.
func OfTenant() []string { return slices.DeleteFunc(All(), OfInstallation) }

// Own reports whether the scope is of Quash's own APIs.
func Own(scope string) bool { return strings.HasPrefix(scope, Prefix) }

// Known reports whether the scope can be given at all: one of an application,
// or one of Quash's own that exists.
func Known(scope string) bool { return !Own(scope) || slices.Contains(All(), scope) }

// Lacking returns those of wanted that a holder of held may not give: a scope
// of an application may be given by anyone who may give scopes, one of Quash's
// own only by a holder of it.
func Lacking(held, wanted []string) []string {
	var out []string
	for _, s := range wanted {
		if Own(s) && !slices.Contains(held, s) && !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// The fixed roles.
const (
	Operator  = "operator"
	Responder = "responder"
	Scheduler = "scheduler"
	Auditor   = "auditor"
	Admin     = "admin" // of a tenant: all that can be done in it
)

// The roles that a tenant begins with, and may change.
const (
	Editor = "editor"
	Viewer = "viewer"
)

// Role is a fixed role.
type Role struct {
	Name   string
	Scopes []string
}

// Roles returns the fixed roles of a tenant; home: of the one whose operators run the
// installation.
func Roles(home bool) []Role {
	roles := []Role{
		{Admin, OfTenant()},
		{Responder, []string{Revoke, FleetRead, Decide, PrincipalsRead, KeysRead, ClientsRead, RolesRead, AuditRead}},
		{Scheduler, []string{Rotate, RotationsRead}},
		{Auditor, []string{FleetRead, PrincipalsRead, KeysRead, ClientsRead, RolesRead, RotationsRead, AuditRead, TenantsRead}},
	}
	if home {
		return append(roles, Role{Operator, All()})
	}
	for i := range roles {
		roles[i].Scopes = slices.DeleteFunc(roles[i].Scopes, OfInstallation)
	}
	return roles
}

// StartingRoles returns the roles with which a tenant begins beside the fixed ones. They
// have application scopes of the plainest names, for whoever has no better ones yet.
func StartingRoles() []Role {
	return []Role{{Editor, []string{"read", "write"}}, {Viewer, []string{"read"}}}
}

// MaxScope is the longest scope, in bytes.
const MaxScope = 256

// CheckScope tells whether s can be a scope: RFC 6749, 3.3: one or more of
// %x21 / %x23-5B / %x5D-7E.
func CheckScope(s string) error {
	if s == "" {
		return fmt.Errorf("scope is empty")
	}
	if len(s) > MaxScope {
		return fmt.Errorf("scope has %d bytes: %d at most", len(s), MaxScope)
	}
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < 0x21 || c > 0x7e || c == '"' || c == '\\' {
			return fmt.Errorf("scope %.60q: want printable ASCII without space, \" and \\", s)
		}
	}
	return nil
}

// ParseScopes reads a space-delimited list as RFC 6749, 3.3 writes it: single
// spaces, none at the ends; a scope named twice counts once.
func ParseScopes(text string) ([]string, error) {
	parts := strings.Split(text, " ")
	out := make([]string, 0, len(parts))
	for _, s := range parts {
		if err := CheckScope(s); err != nil {
			return nil, err
		}
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out, nil
}
