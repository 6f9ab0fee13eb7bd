package ledger

import (
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/quash-project/quash/shared/guard/wire"
)

func streamConfig(replicas int) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:        wire.Stream,
		Description: "Quash: the log of revocations. Only the revocation service publishes here; nothing is ever deleted by hand.",
		Subjects:    []string{wire.LogAll},
		Retention:   jetstream.LimitsPolicy,
		Storage:     jetstream.FileStorage,
		Replicas:    replicas,
		// No limit of any kind: entries leave by their own TTL alone, so that
		// the log is the state.
		MaxMsgs: -1, MaxBytes: -1, MaxMsgsPerSubject: -1, MaxConsumers: -1, MaxMsgSize: -1, MaxAge: 0,
		Discard:    jetstream.DiscardNew,
		DenyDelete: true, DenyPurge: true,
		AllowMsgTTL:        true,
		AllowAtomicPublish: true, // where all or nothing is wanted
		// A direct get may be answered by a replica that is behind; who reads
		// one message here decides on it, so the leader answers.
		AllowDirect: false,
		RePublish:   &jetstream.RePublish{Source: wire.LogAll, Destination: wire.FeedAll, HeadersOnly: true},
	}
}

func hazardsOf(info *jetstream.StreamInfo, want jetstream.StreamConfig, syncAlways bool) []string {
	var out []string
	if !syncAlways {
		out = append(out, "the server may acknowledge before it has synced (set jetstream { sync_interval: always } and say so with sync_always): a power cut loses up to two minutes")
	}
	return append(out, HazardsOf(info.Config, want.Replicas)...)
}

// HazardsOf says what would let a message be lost that the log's stream with these
// settings has acknowledged, and what readers would not hear.
func HazardsOf(c jetstream.StreamConfig, replicas int) []string {
	want := streamConfig(replicas)
	var out []string
	add := func(bad bool, text string) {
		if bad {
			out = append(out, text)
		}
	}
	add(c.Storage != jetstream.FileStorage, "the stream is in memory: a restart loses all")
	add(c.PersistMode != jetstream.DefaultPersistMode, "persist_mode is async, which switches syncing off")
	add(c.MaxAge != 0 || c.MaxMsgs > 0 || c.MaxBytes > 0 || c.MaxMsgsPerSubject > 0, "the stream has a limit of age, number or size, which removes entries that still count")
	add(c.Retention != jetstream.LimitsPolicy, "the stream removes what was read")
	add(!c.DenyDelete || !c.DenyPurge, "entries can be deleted or purged by hand")
	add(!c.AllowMsgTTL, "the stream knows no TTL")
	add(c.AllowRollup, "a publisher can roll entries up")
	add(c.SubjectDeleteMarkerTTL != 0, "the stream writes markers of its own")
	add(c.NoAck, "the stream acknowledges nothing")
	add(c.Mirror != nil || len(c.Sources) > 0, "the stream copies another one")
	add(c.RePublish == nil || *c.RePublish != *want.RePublish, "the feed is not what the stream republishes")
	add(len(c.Subjects) != 1 || c.Subjects[0] != wire.LogAll, "the stream has other subjects than "+wire.LogAll)
	add(c.Replicas < want.Replicas, fmt.Sprintf("the stream has %d replicas, not %d", c.Replicas, want.Replicas))
	return out
}
