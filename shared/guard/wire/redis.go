package wire

import (
	"encoding/base64"
	"errors"
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"
	"time"

	"github.com/quash-project/quash/shared/guard/revoke"
)

// The Redis view: which keys it has, and when it is to be believed.
const (
	// RedisLimit is the staleness past which a reader does not take the view for
	// complete, and so the moment by which the view is fenced after a commit.
	RedisLimit = 3 * time.Second
	// RedisBeat is how often a writer proves that the view follows the log.
	RedisBeat = time.Second
	// MaxRedisShards bounds N: every shard has its own beat.
	MaxRedisShards = 1024

	redisVersion = "q1"
)

// RedisShard returns the shard of a tenant: 0 to shards-1. All keys of a tenant
// have one hash tag, so that one MGET reads them on a Cluster too.
func RedisShard(tenant string, shards int) int {
	if shards <= 1 {
		return 0
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(tenant)) // never fails
	return int(h.Sum32() % uint32(shards))
}

// RedisMetaKey returns the key of a shard's meta.
func RedisMetaKey(shard int) string { return "{q" + strconv.Itoa(shard) + "}:m" }

// RedisTargetPrefix returns what every target's key of a shard begins with.
func RedisTargetPrefix(shard int) string { return "{q" + strconv.Itoa(shard) + "}:t:" }

// RedisTargetKey returns the key of a target in a shard.
func RedisTargetKey(shard int, k revoke.Key) string { return RedisTargetPrefix(shard) + k.String() }

// RedisKeys returns what one MGET about targets reads: the key of the shard's meta,
// then those of the targets. All of these share one piece of memory, since they are
// made for each decision by Redis.
func RedisKeys(shard int, targets []revoke.Key) []string {
	keys := make([]string, 1, 1+len(targets))
	keys[0] = RedisMetaKey(shard)
	prefix := RedisTargetPrefix(shard)
	size := len(prefix) + base64.RawURLEncoding.EncodedLen(len(revoke.Key{}))
	text := make([]byte, 0, len(targets)*size)
	for _, k := range targets {
		text = append(text, prefix...)
		text = base64.RawURLEncoding.AppendEncode(text, k[:])
	}
	for all := string(text); all != ""; all = all[size:] {
		keys = append(keys, all[:size])
	}
	return keys
}

// ParseRedisTargetKey is the inverse of RedisTargetKey.
func ParseRedisTargetKey(shard int, key string) (revoke.Key, error) {
	text, ok := strings.CutPrefix(key, RedisTargetPrefix(shard))
	if !ok {
		return revoke.Key{}, fmt.Errorf("redis key %.60q: want %sKEY", key, RedisTargetPrefix(shard))
	}
	return revoke.ParseKey(text)
}

// RedisState is the value of a target's key: the folded state as text,
//
//	q1 CUT CUT_AT ENDED HELD RELEASED UNTIL
//
// with stamps as EPOCH.SEQUENCE, CUT_AT in Unix milliseconds, ENDED 0 or 1 and
// UNTIL in Unix seconds.
func RedisState(s revoke.State) string { return string(AppendRedisState(nil, s)) }

// AppendRedisState is RedisState into a buffer: a rebuild makes millions.
func AppendRedisState(b []byte, s revoke.State) []byte {
	b = append(b, redisVersion...)
	b = appendRedisStamp(append(b, ' '), s.Cut)
	b = strconv.AppendInt(append(b, ' '), s.CutAt, 10)
	if s.Ended {
		b = append(b, " 1 "...)
	} else {
		b = append(b, " 0 "...)
	}
	b = appendRedisStamp(b, s.Held)
	b = appendRedisStamp(append(b, ' '), s.Released)
	return strconv.AppendInt(append(b, ' '), s.Until, 10)
}

func appendRedisStamp(b []byte, s revoke.Stamp) []byte {
	b = strconv.AppendUint(b, s.Epoch, 10)
	return strconv.AppendUint(append(b, '.'), s.Seq, 10)
}

// ParseRedisState is the inverse of RedisState and takes its spelling only:
// whatever else stands there was not written by a writer of ours, or by a newer
// one, and makes the view incomplete for whoever needs it.
func ParseRedisState(text string) (revoke.State, error) {
	f, err := fields(text, 7)
	if err != nil {
		return revoke.State{}, fmt.Errorf("redis state: %w", err)
	}
	var s revoke.State
	var errs [6]error
	s.Cut, errs[0] = revoke.ParseStamp(f[1])
	s.CutAt, errs[1] = parseTime(f[2])
	s.Ended, errs[2] = parseBit(f[3])
	s.Held, errs[3] = revoke.ParseStamp(f[4])
	s.Released, errs[4] = revoke.ParseStamp(f[5])
	s.Until, errs[5] = parseTime(f[6])
	if err := errors.Join(errs[:]...); err != nil {
		return revoke.State{}, fmt.Errorf("redis state %.200q: %w", text, err)
	}
	return s, nil
}

// RedisMeta is the value of a shard's meta: what the shard holds, and the proof
// that somebody keeps it so.
type RedisMeta struct {
	Shard, Shards int
	// Position is up to where the shard holds the log.
	Position Position
	// Stamp is the newest entry or epoch at or below Position.
	Stamp revoke.Stamp
	// Generation is random, new for each rebuild; Complete is set when it is done.
	Generation string
	Complete   bool
	// Series is random, new for each writer that takes over; Beat counts in it.
	Series string
	Beat   uint64
	// Epochs are all histories with their D; the newest is that of Position.
	Epochs revoke.Epochs
}

// String returns the meta as text,
//
//	q1 SHARD/SHARDS EPOCH.SEQUENCE ID STAMP GENERATION complete|building SERIES BEAT EPOCHS
//
// with EPOCHS as NUMBER:D:restored|begun, joined by commas, ascending.
func (m RedisMeta) String() string {
	var b strings.Builder
	state := "building"
	if m.Complete {
		state = "complete"
	}
	fmt.Fprintf(&b, "%s %d/%d %s %s %s %s %s %s %d ", redisVersion, m.Shard, m.Shards,
		m.Position.Stamp, m.Position.ID, m.Stamp, m.Generation, state, m.Series, m.Beat)
	for i, e := range m.Epochs {
		if i > 0 {
			b.WriteByte(',')
		}
		how := "begun"
		if e.Restore {
			how = "restored"
		}
		fmt.Fprintf(&b, "%d:%s:%s", e.Number, e.D, how)
	}
	return b.String()
}

// ParseRedisMeta is the inverse of String, and takes its spelling only.
func ParseRedisMeta(text string) (RedisMeta, error) {
	m, err := parseRedisMeta(text)
	if err != nil {
		return RedisMeta{}, fmt.Errorf("redis meta %.200q: %w", text, err)
	}
	return m, nil
}

func parseRedisMeta(text string) (RedisMeta, error) {
	f, err := fields(text, 10)
	if err != nil {
		return RedisMeta{}, err
	}
	m := RedisMeta{Position: Position{ID: f[3]}, Generation: f[5], Series: f[7]}
	var errs [8]error
	m.Shard, m.Shards, errs[0] = parseShard(f[1])
	m.Position.Stamp, errs[1] = revoke.ParseStamp(f[2])
	m.Stamp, errs[2] = revoke.ParseStamp(f[4])
	m.Complete, errs[3] = f[6] == "complete", nil
	if !m.Complete && f[6] != "building" {
		errs[3] = fmt.Errorf("%.20q: want complete or building", f[6])
	}
	m.Beat, errs[4] = parseCount(f[8])
	m.Epochs, errs[5] = parseEpochs(f[9])
	for _, id := range []string{m.Position.ID, m.Generation, m.Series} {
		if _, err := revoke.ParseKey(id); err != nil {
			errs[6] = fmt.Errorf("%.40q: want 22 characters of base64url", id)
		}
	}
	if err := errors.Join(errs[:]...); err != nil {
		return RedisMeta{}, err
	}
	switch {
	case m.Position.Epoch != m.Epochs.Current().Number:
		return RedisMeta{}, fmt.Errorf("position %s is not of the newest epoch", m.Position.Stamp)
	case m.Position.Stamp.Less(m.Stamp):
		return RedisMeta{}, fmt.Errorf("stamp %s is above position %s", m.Stamp, m.Position.Stamp)
	}
	return m, nil
}

// fields splits into exactly n, of which the first is the version.
func fields(text string, n int) ([]string, error) {
	if len(text) > 1<<20 {
		return nil, fmt.Errorf("%d bytes: far too long", len(text))
	}
	f := strings.SplitN(text, " ", n+1)
	if f[0] != redisVersion {
		return nil, fmt.Errorf("version %.20q: want %s", f[0], redisVersion)
	}
	if len(f) != n {
		return nil, fmt.Errorf("%d parts: want %d", len(f), n)
	}
	return f, nil
}

func parseCount(s string) (uint64, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || s != strconv.FormatUint(n, 10) {
		return 0, fmt.Errorf("%.40q: want a decimal number", s)
	}
	return n, nil
}

func parseTime(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || s != strconv.FormatInt(n, 10) {
		return 0, fmt.Errorf("time %.40q: want a decimal number", s)
	}
	return n, nil
}

func parseBit(s string) (bool, error) {
	if s != "0" && s != "1" {
		return false, fmt.Errorf("%.20q: want 0 or 1", s)
	}
	return s == "1", nil
}

func parseShard(s string) (shard, shards int, err error) {
	a, b, _ := strings.Cut(s, "/")
	n, err1 := parseCount(a)
	of, err2 := parseCount(b)
	if err1 != nil || err2 != nil || of == 0 || of > MaxRedisShards || n >= of {
		return 0, 0, fmt.Errorf("shard %.20q: want N/M with N < M <= %d", s, MaxRedisShards)
	}
	return int(n), int(of), nil
}

func parseEpochs(s string) (revoke.Epochs, error) {
	var es revoke.Epochs
	for part := range strings.SplitSeq(s, ",") {
		number, rest, _ := strings.Cut(part, ":")
		d, how, _ := strings.Cut(rest, ":")
		n, err1 := parseCount(number)
		stamp, err2 := revoke.ParseStamp(d)
		if err1 != nil || err2 != nil || n == 0 || how != "begun" && how != "restored" {
			return nil, fmt.Errorf("epoch %.80q: want NUMBER:D:begun or NUMBER:D:restored", part)
		}
		if n <= es.Current().Number {
			return nil, fmt.Errorf("epoch %d does not ascend", n)
		}
		es = append(es, revoke.Epoch{Number: n, D: stamp, Restore: how == "restored"})
	}
	return es, nil
}
