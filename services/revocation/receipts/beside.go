package receipts

import (
	"context"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/quash-project/quash/shared/guard/revoke"
)

// What is kept beside the receipts, in the same bucket and for no longer than they are.

// ErrRaced says that somebody has written a record in between.
var ErrRaced = errRaced

// IDAt returns the id of the receipt of the entry at a position, as far as the list has
// come.
func (k *Keeper) IDAt(at revoke.Stamp) (id string, ok bool) {
	it, ok := k.index.find(at)
	return it.id, ok
}

// Stored returns a receipt as it stands, of whatever tenant; problem.NotFound if there
// is none.
func (k *Keeper) Stored(ctx context.Context, id string) (Receipt, error) {
	if !isID(id) {
		return Receipt{}, errMissing
	}
	r, _, err := k.store.get(ctx, id)
	return r, err
}

// Bucket returns the bucket; problem.Unavailable until it is open.
func (k *Keeper) Bucket(ctx context.Context) (jetstream.KeyValue, error) {
	return k.store.late.Bucket(ctx)
}

// PutBeside writes a record that lives so long from now, unless its revision has moved:
// then ErrRaced.
func (k *Keeper) PutBeside(ctx context.Context, key string, data []byte, revision uint64, life time.Duration) error {
	if _, err := k.store.late.Bucket(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, answerIn)
	defer cancel()
	_, err := k.store.broker.Publish(ctx, &nats.Msg{Subject: subject + key, Data: data, Header: nats.Header{
		jetstream.MsgTTLHeader:              {strconv.FormatInt(int64(max(life, time.Minute)/time.Second), 10)},
		jetstream.ExpectedLastSubjSeqHeader: {strconv.FormatUint(revision, 10)},
	}})
	return classify(err)
}

// TargetKeys returns the keys of a receipt's targets, with how they are told.
func (r *Receipt) TargetKeys() map[revoke.Key]string {
	issuer := r.Issuer
	if issuer == "" {
		issuer = revoke.Own
	}
	out := make(map[revoke.Key]string, len(r.Targets))
	for _, text := range r.Targets {
		if t, err := revoke.ParseTarget(r.Tenant, issuer, text); err == nil {
			out[t.Key()] = text
		} else if k, err := revoke.ParseKey(text); err == nil {
			out[k] = text
		}
	}
	return out
}
