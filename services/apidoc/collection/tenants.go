package collection

const acme = "acme-{{run}}"

var ofAcme = map[string]string{"tenant": acme}

// newTenants is told early: until a tenant is used its first signing key is made.
func newTenants() chapter {
	return chapter{"Tenants: made", "A tenant with an issuer, keys and limits of its own.", []step{
		{
			op: "createTenant", auth: operator, title: "Make a tenant", body: `{"name": "` + acme + `", "limits": {"keys": 10}, ` + because + `}`,
			holds: []holds{{"its issuer is below the installation's", `answer.issuer.indexOf(pm.collectionVariables.get("issuer") + "/t/") === 0`}},
			keep:  []keep{{"tenant_issuer", "issuer"}, {"admin_id", "admin.id"}, {"admin_secret", "admin.secret"}},
		},
		{op: "listTenants", auth: operator, title: "List tenants", holds: []holds{{"there are two at least", `answer.items.length >= 2`}}},
		{op: "getTenant", auth: operator, title: "Show the tenant", path: ofAcme, holds: []holds{{"it is active", `answer.state === "active"`}}},
		{
			op: "setTenantLimits", auth: operator, title: "Give the tenant other limits", path: ofAcme, body: `{"limits": {"keys": 20, "clients": 5, "tokens_per_second": 100}, ` + because + `}`,
			holds: []holds{{"it has them", `answer.limits.keys === 20`}},
		},
		{op: "createTenantAdmin", auth: operator, title: "Make another key for its admin", path: ofAcme, body: `{"expires_in": "24h", ` + because + `}`, holds: []holds{{"it is shown once, now", `typeof answer.secret === "string"`}}},
		{op: "tenantMetadata", auth: none, title: "Read the metadata of the tenant's issuer", path: ofAcme, holds: ofItsIssuer},
		{op: "tenantOpenidMetadata", auth: none, title: "The same for OpenID Connect, of a tenant", path: ofAcme, holds: ofItsIssuer},
	}}
}

var ofItsIssuer = []holds{{"it is of the tenant's issuer", `answer.issuer === pm.collectionVariables.get("tenant_issuer")`}}

func tenants() chapter {
	itself := basic("key_{{admin_id}}", "{{admin_secret}}")
	return chapter{"Tenants: used and deleted", "What its admin does at its own issuer, and what the operators do to it as a whole.", []step{
		{op: "tenantJwks", auth: none, title: "Read the tenant's public keys", path: ofAcme, holds: []holds{{"it has a key of its own", `answer.keys.length > 0`}}},
		{op: "tenantToken", auth: none, path: ofAcme, title: "Exchange the admin's key for a token", form: exchange("admin_secret"), keep: []keep{{"tenant_token", "access_token"}}},
		{op: "listKeys", auth: bearer("tenant_token"), title: "List the tenant's keys as its admin", holds: []holds{{"they are those of the two admins", `answer.items.length === 2`}}},
		{op: "tenantIntrospect", auth: itself, title: "Ask about the token", path: ofAcme, form: []string{"token", "{{tenant_token}}"}, holds: []holds{{"it is active", `answer.active === true`}}},
		{op: "tenantRevokeToken", auth: itself, title: "End the token", path: ofAcme, form: []string{"token", "{{tenant_token}}"}},
		{op: "tenantReportLeak", auth: none, title: "Show that the admin's key has leaked", path: ofAcme, form: []string{"key", "{{admin_secret}}", "where", reason}},
		{op: "holdTenant", auth: operator, title: "Hold the tenant", path: ofAcme, body: `{` + because + `}`},
		{op: "releaseTenant", auth: operator, title: "Release the tenant", path: ofAcme, body: `{` + because + `}`},
		{op: "revokeTenant", auth: operator, title: "Revoke what is in the tenant", path: ofAcme, body: `{` + because + `}`},
		{op: "exportTenant", auth: operator, title: "Export the tenant", path: ofAcme, holds: []holds{{"it has the admins' keys", `answer.keys.length === 2`}}},
		{op: "deleteTenant", auth: operator, title: "Delete the tenant", path: ofAcme, query: explained},
		{op: "getTenantRemains", auth: operator, title: "See what is left of it", path: ofAcme, holds: []holds{{"it says what is left", `typeof answer.none === "boolean"`}}},
	}}
}
