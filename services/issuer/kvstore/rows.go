package kvstore

import (
	"net/netip"
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
	ID         string            `json:"id"`
	Kind       string            `json:"kind"`
	Tenant     string            `json:"tenant"`
	Hash       apikey.Hash       `json:"sha256"`
	Name       string            `json:"name,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`
	Creator    string            `json:"creator,omitempty"`
	Owner      string            `json:"owner"`
	Client     string            `json:"client_id,omitempty"`
	Scopes     []string          `json:"scopes,omitempty"`
	Roles      []roleRef         `json:"roles,omitempty"`
	OwnerRoles bool              `json:"owner_roles,omitempty"`
	OwnerMost  []string          `json:"owner_most,omitzero"` // [] is a bound, too
	// RightsUntil is until when it may give on what it gives.
	RightsUntil time.Time      `json:"rights_until,omitzero"`
	Audiences   []string       `json:"audiences,omitempty"`
	Networks    []netip.Prefix `json:"networks,omitempty"`
	RateLimit   int            `json:"rate_limit,omitempty"`
	Imported    bool           `json:"imported,omitempty"`
	Stamp       revoke.Stamp   `json:"stamp"`
	Created     time.Time      `json:"created_at"`
	Expires     time.Time      `json:"expires_at"`
	Warned      time.Time      `json:"warned_at,omitzero"`
	Leak        *leakRow       `json:"leak,omitempty"`
	Before      []string       `json:"before,omitempty"`
	Rotation    *rotationRow   `json:"rotation,omitempty"`
	Recipient   *recipientRow  `json:"recipient,omitempty"`
	Firing      string         `json:"firing,omitempty"`
	TakenBack   *takenBackRow  `json:"taken_back,omitempty"`
	Meta        endings.Meta   `json:"meta"`
	Mark        *endings.Mark  `json:"mark,omitempty"`
}

type leakRow struct {
	At    time.Time  `json:"at"`
	Where string     `json:"where,omitempty"`
	From  netip.Addr `json:"from,omitzero"`
}

type rotationRow struct {
	Next      string        `json:"next"`
	Begun     time.Time     `json:"begun_at"`
	Until     time.Time     `json:"until"`
	By        string        `json:"by"`
	Emergency bool          `json:"emergency,omitempty"`
	Made      bool          `json:"made,omitempty"`
	Back      *endings.Mark `json:"back,omitempty"`
	Firing    string        `json:"firing,omitempty"`
	Sealed    bool          `json:"sealed,omitempty"`
	// Collected: when, by whom and by which request.
	CollectedAt time.Time `json:"collected_at,omitzero"`
	CollectedBy string    `json:"collected_by,omitempty"`
	CollectedIn string    `json:"collected_in,omitempty"`
}

type recipientRow struct {
	Age   string    `json:"age"`
	By    string    `json:"by"`
	At    time.Time `json:"at"`
	Until time.Time `json:"until,omitzero"`
}

type takenBackRow struct {
	Firing      string `json:"firing,omitempty"`
	Uncollected int    `json:"uncollected,omitempty"`
}

type deliveryRow struct {
	Tenant    string       `json:"tenant"`
	ID        string       `json:"id"`
	Previous  string       `json:"previous"`
	Recipient string       `json:"recipient"`
	Sealed    string       `json:"sealed"`
	Created   time.Time    `json:"created_at"`
	Until     time.Time    `json:"until"`
	Meta      endings.Meta `json:"meta"`
}

type useRow struct {
	Tenant string     `json:"tenant"`
	ID     string     `json:"id"`
	At     time.Time  `json:"at"`
	From   netip.Addr `json:"from,omitzero"`
	Agent  string     `json:"agent,omitempty"`
	Until  time.Time  `json:"until"`
	Next   string     `json:"next,omitempty"`
	Times  uint64     `json:"times,omitempty"`
}

func keyToRow(k issuer.Key) keyRow {
	return keyRow{
		ID: k.ID, Kind: string(k.Kind), Tenant: k.Tenant, Hash: k.Hash, Name: k.Name, Labels: k.Labels, Creator: k.Creator, Owner: k.Owner, Client: k.Client,
		Scopes: k.Scopes, Roles: refsToRow(k.Roles), OwnerRoles: k.OwnerRoles, OwnerMost: k.OwnerMost, RightsUntil: k.RightsUntil, Audiences: k.Audiences,
		Networks: k.Networks, RateLimit: k.RateLimit, Imported: k.Imported,
		Stamp: k.Stamp, Created: k.Created, Expires: k.Expires, Warned: k.Warned, Leak: (*leakRow)(k.Leak),
		Before: k.Before, Rotation: (*rotationRow)(k.Rotation), Recipient: (*recipientRow)(k.Recipient), Firing: k.Firing,
		TakenBack: (*takenBackRow)(k.TakenBack), Meta: k.Meta, Mark: k.Mark,
	}
}

func keyFromRow(r keyRow) issuer.Key {
	return issuer.Key{
		ID: r.ID, Kind: issuer.KeyKind(r.Kind), Tenant: r.Tenant, Hash: r.Hash, Name: r.Name, Labels: r.Labels, Creator: r.Creator, Owner: r.Owner, Client: r.Client,
		Scopes: r.Scopes, Roles: refsFromRow(r.Roles), OwnerRoles: r.OwnerRoles, OwnerMost: r.OwnerMost, RightsUntil: r.RightsUntil, Audiences: r.Audiences,
		Networks: r.Networks, RateLimit: r.RateLimit, Imported: r.Imported,
		Stamp: r.Stamp, Created: r.Created, Expires: r.Expires, Warned: r.Warned, Leak: (*issuer.Leak)(r.Leak),
		Before: r.Before, Rotation: (*issuer.Rotation)(r.Rotation), Recipient: (*issuer.Recipient)(r.Recipient), Firing: r.Firing,
		TakenBack: (*issuer.TakenBack)(r.TakenBack), Meta: r.Meta, Mark: r.Mark,
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

type principalRow struct {
	ID      string            `json:"id"`
	Tenant  string            `json:"tenant"`
	Birth   string            `json:"birth"`
	Kind    string            `json:"kind"`
	Name    string            `json:"name,omitempty"`
	Labels  map[string]string `json:"labels,omitempty"`
	Created time.Time         `json:"created_at"`
	Meta    endings.Meta      `json:"meta"`
	Mark    *endings.Mark     `json:"mark,omitempty"`
}

func principalToRow(p issuer.Principal) principalRow {
	return principalRow{
		ID: p.ID, Tenant: p.Tenant, Birth: p.Birth, Kind: string(p.Kind), Name: p.Name, Labels: p.Labels, Created: p.Created, Meta: p.Meta, Mark: p.Mark,
	}
}

func principalFromRow(r principalRow) issuer.Principal {
	return issuer.Principal{
		ID: r.ID, Tenant: r.Tenant, Birth: r.Birth, Kind: issuer.PrincipalKind(r.Kind), Name: r.Name, Labels: r.Labels, Created: r.Created, Meta: r.Meta, Mark: r.Mark,
	}
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
	Expires time.Time     `json:"expires_at,omitzero"`
	Meta    endings.Meta  `json:"meta"`
	Mark    *endings.Mark `json:"mark,omitempty"`
}

func bindingToRow(b issuer.Binding) bindingRow {
	return bindingRow{
		Tenant: b.Tenant, Subject: b.Subject, Role: roleRef(b.Role), Stamp: b.Stamp,
		Created: b.Created, Expires: b.Expires, Meta: b.Meta, Mark: b.Mark,
	}
}

func bindingFromRow(r bindingRow) issuer.Binding {
	return issuer.Binding{
		Tenant: r.Tenant, Subject: r.Subject, Role: issuer.RoleRef(r.Role), Stamp: r.Stamp,
		Created: r.Created, Expires: r.Expires, Meta: r.Meta, Mark: r.Mark,
	}
}

type tenantRow struct {
	Name     string        `json:"name"`
	Operator string        `json:"operator,omitempty"`
	Started  bool          `json:"started,omitempty"`
	Limits   limitsRow     `json:"limits,omitzero"`
	Stamp    revoke.Stamp  `json:"stamp,omitzero"`
	Created  time.Time     `json:"created_at"`
	Meta     endings.Meta  `json:"meta"`
	Mark     *endings.Mark `json:"mark,omitempty"`
}

type limitsRow struct {
	Keys            int     `json:"keys,omitempty"`
	Clients         int     `json:"clients,omitempty"`
	TokensPerSecond float64 `json:"tokens_per_second,omitempty"`
}

func tenantToRow(t issuer.Tenant) tenantRow {
	return tenantRow{
		Name: t.Name, Operator: t.Operator, Started: t.Started, Limits: limitsRow(t.Limits), Stamp: t.Stamp, Created: t.Created, Meta: t.Meta, Mark: t.Mark,
	}
}

func tenantFromRow(r tenantRow) issuer.Tenant {
	return issuer.Tenant{
		Name: r.Name, Operator: r.Operator, Started: r.Started, Limits: issuer.Limits(r.Limits), Stamp: r.Stamp, Created: r.Created, Meta: r.Meta, Mark: r.Mark,
	}
}
