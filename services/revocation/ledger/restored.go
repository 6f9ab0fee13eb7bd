package ledger

import (
	"context"
	"fmt"

	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// BeginRestored begins a new epoch in a log that was just restored from a backup,
// before any service uses it: all that it has is shared with what was before. It
// runs nothing; cfg needs the connection alone.
func BeginRestored(ctx context.Context, cfg Config, o EpochOrder) (revoke.Epoch, error) {
	l, err := New(cfg)
	if err != nil {
		return revoke.Epoch{}, err
	}
	last, err := l.getLast(ctx, wire.LogEpoch)
	if err == nil {
		err = last.err
	}
	if err != nil {
		return revoke.Epoch{}, fmt.Errorf("the restored log's epoch: %w", err)
	}
	former := last.stored.Message.Epoch
	d := revoke.Stamp{Epoch: former, Seq: o.Last}
	number, err := l.numberAbove(former)
	if err != nil {
		return revoke.Epoch{}, err
	}
	err = l.publishEpoch(ctx, newEpochMessage(number, d, true), last.seq, o.Actor, o.Reason)
	return revoke.Epoch{Number: number, D: d, Restore: true}, err
}
