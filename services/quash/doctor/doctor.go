// Package doctor looks for what is wrong with a Quash, from where it runs, with what
// it was given: addresses, an API key, and identities that see more than a guard.
// Each finding that is wrong says how to mend it. What could not be looked at is
// said as that, with what would let it, and is never taken for good or for wrong.
//
// It changes nothing: where it tries what an identity must not be able to do, that
// does nothing even if it can.
package doctor

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/quash-project/quash/shared/client"
	"github.com/quash-project/quash/shared/client/api"
)

// Finding is one thing that was looked at, or could not be.
type Finding struct {
	Check     string `json:"check"`
	OK        bool   `json:"ok"` // also of what was not looked at
	NotLooked bool   `json:"not_looked_at,omitempty"`
	Detail    string `json:"detail"`
	Mend      string `json:"mend,omitempty"`
}

func good(check, format string, args ...any) Finding {
	return Finding{Check: check, OK: true, Detail: fmt.Sprintf(format, args...)}
}

func wrong(check, mend string, err error) Finding {
	return Finding{Check: check, Detail: err.Error(), Mend: mend}
}

// unseen is what could not be looked at; how says what would let it.
func unseen(check, how string) Finding {
	return Finding{Check: check, OK: true, NotLooked: true, Detail: "not looked at", Mend: how}
}

// Config is what the doctor is given.
type Config struct {
	API      *client.Client
	SignedIn bool // there is an API key
	HTTP     *http.Client
	Now      func() time.Time
	// NATSURL are the servers, with commas between; Creds those of a guard. The other
	// two are of the users monitor and revocation, and optional.
	NATSURL, Creds, MonitorCreds, RevocationCreds string
	// RedisURL is a reader's, RedisWriterURL the writer's, which is optional.
	RedisURL, RedisWriterURL string
}

// Examine looks at everything, and never fails itself.
func Examine(ctx context.Context, c Config) []Finding {
	d := &doctor{Config: c}
	m, err := c.API.Metadata(ctx)
	if err != nil {
		f, is := untrusted(host(c.API.Base()), err)
		if !is {
			f = wrong("metadata", "start Quash, or set QUASH_URL to the issuer's URL", err)
		}
		return append(append([]Finding{f}, d.nats(ctx)...), d.redis(ctx)...)
	}
	found := []Finding{good("metadata", "%s", m.Issuer)}
	found = append(found, d.endpoints(ctx, m)...)
	found = append(found, d.keys(ctx, m))
	found = append(found, d.signedIn(ctx)...)
	return append(append(found, d.nats(ctx)...), d.redis(ctx)...)
}

// signedIn looks at what needs a token.
func (d *doctor) signedIn(ctx context.Context) []Finding {
	const check, mend = "sign-in", "set QUASH_KEY_FILE to a file with a valid API key"
	fleet := unseen("fleet", "it needs a token: see sign-in")
	if !d.SignedIn {
		return []Finding{unseen(check, mend), fleet}
	}
	if _, err := d.API.Token(ctx); err != nil {
		return []Finding{wrong(check, mend, err), fleet}
	}
	return append([]Finding{good(check, "the API key is exchanged for a token")}, d.guards(ctx)...)
}

type doctor struct {
	Config
	view *api.RedisStatus // what the revocation service says of the Redis view; nil: not known
}

// host is how a finding names where it looked: nothing of a URL but host and port.
func host(raw string) string {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" {
		return "?"
	}
	return u.Host
}

// loopback reports whether host:port is this machine: there nobody listens between.
func loopback(hostport string) bool {
	name, _, err := net.SplitHostPort(hostport)
	if err != nil {
		name = hostport
	}
	ip := net.ParseIP(name)
	return name == "localhost" || ip != nil && ip.IsLoopback()
}
