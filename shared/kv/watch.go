package kv

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// FirstTime is how long a watch may take between two of the values that the
// bucket has at its start. One that was made while a cluster had no leader for
// the bucket may stay silent for ever, without an error.
const FirstTime = 5 * time.Second

// ErrSilent is the error of a watch that was given up.
var ErrSilent = errors.New("the watch does not bring what the bucket has")

// WatchAll begins a watch of a bucket that lives until ctx ends. It calls cancel,
// of ctx, if that takes longer than FirstTime: without a leader nobody answers.
func WatchAll(ctx context.Context, cancel context.CancelFunc, b jetstream.KeyValue) (jetstream.KeyWatcher, error) {
	opening := time.AfterFunc(FirstTime, cancel)
	w, err := b.WatchAll(ctx)
	if opening.Stop() {
		return w, err
	}
	if err == nil {
		_ = w.Stop() // it has ended with ctx
	}
	return nil, ErrSilent
}

// Watch hands on what a bucket has, then nil, then every change, until ctx ends.
// Whoever calls it starts it again after an error.
func Watch(ctx context.Context, b jetstream.KeyValue, take func(jetstream.KeyValueEntry)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w, err := WatchAll(ctx, cancel, b)
	if err != nil {
		return err
	}
	defer func() { _ = w.Stop() }() // the connection may be gone: then so is the watch
	first := time.NewTimer(FirstTime)
	defer first.Stop()
	silent := first.C
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-silent:
			return ErrSilent
		case e, ok := <-w.Updates():
			switch {
			case !ok:
				return errors.New("the watch was closed")
			case e == nil:
				silent = nil
			default:
				first.Reset(FirstTime)
			}
			take(e)
		}
	}
}
