package deployment

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/redis/go-redis/v9"

	"github.com/quash-project/quash/shared/authority"
	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/guard/natsfeed"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/identity"
)

// engines are the NATS cluster and Redis of scripts/up with its configuration, and
// no service: what is sent reaches nobody who would take it for real.
func engines(t *testing.T) *deployment {
	t.Helper()
	if err := build(); err != nil {
		t.Fatal(err)
	}
	d := &deployment{dir: t.TempDir(), source: source, redis: Single, options: Options{Programs: programs}}
	t.Cleanup(func() {
		d.release()
		if err := Down(context.Background(), d.dir); err != nil {
			t.Error(err)
		}
	})
	if err := d.prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := d.startEngines(t.Context()); err != nil {
		t.Fatal(err)
	}
	return d
}

// told collects what a connection is refused.
type told struct {
	mu   sync.Mutex
	text []string
}

func (r *told) add(_ *nats.Conn, _ *nats.Subscription, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.text = append(r.text, err.Error())
}

// after waits for the refusal of a subject that nobody may use, which the server
// tells after all that came before it, and returns what was refused.
func (r *told) after(t *testing.T, what, sentinel string) map[string]bool {
	t.Helper()
	refused := map[string]bool{}
	enginetest.Eventually(t, "the refusal of "+sentinel, func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, s := range r.text {
			if i := strings.Index(s, what+` "`); i >= 0 {
				subject, _, _ := strings.Cut(s[i+len(what)+2:], `"`)
				refused[strings.ToUpper(subject)] = true
			}
		}
		if !refused[strings.ToUpper(sentinel)] {
			return errors.New("not yet")
		}
		return nil
	})
	return refused
}

func (d *deployment) dial(t *testing.T, user string, more ...nats.Option) (*nats.Conn, *told) {
	t.Helper()
	r := &told{}
	opts := append(natsfeed.Options(user, "test", nil), natsfeed.Credentials(d.ids.Creds(user)),
		nats.RootCAs(d.path("tls", authority.CAFile)), nats.ErrorHandler(r.add))
	var nc *nats.Conn
	enginetest.Eventually(t, "a connection of "+user, func() (err error) {
		nc, err = nats.Connect(d.natsURL(""), append(opts, append(more, nats.RetryOnFailedConnect(false))...)...)
		return err
	})
	t.Cleanup(nc.Close)
	return nc, r
}

// The users, in the order of the columns below.
var users = []string{identity.Revocation, identity.ControlReader, identity.Issuer, identity.Rotator, identity.Monitor, identity.BreakGlass, ownGuard}

// rights is who may do what: every subject and every operation of JetStream on
// every stream. SELF is the user's own name, OTHER somebody else's. A line of
// operations has a stream: read, manage and ruin are those of operations below.
const rights = `
                                     revocation control-reader issuer rotator monitor break-glass guard
publish quash.log.tick                   x            .           .      .       .        .         .
publish quash.log.entry.E                x            .           .      .       .        .         .
publish quash.log.epoch                  x            .           .      .       .        .         .
publish quash.feed.tick                  .            .           .      .       .        .         .
publish quash.feed.ask                   x            .           .      .       .        .         .
publish quash.audit.x                    x            .           .      .       .        .         .
publish quash.guard.SELF.sync            x            .           x      x       .        .         x
publish quash.guard.SELF.page.R          x            .           x      x       .        .         x
publish quash.guard.SELF.report          x            .           x      x       .        .         x
publish quash.guard.SELF.attempts        x            .           x      x       .        .         x
publish quash.guard.SELF.running         x            .           x      x       .        .         x
publish quash.guard.SELF.seen.R          x            .           x      x       .        .         x
publish quash.guard.revocation.heard.R   x            .           .      .       .        .         .
publish quash.guard.OTHER.sync           .            .           .      .       .        .         .
publish quash.guard.OTHER.join           .            .           .      .       .        .         .
publish quash.guard.OTHER.out            .            .           .      .       .        .         .
publish quash.guard.OTHER.report         .            .           .      .       .        .         .
publish quash.guard.OTHER.attempts       .            .           .      .       .        .         .
publish quash.guard.OTHER.running        .            .           .      .       .        .         .
publish quash.guard.OTHER.seen.R         .            .           .      .       .        .         .
publish quash.commit.issuer              .            .           x      .       .        .         .
publish quash.commit.rotator             .            .           .      x       .        .         .
publish quash.commit.rotator.key         .            .           .      x       .        .         .
publish quash.commit.OTHER               .            .           .      .       .        .         .
publish quash.api.revocation.x           .            .           .      .       .        .         x
publish quash.api.rotation.x             .            .           .      .       .        .         x
publish quash.api.issuer.x               .            .           .      .       .        .         x
publish quash.records.issuer.x           .            x           .      .       .        .         .
publish quash.records.issuer.leaked      .            x           .      x       .        .         .
publish quash.keys.issuer.x              .            .           .      x       .        .         .
publish quash.event.issuer.default.x     .            .           x      .       .        .         .
publish quash.event.OTHER                .            .           .      .       .        .         .
publish quash.break-glass.revocation.x   .            .           .      .       .        x         .
publish quash.break-glass.rotation.x     .            .           .      .       .        x         .
publish quash.break-glass.issuer.x       .            .           .      .       .        x         .
publish _INBOX_OTHER.x                   .            .           .      .       .        .         .
publish _R_.x                            .            .           .      .       .        .         .
publish $SRV.PING                        .            .           .      .       .        .         .
publish $SYS.REQ.SERVER.PING.JSZ         .            .           .      .       x        .         .
publish $SYS.REQ.SERVER.PING.HEALTHZ     .            .           .      .       x        .         .
publish $SYS.REQ.SERVER.PING.CONNZ       .            .           .      .       .        .         .
publish $SYS.REQ.SERVER.PING.ACCOUNTZ    .            .           .      .       .        .         .
publish $SYS.REQ.CLAIMS.UPDATE           .            .           .      .       .        .         .
publish $SYS.REQ.SERVER.X.RELOAD         .            .           .      .       .        .         .
publish $JS.API.INFO                     x            x           x      x       .        .         .
publish $JS.API.STREAM.NAMES             .            .           .      .       .        .         .
publish $JS.API.STREAM.LIST              .            .           .      .       .        .         .
publish $JS.API.ACCOUNT.PURGE.X          .            .           .      .       .        .         .
publish $JS.API.SERVER.REMOVE            .            .           .      .       .        .         .
publish $JS.API.META.LEADER.STEPDOWN     .            .           .      .       .        .         .
publish $JS.API.STREAM.CREATE.OTHER      .            .           .      .       .        .         .
publish $KV.tenants.x                    .            .           x      .       .        .         .
publish $KV.users.x                      .            .           x      .       .        .         .
publish $KV.keys.x                       .            .           x      .       .        .         .
publish $KV.bindings.x                   .            .           x      .       .        .         .
publish $KV.uses.x                       .            .           x      .       .        .         .
publish $KV.deliveries.x                 .            .           x      .       .        .         .
publish $KV.signing_keys.x               .            .           .      x       .        .         .
publish $KV.rotations.x                  .            .           .      x       .        .         .
publish $KV.schedules.x                  .            .           .      x       .        .         .
publish $KV.receipts.x                   x            .           .      .       .        .         .
publish $KV.incidents.x                  x            .           .      .       .        .         .
publish $KV.pending.x                    x            .           .      .       .        .         .
read QUASH_LOG                           x            .           .      .       .        .         .
read QUASH_AUDIT                         x            .           .      .       .        .         .
read KV_receipts                         x            .           .      .       .        .         .
read KV_incidents                        x            .           .      .       .        .         .
read KV_pending                          x            .           .      .       .        .         .
read KV_tenants                          .            x           x      x       .        .         .
read KV_clients                          .            x           x      .       .        .         .
read KV_users                            .            x           x      .       .        .         .
read KV_keys                             .            x           x      .       .        .         .
read KV_sessions                         .            x           x      .       .        .         .
read KV_codes                            .            x           x      .       .        .         .
read KV_roles                            .            x           x      .       .        .         .
read KV_bindings                         .            x           x      .       .        .         .
read KV_uses                             .            x           x      .       .        .         .
read KV_deliveries                       .            .           x      .       .        .         .
read KV_signing_keys                     .            x           x      x       .        .         .
read KV_schedules                        .            x           .      x       .        .         .
read KV_rotations                        .            x           .      x       .        .         .
manage QUASH_LOG                         x            .           .      .       .        .         .
manage QUASH_AUDIT                       x            .           .      .       .        .         .
manage KV_receipts                       x            .           .      .       .        .         .
manage KV_incidents                      x            .           .      .       .        .         .
manage KV_pending                        x            .           .      .       .        .         .
manage KV_tenants                        .            .           x      .       .        .         .
manage KV_users                          .            .           x      .       .        .         .
manage KV_keys                           .            .           x      .       .        .         .
manage KV_bindings                       .            .           x      .       .        .         .
manage KV_uses                           .            .           x      .       .        .         .
manage KV_deliveries                     .            .           x      .       .        .         .
manage KV_signing_keys                   .            .           .      x       .        .         .
manage KV_schedules                      .            .           .      x       .        .         .
manage KV_rotations                      .            .           .      x       .        .         .
ruin QUASH_LOG                           .            .           .      .       .        .         .
ruin QUASH_AUDIT                         .            .           .      .       .        .         .
ruin KV_receipts                         .            .           .      .       .        .         .
ruin KV_incidents                        .            .           .      .       .        .         .
ruin KV_pending                          .            .           .      .       .        .         .
ruin KV_keys                             .            .           .      .       .        .         .
ruin KV_deliveries                       .            .           .      .       .        .         .
ruin KV_signing_keys                     .            .           .      .       .        .         .
listen quash.feed.>                      x            .           x      x       .        .         x
listen quash.log.>                       .            .           .      .       .        .         .
listen quash.guard.*.probe               x            .           .      .       .        .         .
listen quash.guard.SELF.report           x            .           .      .       .        .         .
listen quash.guard.SELF.attempts         x            .           .      .       .        .         .
listen quash.guard.*.seen.R              x            .           .      .       .        .         .
listen quash.guard.revocation.heard.*    x            .           .      .       .        .         .
listen quash.commit.*                    x            .           .      .       .        .         .
listen quash.api.revocation.*            x            .           .      .       .        .         .
listen quash.api.rotation.*              .            .           .      x       .        .         .
listen quash.api.issuer.*                .            .           x      .       .        .         .
listen quash.keys.issuer.*               .            .           x      .       .        .         .
listen quash.break-glass.revocation.*    x            .           .      .       .        .         .
listen quash.break-glass.rotation.*      .            .           .      x       .        .         .
listen quash.break-glass.issuer.*        .            .           x      .       .        .         .
listen quash.records.issuer.*            .            .           x      .       .        .         .
listen quash.event.>                     .            x           .      .       .        .         .
listen _INBOX_SELF.>                     x            x           x      x       x        x         x
listen _INBOX_OTHER.>                    .            .           .      .       .        .         .
listen _INBOX_OTHER.x                    .            .           .      .       .        .         .
listen _INBOX.>                          .            .           .      .       .        .         .
listen $SRV.PING                         x            .           x      x       .        .         .
listen $KV.keys.>                        .            .           .      .       .        .         .
listen $KV.signing_keys.>                .            .           .      .       .        .         .
listen $JS.API.>                         .            .           .      .       .        .         .
listen $SYS.>                            .            .           .      .       .        .         .
listen _R_.>                             .            .           .      .       .        .         .
listen >                                 .            .           .      .       .        .         .
listen *                                 .            .           .      .       .        .         .
`

// operations are those of JetStream on one stream.
var operations = map[string][]string{
	"read": {
		"$JS.API.STREAM.INFO.{S}", "$JS.API.STREAM.MSG.GET.{S}", "$JS.API.DIRECT.GET.{S}", "$JS.API.DIRECT.GET.{S}.x", "$JS.API.CONSUMER.CREATE.{S}",
		"$JS.API.CONSUMER.CREATE.{S}.c", "$JS.API.CONSUMER.CREATE.{S}.c.f", "$JS.API.CONSUMER.INFO.{S}.c", "$JS.API.CONSUMER.DELETE.{S}.c",
		"$JS.API.CONSUMER.MSG.NEXT.{S}.c", "$JS.ACK.{S}.c.1.1.1.1.1", "$JS.FC.{S}.c.x",
	},
	"manage": {"$JS.API.STREAM.CREATE.{S}", "$JS.API.STREAM.UPDATE.{S}"},
	"ruin": {
		"$JS.API.STREAM.DELETE.{S}", "$JS.API.STREAM.PURGE.{S}", "$JS.API.STREAM.MSG.DELETE.{S}", "$JS.API.STREAM.SNAPSHOT.{S}", "$JS.API.STREAM.RESTORE.{S}",
		"$JS.API.STREAM.PEER.REMOVE.{S}", "$JS.API.STREAM.LEADER.STEPDOWN.{S}", "$JS.API.CONSUMER.DURABLE.CREATE.{S}.c", "$JS.API.CONSUMER.PAUSE.{S}.c",
		"$JS.API.CONSUMER.LEADER.STEPDOWN.{S}.c", "$JS.API.CONSUMER.UNPIN.{S}.c", "$JS.API.CONSUMER.LIST.{S}", "$JS.API.CONSUMER.NAMES.{S}", "$JS.SNAPSHOT.ACK.{S}.x",
	},
}

// row is one subject, and which users may use it.
type row struct {
	listen  bool
	subject string
	who     []bool
}

func table(t *testing.T) (rows []row) {
	t.Helper()
	for line := range strings.Lines(rights) {
		f := strings.Fields(line)
		if len(f) != 2+len(users) {
			continue // the head
		}
		who := make([]bool, len(users))
		for i, mark := range f[2:] {
			who[i] = mark == "x"
		}
		switch f[0] {
		case "publish", "listen":
			rows = append(rows, row{f[0] == "listen", f[1], who})
		default:
			if operations[f[0]] == nil {
				t.Fatalf("no such operation: %s", line)
			}
			for _, op := range operations[f[0]] {
				rows = append(rows, row{false, strings.ReplaceAll(op, "{S}", f[1]), who})
			}
		}
	}
	return rows
}

func other(user string) string {
	if user == demoGuard(1) {
		return demoGuard(2)
	}
	return demoGuard(1)
}

// TestEveryIdentityHasTheseRightsAndNoOthers tries all of the table.
func TestEveryIdentityHasTheseRightsAndNoOthers(t *testing.T) {
	d := engines(t)
	rows := table(t)
	if len(rows) < 300 {
		t.Fatalf("only %d rows: the table was not read", len(rows))
	}
	t.Run("NATS", func(t *testing.T) { d.tryNATS(t, rows) })
	t.Run("consumers", d.tryConsumers)
	t.Run("Redis", d.tryRedis)
}

func (d *deployment) tryNATS(t *testing.T, rows []row) {
	for i, user := range users {
		nc, refusals := d.dial(t, user)
		fill := strings.NewReplacer("SELF", user, "OTHER", other(user))
		for _, r := range rows {
			subject := fill.Replace(r.subject)
			var err error
			if r.listen {
				_, err = nc.Subscribe(subject, func(*nats.Msg) {})
			} else {
				err = nc.Publish(subject, nil)
			}
			if err != nil {
				t.Fatalf("%s: %s: %v", user, subject, err)
			}
		}
		const sentinel = "sentinel.of.the.test"
		if _, err := nc.Subscribe(sentinel, func(*nats.Msg) {}); err != nil {
			t.Fatal(err)
		}
		if err := nc.Publish(sentinel, nil); err != nil {
			t.Fatal(err)
		}
		byWay := map[bool]map[string]bool{
			false: refusals.after(t, "Publish to", sentinel), true: refusals.after(t, "Subscription to", sentinel),
		}
		for _, r := range rows {
			subject := fill.Replace(r.subject)
			if may := !byWay[r.listen][strings.ToUpper(subject)]; may != r.who[i] {
				t.Errorf("%s: %s (listen %t): allowed %t, want %t", user, subject, r.listen, may, r.who[i])
			}
		}
	}
}

// tryConsumers uses the right to create a consumer to make the server publish
// where the user itself may not (nats-server issue 8274).
func (d *deployment) tryConsumers(t *testing.T) {
	made := d.streams(t)
	victims := []string{
		wire.LogTick, wire.LogEntry + "E", wire.FeedPrefix + "tick", wire.GuardSubject(ownGuard, wire.OpReport), wire.GuardSubject(ownGuard, wire.OpProbe),
		wire.CommitPrefix + "rotator", wire.APIRevocation + "revocations", wire.BreakGlassRevocation + "release", wire.BreakGlassIssuer + "operator",
		identity.InboxPrefix(ownGuard) + ".x", "$KV.signing_keys.forged", "$KV.keys.forged",
	}
	heard := d.ears(t)
	own := make(chan struct{}, 8)
	for _, user := range []string{identity.Issuer, identity.Rotator, identity.ControlReader} {
		nc, _ := d.dial(t, user)
		if _, err := nc.Subscribe(identity.InboxPrefix(user)+".own", func(*nats.Msg) { own <- struct{}{} }); err != nil {
			t.Fatal(err)
		}
		stream := "KV_signing_keys"
		for i, subject := range append(victims, identity.InboxPrefix(user)+".own") {
			if strings.HasPrefix(subject, "$KV.signing_keys") && user == identity.Rotator || strings.HasPrefix(subject, "$KV.keys") && user == identity.Issuer {
				continue // its own bucket
			}
			body := fmt.Sprintf(`{"stream_name":%q,"config":{"name":"%s-%d","deliver_subject":%q,"deliver_policy":"all","ack_policy":"none","replay_policy":"instant"}}`, stream, user, i, subject)
			_, err := nc.Request(fmt.Sprintf("$JS.API.CONSUMER.CREATE.%s.%s-%d", stream, user, i), []byte(body), 5*time.Second)
			if err != nil {
				t.Fatalf("%s: %v", user, err)
			}
			// Refused or not: what counts is what arrives.
		}
	}
	for range 3 { // consumers do deliver, each to its maker
		select {
		case <-own:
		case <-time.After(enginetest.Patience()):
			t.Fatal("no consumer delivers anything: this test shows nothing")
		}
	}
	time.Sleep(500 * time.Millisecond) // a delivery that must not come can only be waited for
	for _, h := range heard() {
		t.Errorf("a consumer reached %s", h)
	}
	for name, want := range map[string]uint64{wire.Stream: 0, "KV_keys": 1, "KV_signing_keys": 1} {
		s, err := made[name].Stream(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if n := s.CachedInfo().State.Msgs; n != want {
			t.Errorf("consumers have written to %s: %d messages, want %d", name, n, want)
		}
	}
}

// streams makes the log and two buckets as the services do, with something in.
func (d *deployment) streams(t *testing.T) map[string]jetstream.JetStream {
	t.Helper()
	make := func(user string, cfg jetstream.StreamConfig) jetstream.JetStream {
		nc, _ := d.dial(t, user)
		js, err := jetstream.New(nc)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Replicas = natsNodes
		enginetest.Eventually(t, "stream "+cfg.Name, func() error {
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			_, err := js.CreateOrUpdateStream(ctx, cfg)
			return err
		})
		return js
	}
	log := make(identity.Revocation, jetstream.StreamConfig{
		Name: wire.Stream, Subjects: []string{wire.LogAll}, AllowMsgTTL: true,
		RePublish: &jetstream.RePublish{Source: wire.LogAll, Destination: wire.FeedAll, HeadersOnly: true},
	})
	keys := make(identity.Issuer, jetstream.StreamConfig{Name: "KV_keys", Subjects: []string{"$KV.keys.>"}})
	signing := make(identity.Rotator, jetstream.StreamConfig{Name: "KV_signing_keys", Subjects: []string{"$KV.signing_keys.>"}})
	for subject, js := range map[string]jetstream.JetStream{"$KV.keys.a": keys, "$KV.signing_keys.a": signing} {
		if _, err := js.Publish(t.Context(), subject, []byte("bait")); err != nil {
			t.Fatal(err)
		}
	}
	return map[string]jetstream.JetStream{wire.Stream: log, "KV_keys": keys, "KV_signing_keys": signing}
}

// ears listen as everybody who would act on what a consumer delivers, as the
// services and guards do: with wildcards.
func (d *deployment) ears(t *testing.T) func() []string {
	t.Helper()
	var mu sync.Mutex
	var heard []string
	for user, subjects := range map[string][]string{
		identity.Revocation: {"quash.guard.*." + wire.OpReport, "quash.guard.*." + wire.OpProbe, wire.CommitPrefix + "*", wire.APIRevocation + "*", wire.BreakGlassRevocation + "*", wire.FeedAll},
		identity.Rotator:    {wire.APIRotation + "*", wire.BreakGlassRotation + "*", wire.FeedAll},
		identity.Issuer:     {wire.APIIssuer + "*", wire.BreakGlassIssuer + "*", wire.KeysIssuer + "*", wire.FeedAll},
		ownGuard:            {wire.FeedAll, identity.InboxPrefix(ownGuard) + ".>"},
	} {
		nc, _ := d.dial(t, user)
		for _, subject := range subjects {
			if _, err := nc.Subscribe(subject, func(m *nats.Msg) {
				mu.Lock()
				defer mu.Unlock()
				heard = append(heard, fmt.Sprintf("%s on %s: %q", user, m.Subject, m.Data))
			}); err != nil {
				t.Fatal(err)
			}
		}
		if err := nc.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(heard)
	}
}

// redisCommands are all commands that a Redis user may give, by user.
var redisCommands = map[string]string{
	"quash-writer": "get mget set del scan watch unwatch multi exec info dbsize ping hello auth client|setname cluster|slots cluster|shards command",
	"quash-reader": "mget get ping hello auth client|setname cluster|slots cluster|shards command",
}

func (d *deployment) tryRedis(t *testing.T) {
	secure, err := trusted(d.path("tls", authority.CAFile))
	if err != nil {
		t.Fatal(err)
	}
	for user, password := range map[string]string{"quash-writer": d.settings.RedisWriter, "quash-reader": d.settings.RedisReader} {
		opts, err := redis.ParseURL(d.redisURL("", user, password))
		if err != nil {
			t.Fatal(err)
		}
		opts.TLSConfig = secure
		opts.DisableIdentity, opts.MaxRetries = true, -1
		c := redis.NewClient(opts)
		t.Cleanup(func() { _ = c.Close() })
		var all []any
		enginetest.Eventually(t, "the commands of Redis", func() (err error) {
			all, err = c.Do(t.Context(), "COMMAND").Slice()
			return err
		})
		words := map[string]int{}
		for _, info := range all {
			maps.Copy(words, commandsOf(info.([]any)))
		}
		if len(words) < 300 {
			t.Fatalf("Redis knows %d commands", len(words))
		}
		for name, may := range mayRun(t, c, words) {
			if want := slices.Contains(strings.Fields(redisCommands[user]), name) || strings.HasPrefix(name, "command|"); may != want {
				t.Errorf("%s: %s: allowed %t, want %t", user, name, may, want)
			}
		}
	}
}

// always are what everybody may: they change nothing but the own connection.
var always = map[string]bool{"quit": true, "reset": true}

// commandsOf returns a command or its subcommands, each with how many words it has.
func commandsOf(info []any) map[string]int {
	out := map[string]int{}
	if len(info) > 9 {
		if subs, ok := info[9].([]any); ok && len(subs) > 0 {
			for _, s := range subs {
				for name, arity := range commandsOf(s.([]any)) {
					out[name] = arity
				}
			}
			return out
		}
	}
	arity := info[1].(int64)
	out[strings.ToLower(info[0].(string))] = int(max(arity, -arity))
	return out
}

// mayRun tries every command, and tells which were not refused.
func mayRun(t *testing.T, c *redis.Client, words map[string]int) map[string]bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	out := map[string]bool{}
	names := slices.Sorted(maps.Keys(words))
	// Within a transaction other things are refused first.
	names = append(slices.DeleteFunc(names, func(s string) bool { return always[s] || s == "multi" }), "multi")
	for _, name := range names {
		var args []any
		for _, w := range strings.Split(name, "|") {
			args = append(args, w)
		}
		for len(args) < words[name] {
			args = append(args, "{q0}:x")
		}
		err := c.Do(ctx, args...).Err()
		if answer := redis.Error(nil); err != nil && !errors.As(err, &answer) {
			t.Errorf("%s: no answer: %v", name, err)
		}
		// What a server's own configuration forbids to everybody is refused too.
		out[name] = err == nil || !strings.Contains(err.Error(), "NOPERM") && !strings.Contains(err.Error(), "command not allowed")
	}
	return out
}
