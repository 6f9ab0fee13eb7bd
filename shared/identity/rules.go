package identity

import (
	"slices"
	"time"

	"github.com/nats-io/jwt/v2"

	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/leaked"
)

// The accounts.
const (
	Log     = "LOG"
	Control = "CONTROL"
	Guards  = "GUARDS"
	Sys     = "SYS"
)

// The users that every Quash has.
const (
	Revocation    = "revocation"
	ControlReader = "control-reader"
	Issuer        = "issuer"
	Rotator       = "rotator"
	Monitor       = "monitor"
	BreakGlass    = "break-glass"
)

// Buckets are the key-value buckets in the account CONTROL, by the service that
// writes them.
var Buckets = map[string][]string{
	Issuer:  {"tenants", "clients", "users", "keys", "sessions", "codes", "roles", "bindings"},
	Rotator: {"signing_keys", "schedules", "rotations"},
}

// Observed are the buckets of what a service has seen, in the same account. Nobody
// changes anything by what stands there, so that the audit leaves them out.
var Observed = map[string][]string{Issuer: {"uses"}}

// Sealed are the buckets of sealed secrets, in the same account: their service alone reads them.
var Sealed = map[string][]string{Issuer: {"deliveries"}}

// Requests is the bucket of the requests that had an idempotency key. Issuer and
// revocation each have one, in accounts of their own; it holds no records, so that
// the audit does not read it.
const Requests = "requests"

// Incidents is the bucket of notebooks of incidents, beside the log, written by the
// revocation service. The audit reads it.
const Incidents = "incidents"

// Pending is the bucket of cuts that wait for a second person. The revocation service has it
// in its own account, and the audit reads it there.
const Pending = "pending"

// Beside are those two: buckets in the log's account that the audit reads there.
var Beside = []string{Incidents, Pending}

// InboxPrefix is where the user with this name gets its answers; no other user
// can listen there.
func InboxPrefix(name string) string { return "_INBOX_" + name }

// answerTime is how long a service may take to answer a request: the longest
// wait for confirmations and some.
const answerTime = 2 * time.Minute

// maxAnswers is how often one request may be answered. It is above one because
// nats-server 2.15.2 counts each further delivery of the request to the same
// connection as an answer (client.go, deliverMsg asks pubAllowedFullCheck), and to
// older replicas probes come on two subscriptions.
const maxAnswers = 4

// guardRole is the role of every guard; a service's user has its own name as role.
const guardRole = "guard"

// accountOf says in which account a role's users are.
func accountOf() map[string]string {
	return map[string]string{
		Revocation: Log, ControlReader: Control, Issuer: Control, Rotator: Control, guardRole: Guards, BreakGlass: Guards, Monitor: Sys,
	}
}

// scope is what the users of a role may do; whatever is not named is refused. It
// stands in the account's JWT with a key that signs such users, not in the users'
// own: theirs would be longer than the 4,096 bytes that a CONNECT may have. The
// server puts a user's name in place of {{name()}}.
func scope(role, signer string) *jwt.UserScope {
	name := role
	if role == guardRole {
		name = "{{name()}}"
	}
	pub, sub := []string{}, []string{InboxPrefix(name) + ".>"}
	var answers *jwt.ResponsePermission
	serve := func(subjects ...string) {
		sub = append(append(sub, subjects...), "$SRV.>")
		answers = &jwt.ResponsePermission{MaxMsgs: maxAnswers, Expires: answerTime}
	}
	follow := func() {
		pub = append(pub, wire.GuardPrefix+name+".>")
		sub = append(sub, wire.FeedAll)
	}
	switch role {
	case Revocation:
		pub = append(pub, wire.LogAll, wire.FeedAsk, "quash.audit.>", "$KV.receipts.>", "$KV."+Requests+".>")
		for _, bucket := range Beside {
			pub = append(pub, "$KV."+bucket+".>")
		}
		for _, stream := range []string{wire.Stream, "QUASH_AUDIT", "KV_receipts", "KV_" + Requests, "KV_" + Incidents, "KV_" + Pending} {
			pub = append(append(pub, reads(stream)...), manages(stream)...)
		}
		pub = append(pub, "$JS.API.INFO")
		follow() // it decides about tokens for its own API, and so joins the fleet
		serve(wire.GuardPrefix+">", wire.CommitPrefix+">", wire.APIRevocation+">", wire.BreakGlassRevocation+">")
	case Issuer, Rotator:
		for _, bucket := range slices.Concat(Buckets[role], Observed[role], Sealed[role]) {
			pub = append(append(pub, reads("KV_"+bucket)...), manages("KV_"+bucket)...)
			pub = append(pub, "$KV."+bucket+".>")
		}
		if role == Issuer {
			pub = append(pub, reads("KV_signing_keys")...) // sealed; it signs with them
			pub = append(append(pub, reads("KV_"+Requests)...), manages("KV_"+Requests)...)
			pub = append(pub, "$KV."+Requests+".>")
		} else {
			pub = append(pub, reads("KV_tenants")...) // it keeps the keys of each
		}
		pub = append(pub, "$JS.API.INFO", wire.CommitPrefix+role)
		follow()
		if role == Rotator {
			// Key messages, and the question who lacks one.
			pub = append(pub, wire.CommitPrefix+role+".>")
			serve(wire.APIRotation+">", wire.BreakGlassRotation+">")
			pub = append(pub, wire.RecordsIssuer+leaked.Operation, wire.KeysIssuer+">")
		} else {
			pub = append(pub, wire.EventIssuer+">")
			serve(wire.APIIssuer+">", wire.BreakGlassIssuer+">", wire.RecordsIssuer+">", wire.KeysIssuer+">")
		}
	case ControlReader:
		for _, service := range []string{Issuer, Rotator} {
			for _, bucket := range slices.Concat(Buckets[service], Observed[service]) {
				pub = append(pub, reads("KV_"+bucket)...)
			}
		}
		sub = append(sub, wire.EventAll)
		pub = append(pub, "$JS.API.INFO", wire.RecordsIssuer+">") // what a cut would hit
	case Monitor:
		pub = append(pub, "$SYS.REQ.SERVER.PING.JSZ", "$SYS.REQ.SERVER.PING.HEALTHZ")
	case BreakGlass:
		pub = append(pub, wire.BreakGlassRevocation+">", wire.BreakGlassRotation+">", wire.BreakGlassIssuer+">")
	case guardRole:
		pub = append(pub, wire.APIRevocation+">", wire.APIRotation+">", wire.APIIssuer+">")
		follow()
	}
	u := jwt.NewUserScope()
	u.Key, u.Role = signer, role
	u.Template.Permissions = jwt.Permissions{
		Pub: jwt.Permission{Allow: pub}, Sub: jwt.Permission{Allow: sub}, Resp: answers,
	}
	return u
}

// reads are the API subjects by which one stream is read.
func reads(stream string) []string {
	return []string{
		"$JS.API.STREAM.INFO." + stream,
		"$JS.API.STREAM.MSG.GET." + stream,
		"$JS.API.DIRECT.GET." + stream,
		"$JS.API.DIRECT.GET." + stream + ".>",
		"$JS.API.CONSUMER.CREATE." + stream,
		"$JS.API.CONSUMER.CREATE." + stream + ".>",
		"$JS.API.CONSUMER.INFO." + stream + ".>",
		"$JS.API.CONSUMER.DELETE." + stream + ".>",
		"$JS.API.CONSUMER.MSG.NEXT." + stream + ".>",
		"$JS.ACK." + stream + ".>",
		"$JS.FC." + stream + ".>",
	}
}

// manages are those by which it is made and changed. Nobody may delete or purge
// one: a log that can be emptied by its user is one that a bug can empty.
func manages(stream string) []string {
	return []string{"$JS.API.STREAM.CREATE." + stream, "$JS.API.STREAM.UPDATE." + stream}
}

// wireUp sets the exports and imports between the accounts.
func wireUp(accounts map[string]*jwt.AccountClaims) {
	type share struct {
		from, subject string
		kind          jwt.ExportType
		to            []string
	}
	for _, s := range []share{
		{Log, wire.FeedAll, jwt.Stream, []string{Control, Guards}},
		{Log, wire.GuardPrefix + ">", jwt.Service, []string{Control, Guards}},
		{Log, wire.CommitPrefix + ">", jwt.Service, []string{Control}},
		{Log, wire.APIRevocation + ">", jwt.Service, []string{Guards}},
		{Control, wire.APIRotation + ">", jwt.Service, []string{Guards}},
		{Control, wire.APIIssuer + ">", jwt.Service, []string{Guards}},
		{Log, wire.BreakGlassRevocation + ">", jwt.Service, []string{Guards}},
		{Control, wire.BreakGlassRotation + ">", jwt.Service, []string{Guards}},
		{Control, wire.BreakGlassIssuer + ">", jwt.Service, []string{Guards}},
	} {
		export := &jwt.Export{Name: s.subject, Subject: jwt.Subject(s.subject), Type: s.kind}
		if s.kind == jwt.Service {
			export.ResponseThreshold = answerTime
		}
		accounts[s.from].Exports.Add(export)
		for _, to := range s.to {
			accounts[to].Imports.Add(&jwt.Import{
				Name: s.subject, Subject: jwt.Subject(s.subject), Type: s.kind, Account: accounts[s.from].Subject,
			})
		}
	}
	for _, name := range []string{Log, Control} {
		accounts[name].Limits.JetStreamLimits = jwt.JetStreamLimits{
			MemoryStorage: jwt.NoLimit, DiskStorage: jwt.NoLimit, Streams: jwt.NoLimit, Consumer: jwt.NoLimit,
		}
	}
}

// accountNames in the order in which they are made.
func accountNames() []string { return slices.Clone([]string{Log, Control, Guards, Sys}) }
