package wire

// The stream, and the subjects of the log. Stream subjects and service
// subscriptions have wildcards on purpose: who may create a consumer can make
// the server publish on any literal subject (nats-server issue 8274).
const (
	Stream     = "QUASH_LOG"
	LogAll     = "quash.log.>"
	LogPrefix  = "quash.log."
	FeedAll    = "quash.feed.>" // the stream's republication, headers only
	FeedPrefix = "quash.feed."

	// FeedAsk is where the revocation service asks all guards at once; see Question. It is
	// not of the stream: what is lost there is asked again by whoever wants to know.
	FeedAsk = "quash.feed.ask"

	LogEpoch = "quash.log.epoch"
	LogTick  = "quash.log.tick"
	LogEntry = "quash.log.entry." // + 43 characters: the hash of tenant, actor and idempotency key
	LogKey   = "quash.log.key."   // + target key of the signing key
	LogJoin  = "quash.log.join."  // + instance
	LogOut   = "quash.log.out."   // + instance
)

// The subjects on which a reader asks; "*" is the reader's NATS user, so that
// the broker vouches for it. See the request types.
const (
	GuardPrefix = "quash.guard." // + user + "." + one of these
	OpSync      = "sync"         // SyncRequest -> SyncAnswer
	OpPage      = "page"         // + "." + replica: PageRequest -> a page (binary)
	OpProbe     = "probe"        // ProbeRequest -> ProbeAnswer
	OpJoin      = "join"         // JoinRequest -> JoinAnswer
	OpOut       = "out"          // OutRequest -> JoinAnswer
	OpReport    = "report"       // Report, no answer
	OpAttempts  = "attempts"     // AttemptsReport, no answer
	OpRunning   = "running"      // RunningReport, no answer
	OpSeen      = "seen"         // + "." + replica: Seen, the answer to a Question of that replica
	OpHeard     = "heard"        // + "." + replica, of the revocation service alone: HeardBatch, no answer
)

// The subjects of requests between services and from outsiders.
const (
	CommitPrefix  = "quash.commit."         // + service: commit requests of issuer and rotator
	APIRevocation = "quash.api.revocation." // + operation
	APIRotation   = "quash.api.rotation."   // + operation
	APIIssuer     = "quash.api.issuer."     // + operation

	// Questions of the revocation service about the issuer's records; it asks as
	// control-reader, and the broker lets nobody else. The rotator may tell of what has leaked.
	RecordsIssuer = "quash.records.issuer." // + operation

	// Requests of the rotator about keys and client secrets, which the issuer keeps; the broker lets
	// nobody else ask.
	KeysIssuer = "quash.keys.issuer." // + operation

	// What the issuer tells of by itself, to whoever listens: CloudEvents in JSON.
	EventAll    = "quash.event.>"
	EventIssuer = "quash.event.issuer." // + tenant + "." + what happened

	// Of the break-glass identity alone: the broker vouches for it, and no token
	// is asked for.
	BreakGlassRevocation = "quash.break-glass.revocation." // + operation
	BreakGlassRotation   = "quash.break-glass.rotation."   // + operation
	BreakGlassIssuer     = "quash.break-glass.issuer."     // + operation
)

// GuardSubject returns the subject on which the reader with this NATS user asks.
func GuardSubject(user, op string) string { return GuardPrefix + user + "." + op }
