package engine

import (
	"crypto/subtle"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/alicebob/miniredis/v2/server"
)

// The users of the embedded Redis-protocol server.
const (
	RedisWriter = "writer"
	RedisReader = "reader"
)

// RedisConfig is how the embedded Redis-protocol server runs.
type RedisConfig struct {
	Host                           string // empty: 127.0.0.1
	Port                           int    // 0: a free one
	WriterPassword, ReaderPassword string // both required
	// ExpireEvery is how often the clock is moved on for what expires; default
	// 10 s. A key goes by as much too early or too late, which the slack of
	// whatever has an end in Quash (10 min) covers.
	ExpireEvery time.Duration
}

// Redis is a Redis-protocol server in this process. It keeps everything in
// memory, which is enough: Redis is a view.
type Redis struct {
	mini    *miniredis.Miniredis
	cfg     RedisConfig
	closing chan struct{}
	closed  sync.WaitGroup
}

// readerCommands are what the ACL of a reader on a real Redis grants
// ("-@all +mget +get +ping +hello +auth +client|setname"); QUIT is anybody's.
var readerCommands = map[string]bool{"MGET": true, "GET": true, "PING": true, "HELLO": true, "AUTH": true, "QUIT": true}

// StartRedis starts one.
func StartRedis(c RedisConfig) (*Redis, error) {
	if c.WriterPassword == "" || c.ReaderPassword == "" {
		return nil, fmt.Errorf("embedded redis: both passwords are needed")
	}
	if c.Host == "" {
		c.Host = "127.0.0.1"
	}
	if c.ExpireEvery == 0 {
		c.ExpireEvery = 10 * time.Second
	}
	m := miniredis.NewMiniRedis()
	m.RequireUserAuth(RedisWriter, c.WriterPassword)
	m.RequireUserAuth(RedisReader, c.ReaderPassword)
	if err := m.StartAddr(net.JoinHostPort(c.Host, fmt.Sprint(c.Port))); err != nil {
		return nil, fmt.Errorf("embedded redis: %w", err)
	}
	r := &Redis{mini: m, cfg: c, closing: make(chan struct{})}
	r.closed.Go(r.expire)
	m.Server().SetPreHook((&rightsHook{cfg: c, users: map[*server.Peer]string{}}).check)
	return r, nil
}

// Addr returns host:port.
func (r *Redis) Addr() string { return r.mini.Addr() }

// URL returns the URL for one of the users.
func (r *Redis) URL(user string) string {
	password := r.cfg.ReaderPassword
	if user == RedisWriter {
		password = r.cfg.WriterPassword
	}
	return fmt.Sprintf("redis://%s:%s@%s/0", user, password, r.Addr())
}

// Close ends it; what it held is gone. It can be called once.
func (r *Redis) Close() {
	close(r.closing)
	r.closed.Wait()
	r.mini.Close()
}

// expire moves the server's clock on. Left to itself nothing expires, and with
// its ClockTTL every command looks at, and sorts, every key.
func (r *Redis) expire() {
	t := time.NewTicker(r.cfg.ExpireEvery)
	defer t.Stop()
	last := time.Now()
	for {
		select {
		case <-r.closing:
			return
		case <-t.C:
			now := time.Now()
			r.mini.FastForward(now.Sub(last))
			last = now
		}
	}
}

// rightsHook gives readers the rights of a reader: the server itself knows users
// but no rights.
type rightsHook struct {
	cfg RedisConfig

	mu    sync.Mutex
	users map[*server.Peer]string // by whom a connection has been authenticated
}

// check runs before each command; true says that it is done with.
func (h *rightsHook) check(c *server.Peer, cmd string, args ...string) bool {
	switch {
	case cmd == "AUTH" && len(args) == 2:
		h.authenticated(c, args[0], args[1])
	case cmd == "HELLO" && len(args) >= 4 && strings.EqualFold(args[1], "AUTH"):
		h.authenticated(c, args[2], args[3])
	}
	h.mu.Lock()
	user := h.users[c]
	h.mu.Unlock()
	if user == RedisWriter || readerCommands[cmd] || cmd == "CLIENT" && len(args) > 0 && strings.EqualFold(args[0], "SETNAME") {
		return false
	}
	if user == "" {
		return false // the server itself asks for authentication
	}
	c.WriteError("NOPERM this user has no permissions to run the '" + strings.ToLower(cmd) + "' command")
	return true
}

// authenticated notes who it is only if the password is right: a wrong one
// changes nothing for the server either.
func (h *rightsHook) authenticated(c *server.Peer, user, password string) {
	want := ""
	switch user {
	case RedisWriter:
		want = h.cfg.WriterPassword
	case RedisReader:
		want = h.cfg.ReaderPassword
	}
	if want == "" || subtle.ConstantTimeCompare([]byte(password), []byte(want)) != 1 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, known := h.users[c]; !known {
		c.OnDisconnect(func() {
			h.mu.Lock()
			defer h.mu.Unlock()
			delete(h.users, c)
		})
	}
	h.users[c] = user
}
