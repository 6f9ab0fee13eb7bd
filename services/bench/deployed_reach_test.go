package bench

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/guard"
	"github.com/quash-project/quash/shared/guard/follow"
	"github.com/quash-project/quash/shared/guard/natsfeed"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/identity"
)

// bareFeed is what the account of the guards imports for the bare subscribers.
const bareFeed = "bench.fan.>"

// BenchmarkDeploymentReach: from a revocation being sent over HTTPS until the last
// of 100 guards, in an account and on a connection of their own, refuses a token
// that it has taken before; in turns with a publish into a synced stream of three
// copies and a fan-out to 100 subscribers over an import of the same kind.
func BenchmarkDeploymentReach(b *testing.B) {
	const guards, rounds = 100, 500
	d := deploy(b)
	d.share(b, bareFeed)
	nc := d.admin(b, "", identity.Log)
	js, err := jetstream.New(nc)
	if err != nil {
		b.Fatal(err)
	}
	leader := d.leader(b, js, wire.Stream)
	d.bareStream(b, js, "BARE")
	var quash, bare tracker
	req := guard.Requirement{Scopes: []string{"orders:read"}}
	all := d.guards(b, guards, func(g *guard.Guard, s wire.Stored) {
		if token := quash.current(); token != "" && len(s.Message.End) > 0 {
			if d := g.Decide(context.Background(), token, req); !d.Allowed() {
				quash.one()
			}
		}
	})
	d.subscribers(b, guards, bare.one)
	pub := d.admin(b, leader, identity.Log) // beside the stream, as what the broker republishes
	if js, err = jetstream.New(pub); err != nil {
		b.Fatal(err)
	}
	secret := d.key(b, "reach")
	payload := make([]byte, entrySize)
	var ours, theirs []time.Duration
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	for b.Loop() {
		for i := range rounds {
			if i%10 == 0 {
				runtime.GC()
			}
			token := d.exchange(b, secret)
			for _, g := range all {
				if d := g.Decide(context.Background(), token, req); !d.Allowed() {
					b.Fatalf("before the revocation: %s", d.Reason)
				}
			}
			quash.arm(token, guards)
			t0 := time.Now()
			d.revoke(b, i%2+1, "token:"+idOf(b, token))
			ours = append(ours, quash.wait(b).Sub(t0))

			time.Sleep(10 * time.Millisecond) // what follows the entry: reports, audit, the Redis view
			bare.arm("", guards)
			t0 = time.Now()
			if _, err := js.Publish(b.Context(), "bench.BARE.x", payload); err != nil {
				b.Fatal(err)
			}
			if err := pub.Publish("bench.fan.x", payload); err != nil {
				b.Fatal(err)
			}
			theirs = append(theirs, bare.wait(b).Sub(t0))
		}
	}
	reportQuantiles(b, ours, theirs)
}

// revoke revokes by a request to one of the replicas.
func (d *deployed) revoke(b *testing.B, replica int, target string) {
	b.Helper()
	req, err := d.revocation(replica, "", target)
	if err == nil {
		err = d.send(req, http.StatusCreated, nil)
	}
	if err != nil {
		b.Fatal(err)
	}
}

// guards starts guards, each with an identity and a connection of its own.
func (d *deployed) guards(b *testing.B, n int, applied func(*guard.Guard, wire.Stored)) (all []*guard.Guard) {
	b.Helper()
	for i := range n {
		creds, err := d.ids.AddGuard(fmt.Sprintf("bench-%d", i))
		if err != nil {
			b.Fatal(err)
		}
		nc, user, err := natsfeed.Connect(d.env["QUASH_NATS_URL"], creds, "bench", nil, nats.RootCAs(d.caFile()))
		if err != nil {
			b.Fatal(err)
		}
		link, err := natsfeed.New(nc, user)
		if err != nil {
			b.Fatal(err)
		}
		var g *guard.Guard
		cfg := follow.Config{Source: link, Feed: link, OnEntry: func(s wire.Stored) { applied(g, s) }}
		if g, err = guard.New([]guard.Issuer{{URL: d.env["QUASH_URL"], Trust: []string{d.env["QUASH_TRUST"]}}}, guard.WithFollow(cfg)); err != nil {
			b.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { defer close(done); _ = g.Run(ctx) }()
		b.Cleanup(func() { cancel(); <-done; nc.Close() })
		all = append(all, g)
	}
	for _, g := range all {
		enginetest.Eventually(b, "a guard is ready", g.Ready)
	}
	return all
}

// subscribers are connections of the guards' account that only listen.
func (d *deployed) subscribers(b *testing.B, n int, heard func()) {
	b.Helper()
	for range n {
		c := d.admin(b, "", identity.Guards)
		if _, err := c.Subscribe(bareFeed, func(*nats.Msg) { heard() }); err != nil {
			b.Fatal(err)
		}
		if err := c.Flush(); err != nil {
			b.Fatal(err)
		}
	}
	time.Sleep(time.Second) // the nodes tell each other who listens
}

// share exports a subject from the account of the log and imports it in that of
// the guards, as the feed is, at all nodes.
func (d *deployed) share(b *testing.B, subject string) {
	b.Helper()
	replace := map[string]string{}
	log, err := jwt.DecodeAccountClaims(d.ids.AccountJWTs[identity.Log])
	if err != nil {
		b.Fatal(err)
	}
	guards, err := jwt.DecodeAccountClaims(d.ids.AccountJWTs[identity.Guards])
	if err != nil {
		b.Fatal(err)
	}
	log.Exports.Add(&jwt.Export{Name: "bench", Subject: jwt.Subject(subject), Type: jwt.Stream})
	guards.Imports.Add(&jwt.Import{Name: "bench", Subject: jwt.Subject(subject), Type: jwt.Stream, Account: log.Subject})
	seed, err := os.ReadFile(filepath.Join(d.dir, "identities", "operator.nk"))
	if err != nil {
		b.Fatal(err)
	}
	operator, err := nkeys.FromSeed(seed)
	if err != nil {
		b.Fatal(err)
	}
	for key, claims := range map[string]*jwt.AccountClaims{log.Subject: log, guards.Subject: guards} {
		if replace[key], err = claims.Encode(operator); err != nil {
			b.Fatal(err)
		}
	}
	for _, node := range nodes {
		d.reconfigure(b, node, replace)
	}
}

// reconfigure gives a node other accounts, by their keys, while it runs.
func (d *deployed) reconfigure(b *testing.B, node string, accounts map[string]string) {
	b.Helper()
	file := filepath.Join(d.dir, node+".conf")
	text, err := os.ReadFile(file)
	if err != nil {
		b.Fatal(err)
	}
	var out strings.Builder
	for line := range strings.Lines(string(text)) {
		key, _, found := strings.Cut(strings.TrimSpace(line), ": ")
		if token := accounts[key]; found && token != "" {
			line = "  " + key + ": " + token + "\n"
		}
		out.WriteString(line)
	}
	if err := os.WriteFile(file, []byte(out.String()), 0o600); err != nil {
		b.Fatal(err)
	}
	if err := syscall.Kill(d.processes[node].PID, syscall.SIGHUP); err != nil {
		b.Fatal(err)
	}
}

// idOf is the jti of a token.
func idOf(b *testing.B, token string) string {
	b.Helper()
	var claims struct {
		ID string `json:"jti"`
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err == nil {
		err = json.Unmarshal(payload, &claims)
	}
	if err != nil || claims.ID == "" {
		b.Fatalf("a token without an id: %v", err)
	}
	return claims.ID
}

// reportQuantiles reports median and p99 of both sides.
func reportQuantiles(b *testing.B, ours, theirs []time.Duration) {
	for _, q := range []struct {
		name string
		at   float64
	}{{"p50", 0.5}, {"p99", 0.99}} {
		o, t := quantile(ours, q.at), quantile(theirs, q.at)
		b.ReportMetric(millis(o), "reach-"+q.name+"-ms")
		b.ReportMetric(millis(t), "bare-"+q.name+"-ms")
		b.ReportMetric(float64(o)/float64(t), q.name+"-ratio")
	}
}
