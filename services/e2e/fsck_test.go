package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/quash-project/quash/services/fsck"
	"github.com/quash-project/quash/services/quash/cli"
	"github.com/quash-project/quash/services/revocation/redisview"
	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/identity"
)

// checked are running services whose whole state fsck looks at.
type checked struct {
	*services
	redis *enginetest.RedisServer
	view  redis.UniversalClient
	token string
}

func newChecked(t *testing.T) *checked {
	t.Helper()
	r := enginetest.Redis(t)
	c := inProcess(t, func(s *setting) { s.redis = r }).checked(r)
	c.token = c.services.token(c.operator)
	return c
}

func (s *services) checked(r *enginetest.RedisServer) *checked {
	s.t.Helper()
	c := &checked{services: s, redis: r}
	var err error
	if c.view, err = redisview.ConnectURL("redis://" + r.Addr); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = c.view.Close() })
	return c
}

// fsck wants everything to agree once it is quiet, the Redis view too.
func (s *services) fsck(r *enginetest.RedisServer) {
	s.t.Helper()
	c := s.checked(r)
	eventually(s.t, "nothing differs", func() error {
		if r := c.check(); !r.OK {
			return fmt.Errorf("%q", r.Differences)
		}
		return nil
	})
}

// use puts something of every kind into the log and the buckets.
func (c *checked) use() {
	c.t.Helper()
	var key struct{ ID, Secret string }
	c.decode(c.api(c.token, http.MethodPost, "/v1/keys", map[string]any{"owner": "alice", "scopes": []string{"orders:read"}, "expires_in": "720h"}), http.StatusCreated, &key)
	c.services.token(key.Secret)
	for _, id := range []string{"dora", "spiffe://quash.test/erin"} {
		c.decode(c.api(c.token, http.MethodPost, "/v1/principals", map[string]any{"id": id}), http.StatusCreated, &ignored)
	}
	if r := c.api(c.token, http.MethodDelete, "/v1/principals/dora", nil); r.status/100 != 2 {
		c.t.Fatalf("delete a principal: status %d: %s", r.status, r.body)
	}
	for i, body := range []map[string]any{
		{"op": "revoke", "targets": []string{"principal:alice", "token:t1", "client:c"}},
		{"op": "hold", "targets": []string{"principal:bob", "role:r1"}},
		{"op": "hold", "targets": []string{"principal:carol"}, "for": "1h", "then": "revoke"},
		{"op": "release", "targets": []string{"principal:bob"}},
		{"op": "revoke", "targets": []string{"sign-ins:bob", "session:s1"}},
	} {
		body["reason"] = "a test"
		if r := c.api(c.token, http.MethodPost, "/v1/revocations", body, "Idempotency-Key", fmt.Sprint("use-", i)); r.status != http.StatusCreated {
			c.t.Fatalf("%v: status %d: %s", body, r.status, r.body)
		}
	}
	if r := c.api(c.token, http.MethodDelete, "/v1/keys/"+key.ID, nil); r.status/100 != 2 {
		c.t.Fatalf("delete a key: status %d: %s", r.status, r.body)
	}
}

func (c *checked) check() fsck.Report { return c.checkFor(20 * time.Second) }

// checkFor says how long the Redis view may take.
func (c *checked) checkFor(wait time.Duration) fsck.Report {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), deadline)
	defer cancel()
	r, err := fsck.Check(ctx, fsck.Config{
		Log: c.nats.Dial(c.t, identity.Revocation), Control: c.nats.Dial(c.t, identity.ControlReader), Redis: c.view, Wait: wait,
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return r
}

// followed waits until the audit trail has everything.
func (c *checked) followed() {
	c.t.Helper()
	eventually(c.t, "the audit trail has followed", func() error {
		if r := c.check(); r.Unaudited > 0 {
			return fmt.Errorf("it lacks %d", r.Unaudited)
		}
		return nil
	})
}

// names are the differences as "AREA NAME".
func names(r fsck.Report) []string {
	var out []string
	for _, d := range r.Differences {
		if name := d.Area + " " + d.Name; !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out
}

// fsck wants everything to agree once it is quiet. The audit trail may take half a minute
// to notice that a source is another one.
func (q *quash) fsck() {
	q.t.Helper()
	creds := filepath.Join(q.dir, "nats", "creds")
	eventually(q.t, "nothing differs", func() error {
		r := q.run("", "fsck", "--creds", filepath.Join(creds, "revocation.creds"), "--control-creds", filepath.Join(creds, "control-reader.creds"))
		if r.code != 0 {
			return fmt.Errorf("quash fsck: exit code %d\n%s%s", r.code, r.out, r.err)
		}
		return nil
	})
}

func wantOK(t *testing.T, r fsck.Report) {
	t.Helper()
	if !r.OK || len(r.Differences) > 0 {
		t.Errorf("want no difference, have %q", r.Differences)
	}
}

// wantNames wants each of these, and no other but that Redis is behind: services that
// have ended keep no view.
func wantNames(t *testing.T, r fsck.Report, want ...string) {
	t.Helper()
	have := slices.DeleteFunc(names(r), func(n string) bool { return n == "redis behind" && !slices.Contains(want, n) })
	slices.Sort(have)
	slices.Sort(want)
	if !slices.Equal(have, want) {
		t.Errorf("differences %q, want %q:\n%q", have, want, r.Differences)
	}
	if r.OK != (len(r.Differences) == 0) {
		t.Errorf("ok is %t with %d differences", r.OK, len(r.Differences))
	}
}

func TestFsckFindsNothingWhereNothingIsWrong(t *testing.T) {
	t.Parallel()
	c := newChecked(t)
	c.use()
	r := c.check()
	wantOK(t, r)
	if r.Messages < 10 || r.Targets < 9 || r.RedisKeys < r.Targets || r.Records < 5 || len(r.NotLookedAt) != 1 {
		t.Errorf("it has not looked at everything: %+v", r)
	}
	c.followed()
	if r := c.check(); r.Items < 10 {
		t.Errorf("%d items of the audit trail: want those of all that was done", r.Items)
	}

	run := func(args ...string) (fsck.Report, int, string) {
		t.Helper()
		key := filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(key, []byte(c.operator), 0o600); err != nil {
			t.Fatal(err)
		}
		url := filepath.Join(filepath.Dir(key), "redis")
		if err := os.WriteFile(url, []byte("redis://"+c.redis.Addr), 0o600); err != nil {
			t.Fatal(err)
		}
		env := map[string]string{"QUASH_URL": c.url, "QUASH_KEY_FILE": key, "QUASH_NATS_URL": c.nats.URL}
		var out, errs bytes.Buffer
		code := cli.Run(t.Context(), append([]string{"fsck", "--redis-url", url}, args...), cli.Env{
			In: strings.NewReader(""), Out: &out, Err: &errs, Getenv: func(k string) string { return env[k] }, Now: time.Now, HTTP: http.DefaultClient,
		})
		var r fsck.Report
		if slices.Contains(args, "json") {
			if err := json.Unmarshal(out.Bytes(), &r); err != nil {
				t.Fatalf("%v in %q, %q", err, out.String(), errs.String())
			}
		}
		return r, code, out.String() + errs.String()
	}
	creds := []string{"--creds", c.nats.Creds(t, identity.Revocation), "--control-creds", c.nats.Creds(t, identity.ControlReader)}
	if r, code, _ := run(append(creds, "-o", "json")...); code != 0 || !r.OK || r.Guards == 0 || len(r.NotLookedAt) != 0 {
		t.Errorf("quash fsck: exit code %d, %+v", code, r)
	}
	if _, code, out := run(creds...); code != 0 || !strings.Contains(out, "nothing differs") {
		t.Errorf("quash fsck: exit code %d, %s", code, out)
	}
	if _, code, _ := run(); code != 2 {
		t.Errorf("quash fsck without credentials: exit code %d, want 2", code)
	}
	if err := c.view.Set(t.Context(), "mine", "x", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if r, code, _ := run(append(creds, "-o", "json")...); code != 1 || r.OK || len(r.Differences) != 1 || r.Differences[0].At != "mine" {
		t.Errorf("quash fsck with a stranger's key: exit code %d, %+v", code, r)
	}
	if _, code, out := run(creds...); code != 1 || !strings.Contains(out, "stranger") {
		t.Errorf("quash fsck with a stranger's key: exit code %d, %s", code, out)
	}
}

func TestFsckFindsWhatIsWrongInRedis(t *testing.T) {
	t.Parallel()
	c := newChecked(t)
	c.use()
	wantOK(t, c.check())
	c.stop() // or they would mend it
	wantNames(t, c.checkFor(time.Millisecond))
	keys, err := c.view.Keys(t.Context(), "{q0}:t:*").Result()
	if err != nil || len(keys) < 9 {
		t.Fatalf("%d keys, %v", len(keys), err)
	}
	slices.Sort(keys)
	for _, damage := range []struct {
		name string
		do   func(key, value string, fields []string) error
		want []string
	}{
		{"a deleted key", func(key, _ string, _ []string) error { return c.view.Del(t.Context(), key).Err() }, []string{"redis missing"}},
		{"an ended token is not", c.change(3, "0"), []string{"redis says-less"}},
		{"a live principal is ended", c.change(3, "1"), []string{"redis says-more"}},
		{"a cut of before", c.change(1, "0.0"), []string{"redis says-less"}},
		{"a cut that nobody made", c.change(1, "9000000000000.7"), []string{"redis says-more"}},
		{"a hold that nobody made", c.change(4, "9000000000000.7"), []string{"redis says-more"}},
		{"a release that nobody made", c.change(5, "9000000000000.7"), []string{"redis says-more"}},
		{"no value of ours", func(key, _ string, _ []string) error {
			return c.view.Set(t.Context(), key, "x", redis.KeepTTL).Err()
		}, []string{"redis unreadable"}},
		{"one without an end", func(key, _ string, _ []string) error { return c.view.Persist(t.Context(), key).Err() }, []string{"redis end"}},
		{"one that ends too early", func(key, _ string, _ []string) error { return c.view.Expire(t.Context(), key, time.Minute).Err() }, []string{"redis end"}},
	} {
		found := false
		for _, key := range keys {
			value, ttl := c.view.Get(t.Context(), key).Val(), c.view.PTTL(t.Context(), key).Val()
			fields := strings.Fields(value)
			if err := damage.do(key, value, fields); err == errNotThisKey {
				continue
			} else if err != nil {
				t.Fatal(err)
			}
			found = true
			r := c.checkFor(time.Millisecond)
			wantNames(t, r, damage.want...)
			if i := slices.IndexFunc(r.Differences, func(d fsck.Difference) bool { return d.At == key }); i < 0 {
				t.Errorf("%s: %s is not named in %q", damage.name, key, r.Differences)
			}
			if err := c.view.Set(t.Context(), key, value, ttl).Err(); err != nil {
				t.Fatal(err)
			}
			break
		}
		if !found {
			t.Errorf("%s: no key can be damaged so", damage.name)
		}
	}
	wantNames(t, c.checkFor(time.Millisecond))
	c.damagedMeta()
}

var errNotThisKey = fmt.Errorf("this key is so already")

// change changes one field of a value.
func (c *checked) change(field int, to string) func(key, value string, fields []string) error {
	return func(key, _ string, fields []string) error {
		if fields[field] == to || field == 3 && to == "0" && fields[3] != "1" || field == 1 && fields[1] == "0.0" {
			return errNotThisKey
		}
		fields[field] = to
		return c.view.Set(c.t.Context(), key, strings.Join(fields, " "), redis.KeepTTL).Err()
	}
}

// damagedMeta wants each field of the meta to be looked at.
func (c *checked) damagedMeta() {
	t := c.t.(*testing.T)
	const key = "{q0}:m"
	value := c.view.Get(t.Context(), key).Val()
	for field, damage := range map[int]struct {
		to   string
		want []string
	}{
		3: {strings.Repeat("A", 22), []string{"redis position"}},
		6: {"building", []string{"redis incomplete"}},
		9: {strings.Fields(value)[9] + "," + "9000000000000:0.0:begun", nil},
	} {
		fields := strings.Fields(value)
		fields[field] = damage.to
		if err := c.view.Set(t.Context(), key, strings.Join(fields, " "), 0).Err(); err != nil {
			t.Fatal(err)
		}
		if r := c.checkFor(time.Millisecond); damage.want != nil {
			wantNames(t, r, damage.want...)
		} else if len(names(r)) == 0 {
			t.Errorf("meta with %s: no difference", damage.to)
		}
	}
	if err := c.view.Del(t.Context(), key).Err(); err != nil {
		t.Fatal(err)
	}
	wantNames(t, c.checkFor(time.Millisecond), "redis meta")
}

// TestFsckFindsAFlippedByte flips one byte of the log's file at a time, wherever: the
// server starts all the same. With its index, as after it was ended, it lacks a message in
// the middle; without, as after a crash, all that followed, and it gives those sequences
// out again.
func TestFsckFindsAFlippedByte(t *testing.T) {
	t.Parallel()
	c := newChecked(t)
	c.use()
	c.followed()
	c.stop()
	wantNames(t, c.checkFor(time.Millisecond))
	c.nats.Stop()
	dir := c.streamDir("QUASH_LOG")
	saved := filepath.Join(t.TempDir(), "saved")
	copyDir(t, dir, saved)
	blocks, err := filepath.Glob(filepath.Join(dir, "msgs", "*.blk"))
	if err != nil || len(blocks) != 1 {
		t.Fatalf("blocks %q, %v", blocks, err)
	}
	good, err := os.ReadFile(blocks[0])
	if err != nil {
		t.Fatal(err)
	}
	// Behind the last entry there may be ticks alone, of which nobody else knows.
	known := bytes.LastIndex(good, []byte(wire.LogEntry))
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d, %d bytes", seed, known)
	rnd := rand.New(rand.NewPCG(seed, 1))
	for _, crashed := range []bool{false, true} {
		found := map[string]int{}
		for range 8 {
			at := rnd.IntN(known)
			bad := bytes.Clone(good)
			bad[at] ^= 1 << rnd.IntN(8)
			copyDir(t, saved, dir)
			if err := os.WriteFile(blocks[0], bad, 0o600); err != nil {
				t.Fatal(err)
			}
			if crashed {
				if err := os.Remove(filepath.Join(dir, "msgs", "index.db")); err != nil {
					t.Fatal(err)
				}
			}
			c.nats.Start(t)
			have := slices.DeleteFunc(names(c.checkFor(time.Millisecond)), func(n string) bool { return n == "redis behind" })
			if len(have) == 0 {
				t.Errorf("byte %d of %d was flipped, crashed %t, and nothing is found", at, known, crashed)
			}
			for _, n := range have {
				found[n]++
			}
			c.nats.Stop()
		}
		t.Logf("crashed %t, found by: %v", crashed, found)
	}
}

// TestFsckFindsABucketThatWentBack puts the files of a bucket back to where they were.
func TestFsckFindsABucketThatWentBack(t *testing.T) {
	t.Parallel()
	c := newChecked(t)
	c.followed()
	c.nats.Stop()
	dir := c.streamDir("KV_keys")
	saved := filepath.Join(t.TempDir(), "saved")
	copyDir(t, dir, saved)
	c.nats.Start(t)
	eventually(t, "keys can be made again", func() error {
		if r := c.api(c.token, http.MethodPost, "/v1/keys", map[string]any{"owner": "dave", "scopes": []string{"orders:read"}}); r.status != http.StatusCreated {
			return fmt.Errorf("status %d", r.status)
		}
		return nil
	})
	c.followed()
	wantOK(t, c.check())
	c.stop()
	c.nats.Stop()
	copyDir(t, saved, dir)
	c.nats.Start(t)
	wantNames(t, c.checkFor(time.Millisecond), "buckets went-back", "buckets record-lost")
}

// streamDir is where the broker keeps a stream.
func (c *checked) streamDir(name string) string {
	c.t.Helper()
	found, err := filepath.Glob(filepath.Join(c.nats.Dir, "jetstream", "*", "streams", name))
	if err != nil || len(found) != 1 {
		c.t.Fatalf("stream %s is in %q, %v", name, found, err)
	}
	return found[0]
}
