package kvstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// history is how many revisions of a record the bucket keeps: enough for the
// audit follower to read each change, however late it comes.
const history = 64

// markerLife is how long the bucket shows that a record has come to its end by
// its own time to live, so that watches hear of it.
const markerLife = 24 * time.Hour

// openBucket creates the bucket's stream, or brings it to these settings. Not by
// CreateOrUpdateKeyValue, which would have every read go to any replica
// (AllowDirect): such a read may be old, and a miss in the copy is worth a
// question to the leader.
func openBucket(ctx context.Context, js jetstream.JetStream, name string, replicas int) (jetstream.KeyValue, error) {
	cfg := jetstream.StreamConfig{
		Name: "KV_" + name, Subjects: []string{"$KV." + name + ".>"}, Description: "records of the issuer: " + name,
		MaxMsgsPerSubject: history, MaxMsgs: -1, MaxBytes: -1, MaxMsgSize: -1, MaxConsumers: -1,
		Storage: jetstream.FileStorage, Replicas: replicas, Discard: jetstream.DiscardNew,
		AllowRollup: true, DenyDelete: true, AllowMsgTTL: true, SubjectDeleteMarkerTTL: markerLife, Duplicates: 2 * time.Minute,
	}
	s, err := js.CreateOrUpdateStream(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("bucket %s: %w", name, err)
	}
	if s.CachedInfo().Config.AllowDirect {
		if _, err := js.UpdateStream(ctx, cfg); err != nil { // creating sets it, whatever the request says
			return nil, fmt.Errorf("bucket %s: %w", name, err)
		}
	}
	b, err := js.KeyValue(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("bucket %s: %w", name, err)
	}
	return b, nil
}

// isLostRace reports whether somebody wrote in between. On replicated streams
// only the first of these matches, and it comes to a lone writer too.
func isLostRace(err error) bool {
	return errors.Is(err, jetstream.ErrKeyRevisionMismatch) || errors.Is(err, jetstream.ErrKeyExists)
}
