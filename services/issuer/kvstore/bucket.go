package kvstore

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/quash-project/quash/shared/kv"
)

// keepAll is how many revisions of a record a bucket keeps: enough for the audit
// follower to read each change, however late it comes. Of what the audit leaves out it
// is keepLast.
const (
	keepAll  = 64
	keepLast = 1
)

// markerLife is how long the bucket shows that a record has come to its end by
// its own time to live, so that watches hear of it.
const markerLife = 24 * time.Hour

// openBucket makes a bucket: a miss in the copy is worth a question to the leader.
func openBucket(ctx context.Context, js jetstream.JetStream, name string, replicas int, history int64) (jetstream.KeyValue, error) {
	cfg := kv.StreamOf(name, "records of the issuer: "+name, replicas)
	cfg.MaxMsgsPerSubject, cfg.AllowMsgTTL, cfg.SubjectDeleteMarkerTTL = history, true, markerLife
	return kv.Make(ctx, js, cfg)
}

// isLostRace reports whether somebody wrote in between. On replicated streams
// only the first of these matches, and it comes to a lone writer too.
func isLostRace(err error) bool {
	return errors.Is(err, jetstream.ErrKeyRevisionMismatch) || errors.Is(err, jetstream.ErrKeyExists)
}
