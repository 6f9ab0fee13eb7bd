package collection

const (
	keyHeader = "X-API-Key" // of the demo resource server
	alice     = "alice-{{run}}"
	clerk     = "clerk-{{run}}"
)

func principals() chapter {
	id := map[string]string{"id": "{{principal}}"}
	return chapter{"Principals", "Users and machines with a record. A key can have an owner without one.", []step{
		{
			op: "createPrincipal", auth: operator, title: "Make the record of a principal", body: `{"id": "robot-{{run}}", "kind": "workload", ` + because + `}`,
			holds: []holds{{"it is active", `answer.state === "active"`}}, keep: []keep{{"principal", "id"}},
		},
		{op: "listPrincipals", auth: operator, title: "List the machines", query: map[string]string{"kind": "workload"}, holds: []holds{{"there is one", `answer.items.length > 0`}}},
		{op: "getPrincipal", auth: operator, title: "Show the principal", path: id, holds: []holds{{"it has no keys yet", `answer.keys === 0`}}},
		{op: "deletePrincipal", auth: operator, title: "Delete the principal", path: id, query: explained, holds: []holds{{"it has a place in the log", `answer.epoch > 0 && answer.sequence > 0`}}},
	}}
}

func keys() chapter {
	id := map[string]string{"id": "{{key_id}}"}
	return chapter{"Keys", "API keys: made, used at a resource server, stopped and taken again.", []step{
		{
			op: "createKey", auth: operator, title: "Make an API key", body: `{"owner": "` + alice + `", "name": "tour", "scopes": ["orders:read"], "expires_in": "24h", ` + because + `}`,
			holds: []holds{{"it is of its owner and active", `answer.owner === "alice-" + pm.collectionVariables.get("run") && answer.state === "active"`}},
			keep:  []keep{{"key_id", "id"}, {"key_secret", "secret"}},
		},
		{op: "listKeys", auth: operator, title: "List the keys of an owner", query: map[string]string{"owner": alice}, holds: []holds{{"it is the only one of its owner", `answer.items.length === 1 && answer.items[0].id === pm.collectionVariables.get("key_id")`}}},
		{op: "getKey", auth: operator, title: "Show the key", path: id, holds: []holds{{"its secret is not shown again", `answer.secret === undefined`}}},
		{op: "lookup", auth: operator, title: "Recognize a pasted key", body: `{"secret": "{{key_secret}}"}`, holds: []holds{{"it is known", `answer.known === true && answer.id === pm.collectionVariables.get("key_id")`}}},
		{
			op: orders, auth: apiKey(keyHeader, "key_secret"), title: "Use the API key at a resource server",
			holds: []holds{{"it is served as the owner", `answer.for === "alice-" + pm.collectionVariables.get("run")`}},
		},
		{
			op: "setKeyRecipient", auth: operator, title: "Say to whom a schedule seals its next secret", path: id, body: `{"recipient": "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p", ` + because + `}`,
			why:   "The recipient is the example of age's own documentation: nobody here has its private half.",
			holds: []holds{{"it is the key's recipient", `answer.recipient.startsWith("age1ql3z7")`}},
		},
		{
			op: "collectKey", auth: operator, title: "Ask for a sealed secret that is not there", path: id, body: `{` + because + `}`, want: []int{404},
			why: "No schedule has rotated the key.",
		},
		{
			op: "rotateKey", auth: operator, title: "Make a key that takes its place", path: id, body: `{"overlap": "1h", "expires_in": "12h", ` + because + `}`,
			holds: []holds{{"it is another one of the same owner", `answer.previous === pm.collectionVariables.get("key_id") && answer.owner === "alice-" + pm.collectionVariables.get("run")`}},
			keep:  []keep{{"next_id", "id"}},
		},
		{op: "setKeyRotation", auth: operator, title: "Let the old key live for longer", path: id, body: `{"overlap": "2h", ` + because + `}`, holds: []holds{{"it is told who takes its place", `answer.rotation.next === pm.collectionVariables.get("next_id")`}}},
		{op: "rollBackKey", auth: operator, title: "Take the rotation back", path: id, body: `{` + because + `}`, holds: []holds{{"the new key has ended", `answer.target === "key:" + pm.collectionVariables.get("next_id")`}}},
		{op: "disableKey", auth: operator, title: "Disable the key", path: id, body: `{` + because + `}`},
		{op: "getKey", auth: operator, title: "Show the disabled key", path: id, holds: []holds{{"it is held", `answer.state === "held"`}}},
		{op: "enableKey", auth: operator, title: "Enable the key", path: id, body: `{` + because + `}`},
		{
			op: "token", auth: none, title: "Exchange the key for a token", form: exchange("key_secret", "scope", "orders:read"),
			keep: []keep{{"alice_token", "access_token"}},
		},
		{
			op: orders, auth: bearer("alice_token"), title: "Use the token at a resource server",
			holds: []holds{{"it is served as the owner", `answer.for === "alice-" + pm.collectionVariables.get("run")`}},
		},
		{
			op: "importKeys", auth: operator, title: "Import a key by its hash", why: "The hash is one of nobody's secret.",
			before: []string{
				`var hash = "";`,
				`while (hash.length < 64) { hash += Math.floor(Math.random() * 16).toString(16); }`,
				`pm.collectionVariables.set("hash", hash);`,
			},
			body:  `{"keys": [{"sha256": "{{hash}}", "owner": "` + alice + `", "networks": ["192.0.2.0/24"], "rate_limit": 60}], ` + because + `}`,
			holds: []holds{{"it is imported", `answer.items.length === 1 && answer.items[0].outcome === "imported"`}},
			keep:  []keep{{"imported_id", "items[0].id"}},
		},
		{op: "deleteKey", auth: operator, title: "Delete the imported key", path: map[string]string{"id": "{{imported_id}}"}, query: explained},
	}}
}

// keyEnds is told after the revocations, which need the key.
func keyEnds() chapter {
	id := map[string]string{"id": "{{key_id}}"}
	return chapter{"Keys: leaked and deleted", "The end of the key that the chapters before have used.", []step{
		{op: "reportLeak", auth: none, title: "Show that the key has leaked", form: []string{"key", "{{key_secret}}", "where", reason}},
		{op: "getKey", auth: operator, title: "Show the leaked key", path: id, holds: []holds{{"it says that it has leaked", `!!answer.leaked`}}},
		{op: "deleteKey", auth: operator, title: "Delete the key", path: id, query: explained, holds: []holds{{"it has a place in the log", `answer.epoch > 0 && answer.sequence > 0`}}},
		{op: orders, auth: apiKey(keyHeader, "key_secret"), title: "Use the deleted key", want: []int{401}},
	}}
}

func clients() chapter {
	id := map[string]string{"id": "{{client_id}}"}
	itself := basic("{{client_id}}", "{{client_secret}}")
	active := func(want string) []holds {
		return []holds{{"it is told whether the token is good", `answer.active === ` + want}}
	}
	return chapter{"Clients", "An OAuth 2.0 client: its token by client credentials, and what the OAuth endpoints tell it.", []step{
		{
			op: "createClient", auth: operator, title: "Register a client",
			body: `{"name": "tour-{{run}}", "grants": ["client_credentials"], "scopes": ["orders:read"], "serves": ["{{issuer}}"], ` + because + `}`,
			keep: []keep{{"client_id", "client_id"}, {"client_secret", "client_secret"}},
		},
		{op: "listClients", auth: operator, title: "List clients", holds: []holds{{"there is one", `answer.items.length > 0`}}},
		{op: "getClient", auth: operator, title: "Show the client", path: id, holds: []holds{{"its secret is not shown again", `answer.client_secret === undefined`}}},
		{
			op: "token", auth: itself, title: "Get a token by client credentials", form: []string{"grant_type", "client_credentials", "scope", "orders:read"},
			keep: []keep{{"client_token", "access_token"}},
		},
		{
			op: orders, auth: clientCredentials("client_id", "client_secret", "orders:read", "client_token"), title: "Use the client's token at a resource server",
			holds: []holds{{"it is served as the client", `answer.for === pm.collectionVariables.get("client_id")`}},
		},
		{op: "introspect", auth: itself, title: "Ask about the token", form: []string{"token", "{{client_token}}"}, holds: active("true")},
		{op: "revokeToken", auth: itself, title: "End the token", form: []string{"token", "{{client_token}}"}},
		{op: "introspect", auth: itself, title: "Ask about the ended token", form: []string{"token", "{{client_token}}", "fresh", "true"}, holds: active("false")},
		{op: "createSecret", auth: operator, title: "Give the client another secret", path: id, body: `{"expires_in": "24h", ` + because + `}`, holds: []holds{{"it is shown once, now", `typeof answer.secret === "string"`}}},
		{op: "deleteClient", auth: operator, title: "Delete the client", path: id, query: explained},
	}}
}

func roles() chapter {
	name := map[string]string{"name": clerk}
	may := func(scope, want string) step {
		return step{
			op: "getAbility", auth: operator, title: "Ask whether Alice has " + scope, query: map[string]string{"subject": alice, "scope": scope},
			holds: []holds{{"it is answered with its ways", `answer.allowed === ` + want + ` && Array.isArray(answer.ways)`}},
		}
	}
	return chapter{"Roles", "Named sets of scopes, and whom they are given to.", []step{
		{op: "createRole", auth: operator, title: "Make a role", body: `{"name": "` + clerk + `", "scopes": ["orders:read", "orders:write"], ` + because + `}`},
		{op: "listRoles", auth: operator, title: "List roles", holds: []holds{{"there is one", `answer.items.length > 0`}}},
		{op: "getRole", auth: operator, title: "Show the role", path: name, holds: []holds{{"it has its scopes", `answer.scopes.length === 2 && answer.fixed === false`}}},
		{op: "createBinding", auth: operator, title: "Give the role to Alice", body: `{"subject": "` + alice + `", "role": "` + clerk + `", "expires_in": "8h", ` + because + `}`},
		{op: "listBindings", auth: operator, title: "List Alice's roles", query: map[string]string{"subject": alice}, holds: []holds{{"it is the only one", `answer.items.length === 1`}}},
		may("orders:write", "true"),
		{op: "setRole", auth: operator, title: "Take a scope from the role", path: name, body: `{"scopes": ["orders:read"], ` + because + `}`, holds: []holds{{"it has fewer scopes", `answer.scopes.length === 1`}}},
		may("orders:delete", "false"),
		{op: "renewRole", auth: operator, title: "Renew the role", path: name, body: `{` + because + `}`},
		{op: "deleteBinding", auth: operator, title: "Take the role from Alice", query: map[string]string{"subject": alice, "role": clerk, "reason": reason}},
		{op: "deleteRole", auth: operator, title: "Delete the role", path: name, query: explained},
	}}
}
