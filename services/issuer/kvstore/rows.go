package kvstore

import (
	"time"

	"github.com/quash-project/quash/services/issuer"
	"github.com/quash-project/quash/shared/apikey"
	"github.com/quash-project/quash/shared/endings"
	"github.com/quash-project/quash/shared/guard/revoke"
)

// Rows are the records as they are stored. They are types of their own, so that
// a renamed field of the domain or of the API moves no stored one. Their members
// are only ever added to; readers ignore what they don't know.

type roleRef struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

type keyRow struct {
	ID         string        `json:"id"`
	Kind       string        `json:"kind"`
	Tenant     string        `json:"tenant"`
	Hash       apikey.Hash   `json:"sha256"`
	Name       string        `json:"name,omitempty"`
	Owner      string        `json:"owner"`
	Client     string        `json:"client_id,omitempty"`
	Scopes     []string      `json:"scopes,omitempty"`
	Roles      []roleRef     `json:"roles,omitempty"`
	OwnerRoles bool          `json:"owner_roles,omitempty"`
	Audiences  []string      `json:"audiences,omitempty"`
	Stamp      revoke.Stamp  `json:"stamp"`
	Created    time.Time     `json:"created_at"`
	Expires    time.Time     `json:"expires_at"`
	Meta       endings.Meta  `json:"meta"`
	Mark       *endings.Mark `json:"mark,omitempty"`
}

func keyToRow(k issuer.Key) keyRow {
	return keyRow{
		ID: k.ID, Kind: string(k.Kind), Tenant: k.Tenant, Hash: k.Hash, Name: k.Name, Owner: k.Owner, Client: k.Client,
		Scopes: k.Scopes, Roles: refsToRow(k.Roles), OwnerRoles: k.OwnerRoles, Audiences: k.Audiences,
		Stamp: k.Stamp, Created: k.Created, Expires: k.Expires, Meta: k.Meta, Mark: k.Mark,
	}
}

func keyFromRow(r keyRow) issuer.Key {
	return issuer.Key{
		ID: r.ID, Kind: issuer.KeyKind(r.Kind), Tenant: r.Tenant, Hash: r.Hash, Name: r.Name, Owner: r.Owner, Client: r.Client,
		Scopes: r.Scopes, Roles: refsFromRow(r.Roles), OwnerRoles: r.OwnerRoles, Audiences: r.Audiences,
		Stamp: r.Stamp, Created: r.Created, Expires: r.Expires, Meta: r.Meta, Mark: r.Mark,
	}
}

func refsToRow(refs []issuer.RoleRef) []roleRef {
	var out []roleRef
	for _, r := range refs {
		out = append(out, roleRef(r))
	}
	return out
}

func refsFromRow(refs []roleRef) []issuer.RoleRef {
	var out []issuer.RoleRef
	for _, r := range refs {
		out = append(out, issuer.RoleRef(r))
	}
	return out
}

type clientRow struct {
	ID        string        `json:"id"`
	Tenant    string        `json:"tenant"`
	Name      string        `json:"name"`
	Grants    []string      `json:"grants,omitempty"`
	Scopes    []string      `json:"scopes,omitempty"`
	Audiences []string      `json:"audiences,omitempty"`
	Serves    []string      `json:"serves,omitempty"`
	Created   time.Time     `json:"created_at"`
	Meta      endings.Meta  `json:"meta"`
	Mark      *endings.Mark `json:"mark,omitempty"`
}

type roleRow struct {
	ID      string        `json:"id"`
	Tenant  string        `json:"tenant"`
	Name    string        `json:"name"`
	Scopes  []string      `json:"scopes,omitempty"`
	Fixed   bool          `json:"fixed,omitempty"`
	Stamp   revoke.Stamp  `json:"stamp"`
	Created time.Time     `json:"created_at"`
	Meta    endings.Meta  `json:"meta"`
	Mark    *endings.Mark `json:"mark,omitempty"`
}

type bindingRow struct {
	Tenant  string        `json:"tenant"`
	Subject string        `json:"subject"`
	Role    roleRef       `json:"role"`
	Stamp   revoke.Stamp  `json:"stamp"`
	Created time.Time     `json:"created_at"`
	Meta    endings.Meta  `json:"meta"`
	Mark    *endings.Mark `json:"mark,omitempty"`
}

func bindingToRow(b issuer.Binding) bindingRow {
	return bindingRow{
		Tenant: b.Tenant, Subject: b.Subject, Role: roleRef(b.Role), Stamp: b.Stamp,
		Created: b.Created, Meta: b.Meta, Mark: b.Mark,
	}
}

func bindingFromRow(r bindingRow) issuer.Binding {
	return issuer.Binding{
		Tenant: r.Tenant, Subject: r.Subject, Role: issuer.RoleRef(r.Role), Stamp: r.Stamp,
		Created: r.Created, Meta: r.Meta, Mark: r.Mark,
	}
}

type tenantRow struct {
	Name     string       `json:"name"`
	Operator string       `json:"operator,omitempty"`
	Created  time.Time    `json:"created_at"`
	Meta     endings.Meta `json:"meta"`
}
