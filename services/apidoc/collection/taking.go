package collection

// wait is how long a request waits at most for what it has asked to come about.
const wait = "30s"

func decisions() chapter {
	return chapter{"Decisions", "What a guard would decide, and why.", []step{
		{op: "decide", auth: operator, title: "Decide about a token", body: `{"token": "{{alice_token}}", "scopes": ["orders:read"], "fresh": true}`, holds: []holds{
			{"it is allowed, by a signature that was checked", `answer.allowed === true && answer.proved === true`},
		}},
		{op: "decide", auth: operator, title: "Decide without the scope", body: `{"token": "{{alice_token}}", "scopes": ["orders:write"]}`, holds: []holds{
			{"it is refused for its scope", `answer.allowed === false && answer.check === "scope"`},
		}},
	}}
}

func revocations() chapter {
	commit := func(title, op, key string) step {
		s := step{
			op: "commitRevocation", auth: operator, title: title, query: map[string]string{"wait": wait}, want: []int{201},
			body:  `{"op": "` + op + `", "targets": ["principal:` + alice + `"], ` + because + `}`,
			holds: []holds{{"it has a place in the log, and names who has it", `answer.op === "` + op + `" && answer.epoch > 0 && answer.sequence > 0 && Array.isArray(answer.confirmed)`}},
		}
		if key != "" {
			s.header = map[string]string{"Idempotency-Key": key}
		}
		return s
	}
	use := func(title string, status int) step {
		return step{op: orders, auth: bearer("alice_token"), title: title, want: []int{status}}
	}
	nobody := func(op, title, body string) step {
		return step{
			op: op, auth: operator, title: title, path: map[string]string{"id": "{{revocation_id}}"}, body: body, want: []int{404},
			why: "The id is that of the revocation that it becomes. Where policy wants a second person it is told with status 202.",
		}
	}
	held := commit("Hold Alice", "hold", "{{run}}-hold")
	held.keep = []keep{{"revocation_id", "id"}}
	again := commit("Send the same again", "hold", "{{run}}-hold")
	again.want = []int{200}
	again.why = "The same Idempotency-Key, the same request: it is the same revocation."
	again.holds = []holds{{"it is the same one", `answer.id === pm.collectionVariables.get("revocation_id")`}}
	return chapter{"Revocations", "Alice is held, released and revoked; the resource server follows within milliseconds.", []step{
		held,
		again,
		{op: "getRevocation", auth: operator, title: "See how far the hold has come", path: map[string]string{"id": "{{revocation_id}}"}, query: map[string]string{"wait": "1s"}, holds: []holds{
			{"it is the same one", `answer.id === pm.collectionVariables.get("revocation_id")`},
		}},
		{
			op: "getReceipt", auth: operator, title: "Show its receipt", path: map[string]string{"id": "{{revocation_id}}"}, query: map[string]string{"wait": "1s"},
			why:   "The same, signed: jws can be verified offline with the keys of the next request, for as long as somebody keeps them.",
			holds: []holds{{"it is of the same one, and signed", `answer.id === pm.collectionVariables.get("revocation_id") && answer.jws.split(".").length === 3`}},
		},
		{op: "getReceiptKeys", auth: none, title: "Get the keys that sign receipts", holds: []holds{{"one of them signs", `answer.keys.some(function (key) { return !key.valid_until; })`}}},
		{op: "listReceipts", auth: operator, title: "List receipts", holds: []holds{{"it is there", `answer.items.some(function (receipt) { return receipt.id === pm.collectionVariables.get("revocation_id"); })`}}},
		use("Use the held token", 401),
		{
			op: "listReceiptAttempts", auth: operator, title: "See who still tries with it", path: map[string]string{"id": "{{revocation_id}}"},
			why:   "Guards tell within some seconds whom they have refused because of it: the list may still be empty here.",
			holds: []holds{{"it is a list", `Array.isArray(answer.items)`}},
		},
		commit("Release Alice", "release", ""),
		use("Use the released token", 200),
		{op: "selectTargets", auth: operator, title: "Select the keys of Alice", query: map[string]string{"select": "keys where owner=" + alice}, holds: []holds{
			{"the key is among them", `answer.items.some(function (one) { return one.target === "key:" + pm.collectionVariables.get("key_id"); })`},
		}},
		{op: "previewRevocation", auth: operator, title: "See what revoking Alice would hit", body: `{"op": "revoke", "targets": ["principal:` + alice + `"]}`, holds: []holds{
			{"it counts a key, and gives a plan", `answer.api_keys.count > 0 && answer.api_keys.exact && answer.plan !== ""`},
		}},
		{op: "listPending", auth: operator, title: "List what waits for a second person", holds: []holds{{"nothing does: quash dev needs none", `answer.items.length === 0`}}},
		nobody("getPending", "See one that waits", ""), nobody("approvePending", "Agree to it", "{"+because+"}"), nobody("denyPending", "Say no to it", "{"+because+"}"),
		commit("Revoke what Alice has", "revoke", ""),
		use("Use the revoked token", 401),
		{op: orders, auth: apiKey(keyHeader, "key_secret"), title: "Use the revoked API key", want: []int{401}},
		{op: "renewKey", auth: operator, title: "Renew the key", path: map[string]string{"id": "{{key_id}}"}, body: `{` + because + `}`, holds: []holds{{"it is active", `answer.state === "active"`}}},
		{
			op: "token", auth: none, title: "Exchange the renewed key", form: exchange("key_secret"),
			keep: []keep{{"alice_token", "access_token"}},
		},
		use("Use the new token", 200),
	}}
}

func rotations() chapter {
	return chapter{"Rotations", "The next signing key signs; no valid token is refused.", []step{
		{
			op: "createRotation", auth: operator, title: "Rotate the signing key", query: map[string]string{"wait": wait}, header: map[string]string{"Idempotency-Key": "{{run}}-rotation"},
			why:  "200: the next key signs. 202: it waits still, as for those who read the public keys by URL.",
			want: []int{200, 202}, body: `{"kind": "signing-key", ` + because + `}`,
			keep: []keep{{"rotation_id", "id"}},
		},
		{op: "showRotation", auth: operator, title: "Show the rotation", path: map[string]string{"id": "{{rotation_id}}"}, holds: []holds{{"it waits or signs", `answer.state === "waiting" || answer.state === "signing"`}}},
		{op: "previewNewSchedule", auth: operator, title: "See what a schedule would do", body: `{"rotate": "signing-key", "cron": "0 3 * * 1", "time_zone": "Europe/Berlin", ` + because + `}`, holds: []holds{{"it names ten firings", `answer.firings.length === 10`}}},
		{
			op: "createSchedule", auth: operator, title: "Let the signing key be rotated each week", why: "200: it is there from a run before, and asks for the same.",
			want: []int{200, 201}, body: `{"name": "{{run}}", "rotate": "signing-key", "cron": "0 3 * * 1", "time_zone": "Europe/Berlin", "jitter": "10m", ` + because + `}`,
			holds: []holds{{"it says when it fires next", `answer.state === "active" && answer.next.at >= answer.next.due_at`}},
			keep:  []keep{{"schedule", "name"}},
		},
		{op: "listSchedules", auth: operator, title: "List the schedules", holds: []holds{{"it is among them", `answer.items.some(function (one) { return one.name === pm.collectionVariables.get("schedule"); })`}}},
		{op: "getSchedule", auth: operator, title: "Show the schedule", path: schedule(), holds: []holds{{"it is active", `answer.state === "active"`}}},
		{op: "previewSchedule", auth: operator, title: "See what it will do", path: schedule(), holds: []holds{{"it names ten firings, and what each does", `answer.firings.length === 10 && answer.firings[0].does !== ""`}}},
		{op: "getScheduleCalendar", auth: operator, title: "See the calendar", query: map[string]string{"for": "30d"}, holds: []holds{{"it has firings", `answer.firings.length > 0`}}},
		{op: "pauseSchedule", auth: operator, title: "Pause the schedule", path: schedule(), body: `{` + because + `}`, holds: []holds{{"nothing fires next", `answer.state === "paused" && answer.next === undefined`}}},
		{op: "resumeSchedule", auth: operator, title: "Resume the schedule", path: schedule(), body: `{` + because + `}`, holds: []holds{{"it fires again", `answer.state === "active" && answer.next !== undefined`}}},
		{op: "deleteSchedule", auth: operator, title: "Delete the schedule", path: schedule(), holds: []holds{{"it is gone", `answer.state === "deleted"`}}},
		{op: "listSigningKeys", auth: operator, title: "List signing keys", holds: []holds{{"one of them signs", `answer.items.some(function (key) { return key.state === "signing"; })`}}},
	}}
}

func schedule() map[string]string { return map[string]string{"name": "{{schedule}}"} }

func feed() chapter {
	return chapter{"Feed", "What is committed, as it is.", []step{
		{op: "watchFeed", auth: operator, title: "Watch the feed for a moment", query: map[string]string{"for": "2s"}},
	}}
}

func trail() chapter {
	return chapter{"Audit", "Everything that was done, by whom and why.", []step{
		{
			op: "searchAudit", auth: operator, title: "Who has revoked what", query: map[string]string{"type": "dev.quash.log.entry", "limit": "10"},
			holds: []holds{{"each names its actor and reason", `answer.items.length > 0 && answer.items.every(function (item) { return item.actor && item.reason; })`}},
		},
		{op: "exportAudit", auth: operator, title: "Export the audit trail as JSON Lines", query: map[string]string{"type": "dev.quash.log.entry"}},
		{op: "readAuditPages", auth: operator, title: "Read its pages, to verify them"},
		{op: "showAuditCheckpoint", auth: operator, title: "Take a signed checkpoint, to keep it elsewhere", why: "503 where the service has no key to sign it with.", want: []int{200, 503}},
	}}
}

func fleet() chapter {
	return chapter{"Fleet", "Who decides.", []step{
		{op: "getSLO", auth: operator, title: "How fast revocations take effect", holds: []holds{{"it names windows", `answer.windows.length > 1`}}},
		{
			op: "listFleet", auth: operator, title: "List the fleet", holds: []holds{{"there are guards", `answer.items.length > 0 && answer.head.sequence > 0`}},
			test: []string{
				`// The rotator is a guard too, and joins again; nobody's requests depend on it.`,
				`pm.test("has what becomes instance", function () {`,
				`    var joined = pm.response.json().items.filter(function (guard) { return guard.state === "joined"; });`,
				`    var rotators = joined.filter(function (guard) { return guard.name.indexOf("rotator") === 0; });`,
				`    pm.collectionVariables.set("instance", rotators.concat(joined)[0].instance);`,
				`});`,
			},
		},
		{op: "declareOut", auth: operator, title: "Declare a guard out", path: map[string]string{"instance": "{{instance}}"}, body: `{` + because + `}`, holds: []holds{
			{"it has a place in the log", `answer.epoch > 0 && answer.sequence > 0`},
		}},
	}}
}

func epochs() chapter {
	return chapter{"Epochs", "The last: guards load everything anew before they accept again.", []step{
		{op: "beginEpoch", auth: operator, title: "Begin a new epoch", body: `{` + because + `}`, holds: []holds{{"it is above the one before", `answer.epoch > answer.shared.epoch`}}},
	}}
}
