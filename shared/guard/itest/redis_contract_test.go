package itest

import (
	"context"
	"testing"
	"time"

	"github.com/quash-project/quash/schemas/schematest"
	"github.com/quash-project/quash/shared/guard/denylist"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// redisVectors is schemas/redis.json.
type redisVectors struct {
	About  string
	Shards []struct {
		Tenant        string
		Shards, Shard int
	}
	Keys []struct {
		Shard     int
		Target    revoke.Key
		MetaKey   string `json:"meta_key"`
		TargetKey string `json:"target_key"`
	}
	States struct {
		Read []struct {
			Text string
			state
		}
		Refused []string
	}
	Metas struct {
		Read []struct {
			Text          string
			Position      revoke.Stamp
			ID            string
			Stamp         revoke.Stamp
			Shard, Shards int
			Complete      bool
			Generation    string
			Series        string
			Beat          uint64
			Epochs        []struct {
				Number  uint64
				D       revoke.Stamp
				Restore bool
			}
		}
		Refused []string
	}
	Reads []redisReads
}

type redisReads struct {
	Name  string
	Steps []redisStep
}

type redisStep struct {
	At, Took    int64 // milliseconds
	Conn        uint64
	Meta, Value *string
	Stamp       revoke.Stamp
	Outcome     string
	StalenessMS int64 `json:"staleness_ms"`
}

func TestRedisValuesAreThoseOfTheVectors(t *testing.T) {
	var file redisVectors
	schematest.Vectors(t, "redis.json", &file)
	for _, v := range file.Shards {
		if n := wire.RedisShard(v.Tenant, v.Shards); n != v.Shard {
			t.Errorf("%q of %d shards is in %d, want %d", v.Tenant, v.Shards, n, v.Shard)
		}
	}
	for _, v := range file.Keys {
		if m, k := wire.RedisMetaKey(v.Shard), wire.RedisTargetKey(v.Shard, v.Target); m != v.MetaKey || k != v.TargetKey {
			t.Errorf("%s and %s, want %s and %s", m, k, v.MetaKey, v.TargetKey)
		}
	}
	for _, v := range file.States.Read {
		want := revoke.State{Cut: v.Cut, CutAt: v.CutAt, Ended: v.Ended, Held: v.Held, Released: v.Released, Until: v.Until}
		if s, err := wire.ParseRedisState(v.Text); err != nil || s != want || wire.RedisState(s) != v.Text {
			t.Errorf("%q is %+v, %v", v.Text, s, err)
		}
	}
	for _, text := range file.States.Refused {
		if s, err := wire.ParseRedisState(text); err == nil {
			t.Errorf("%q is %+v", text, s)
		}
	}
	for _, v := range file.Metas.Read {
		m, err := wire.ParseRedisMeta(v.Text)
		if err != nil || m.String() != v.Text || m.Position != (wire.Position{Stamp: v.Position, ID: v.ID}) || m.Stamp != v.Stamp ||
			m.Shard != v.Shard || m.Shards != v.Shards || m.Complete != v.Complete || m.Generation != v.Generation ||
			m.Series != v.Series || m.Beat != v.Beat || len(m.Epochs) != len(v.Epochs) {
			t.Errorf("%q is %+v, %v", v.Text, m, err)
			continue
		}
		for i, e := range v.Epochs {
			if m.Epochs[i] != (revoke.Epoch{Number: e.Number, D: e.D, Restore: e.Restore}) {
				t.Errorf("%q has the epoch %+v", v.Text, m.Epochs[i])
			}
		}
	}
	for _, text := range file.Metas.Refused {
		if m, err := wire.ParseRedisMeta(text); err == nil {
			t.Errorf("%q is %+v", text, m)
		}
	}
}

// scripted answers as a vector says; its clock is the reader's.
type scripted struct {
	step redisStep
	now  time.Time
}

func (s *scripted) MGet(context.Context, []string) ([]any, denylist.ConnID, error) {
	s.now = s.now.Add(time.Duration(s.step.Took) * time.Millisecond)
	var values []any
	for _, v := range []*string{s.step.Meta, s.step.Value} {
		if v == nil {
			values = append(values, nil)
		} else {
			values = append(values, *v)
		}
	}
	return values, denylist.ConnID{Number: s.step.Conn}, nil
}

func (s *scripted) Primary(context.Context, int) error { return nil }
func (s *scripted) Close() error                       { return nil }

func TestRedisReadsAreJudgedAsTheVectorsSay(t *testing.T) {
	var file redisVectors
	schematest.Vectors(t, "redis.json", &file)
	began := time.Unix(1764000000, 0)
	for _, c := range file.Reads {
		t.Run(c.Name, func(t *testing.T) {
			conn := &scripted{}
			r, err := denylist.New([]denylist.Conn{conn}, denylist.Config{Now: func() time.Time { return conn.now }})
			if err != nil {
				t.Fatal(err)
			}
			for i, step := range c.Steps {
				conn.step, conn.now = step, began.Add(time.Duration(step.At)*time.Millisecond)
				res, err := r.Check(t.Context(), denylist.Query{Tenant: "default", Keys: []revoke.Key{file.Keys[0].Target}, Stamp: step.Stamp})
				if res.Outcome.String() != step.Outcome || res.Staleness.Milliseconds() != step.StalenessMS {
					t.Errorf("step %d: %s as of %s ago (%v), want %s of %d ms", i, res.Outcome, res.Staleness, err, step.Outcome, step.StalenessMS)
				}
			}
		})
	}
}
