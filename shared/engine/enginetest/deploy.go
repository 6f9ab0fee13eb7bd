package enginetest

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// deployFile returns the path of a file that is shipped for operators.
func deployFile(t testing.TB, path ...string) string {
	t.Helper()
	_, self, _, ok := runtime.Caller(0)
	if !ok {
		t.Fatal("the path of this file is not known")
	}
	return filepath.Join(append([]string{filepath.Dir(self), "..", "..", "..", "deploy"}, path...)...)
}

// ShippedRedis starts a redis-server with the settings and users of
// deploy/redis/redis.conf; the users' password is pw.
func ShippedRedis(t testing.TB) *RedisServer {
	t.Helper()
	text, err := os.ReadFile(deployFile(t, "redis", "redis.conf"))
	if err != nil {
		t.Fatal(err)
	}
	r := Redis(t)
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		var args []any
		switch {
		case len(f) == 0 || strings.HasPrefix(f[0], "#") || f[0] == "bind" || f[0] == "port":
			continue
		case f[0] == "user" && f[1] == "default":
			if f[2] != "off" {
				t.Error("the user without a name can sign in")
			}
			continue // it is how the test itself comes in
		case f[0] == "user":
			args = []any{"ACL", "SETUSER"}
			for _, rule := range append(f[1:], ">pw") {
				args = append(args, rule)
			}
		default:
			args = []any{"CONFIG", "SET", f[0], strings.Trim(strings.Join(f[1:], " "), `"`)}
		}
		if err := r.Client.Do(t.Context(), args...).Err(); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
	}
	return r
}
