package kv

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/quash-project/quash/shared/problem"
)

// How long making a bucket may take at a time, how long it pauses, and how long a request
// waits for a service that has just started.
const (
	openIn    = 5 * time.Second
	openAgain = 500 * time.Millisecond
	openWait  = 2 * time.Second
)

// StreamPrefix begins the name of a bucket's stream.
const StreamPrefix = "KV_"

// StreamOf is the stream of a bucket, as most are: what each keeps, and for how long, it says
// itself. None is compressed: a node of nats-server 2.15.2 that was killed could often not read
// the compressed blocks of the receipts again ("error reading compression reader: s2: corrupt
// input") and took all of them from the others; of nodes that were killed together none might
// have had them.
func StreamOf(bucket, description string, replicas int) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: StreamPrefix + bucket, Subjects: []string{"$KV." + bucket + ".>"}, Description: description,
		MaxMsgsPerSubject: 1, MaxMsgs: -1, MaxBytes: -1, MaxMsgSize: -1, MaxConsumers: -1,
		Storage: jetstream.FileStorage, Replicas: max(replicas, 1), Discard: jetstream.DiscardNew,
		AllowRollup: true, DenyDelete: true, Duplicates: 2 * time.Minute,
	}
}

// Make makes a bucket by its stream, or brings it to these settings. Not by
// CreateOrUpdateKeyValue, which would have every read go to any replica (AllowDirect): such
// a read may be old.
func Make(ctx context.Context, js jetstream.JetStream, cfg jetstream.StreamConfig) (jetstream.KeyValue, error) {
	name := strings.TrimPrefix(cfg.Name, StreamPrefix)
	s, err := js.CreateOrUpdateStream(ctx, cfg)
	if err == nil && s.CachedInfo().Config.AllowDirect {
		_, err = js.UpdateStream(ctx, cfg) // creating sets it, whatever the request says
	}
	if err != nil {
		return nil, fmt.Errorf("bucket %s: %w", name, err)
	}
	b, err := js.KeyValue(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("bucket %s: %w", name, err)
	}
	return b, nil
}

// Late is a bucket that a service makes once JetStream is there, while requests come
// already. It is safe for concurrent use.
type Late struct {
	js      jetstream.JetStream
	cfg     jetstream.StreamConfig
	lacking string

	opened chan struct{} // closed once bucket is set
	once   sync.Once
	bucket jetstream.KeyValue
}

// NewLate returns a bucket of which requests are told that it is lacking until Open has made
// it.
func NewLate(js jetstream.JetStream, cfg jetstream.StreamConfig, lacking string) *Late {
	return &Late{js: js, cfg: cfg, lacking: lacking, opened: make(chan struct{})}
}

// Open makes it, trying until it can or ctx ends, whose error it returns then. failed is
// called with the first error.
func (l *Late) Open(ctx context.Context, failed func(error)) error {
	for told := false; ; told = true {
		try, cancel := context.WithTimeout(ctx, openIn)
		b, err := Make(try, l.js, l.cfg)
		cancel()
		if err == nil {
			l.once.Do(func() {
				l.bucket = b
				close(l.opened)
			})
		}
		if err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		if !told {
			failed(err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(openAgain):
		}
	}
}

// Bucket returns it, waiting a moment for it; problem.Unavailable if it is not there.
func (l *Late) Bucket(ctx context.Context) (jetstream.KeyValue, error) {
	wait := time.NewTimer(openWait)
	defer wait.Stop()
	select {
	case <-l.opened:
		return l.bucket, nil
	case <-ctx.Done():
	case <-wait.C:
	}
	return nil, problem.New(problem.Unavailable, "%s", l.lacking)
}
