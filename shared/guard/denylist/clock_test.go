package denylist

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// beating is a view that is whole, at a beat.
type beating struct{ beat uint64 }

func (b *beating) MGet(_ context.Context, keys []string) ([]any, ConnID, error) {
	values := make([]any, len(keys))
	values[0] = wire.RedisMeta{
		Position:   wire.Position{Stamp: revoke.Stamp{Epoch: 1, Seq: 1}, ID: "AAAAAAAAAAAAAAAAAAAAAA"},
		Epochs:     revoke.Epochs{{Number: 1}},
		Generation: "BBBBBBBBBBBBBBBBBBBBBA", Series: "CCCCCCCCCCCCCCCCCCCCCA", Beat: b.beat, Complete: true, Shards: 1,
	}.String()
	return values, ConnID{Number: 1}, nil
}

func (b *beating) Primary(context.Context, int) error { return nil }
func (b *beating) Close() error                       { return nil }

// A wall clock that is set back makes nothing fresh, also where it is all that
// the owner's clock tells.
func TestAClockThatIsSetBackMakesNoViewFresher(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var off time.Duration
		conn := &beating{beat: 1}
		r, err := New([]Conn{conn}, Config{Now: func() time.Time { return time.Now().UTC().Add(off) }})
		if err != nil {
			t.Fatal(err)
		}
		check := func() (Result, error) {
			return r.Check(t.Context(), Query{Tenant: "default", Keys: []revoke.Key{{1}}, Stamp: revoke.Stamp{Epoch: 1, Seq: 1}})
		}
		if res, err := check(); res.Outcome != Incomplete {
			t.Fatalf("the first look proves nothing: %+v, %v", res, err)
		}
		time.Sleep(2 * time.Second)
		conn.beat = 3
		if res, err := check(); res.Outcome != Clean || res.Staleness != 2*time.Second {
			t.Fatalf("two beats on: %+v, %v", res, err)
		}
		off = -10 * time.Minute
		if res, err := check(); res.Staleness != 2*time.Second {
			t.Errorf("set back: %s old (%v), want 2s", res.Staleness, err)
		}
		time.Sleep(wire.RedisLimit)
		if res, err := check(); res.Outcome != Incomplete {
			t.Errorf("a beat that stands still, by a clock that was set back: %+v, %v", res, err)
		}
	})
}
