package wire

import (
	"slices"
	"testing"

	"github.com/quash-project/quash/shared/guard/revoke"
)

// FuzzRedisValues: whatever a stranger writes into Redis is refused or read as
// what it says: written again it is the same.
func FuzzRedisValues(f *testing.F) {
	for _, seed := range []string{
		RedisState(revoke.State{Cut: revoke.Stamp{Epoch: 1, Seq: 2}, CutAt: 3, Until: 4}),
		RedisState(revoke.State{Held: revoke.Stamp{Epoch: 1, Seq: 2}, Released: revoke.Stamp{Epoch: 1, Seq: 1}, Ended: true, Until: 4}),
		RedisMeta{}.String(), "", " ", "1 2 3", "\x00", "18446744073709551615", "-1",
		RedisTargetKey(0, revoke.Key{1, 2, 3}),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if s, err := ParseRedisState(text); err == nil {
			if got := RedisState(s); got != text {
				t.Errorf("state %q is written as %q", text, got)
			}
		}
		if m, err := ParseRedisMeta(text); err == nil {
			if got := m.String(); got != text {
				t.Errorf("meta %q is written as %q", text, got)
			}
		}
		if k, err := ParseRedisTargetKey(0, text); err == nil {
			if got := RedisTargetKey(0, k); got != text {
				t.Errorf("target key %q is written as %q", text, got)
			}
		}
	})
}

func TestKeysOfOneReadAreThoseOfMetaAndTargets(t *testing.T) {
	for shard, targets := range map[int][]revoke.Key{0: nil, 7: {{1, 2, 3}}, 12: {{255, 254}, {}, {4}}} {
		want := []string{RedisMetaKey(shard)}
		for _, k := range targets {
			want = append(want, RedisTargetKey(shard, k))
		}
		if got := RedisKeys(shard, targets); !slices.Equal(got, want) {
			t.Errorf("shard %d: got %q, want %q", shard, got, want)
		}
	}
}
