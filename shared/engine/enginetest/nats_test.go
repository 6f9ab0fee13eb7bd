package enginetest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/identity"
)

func makeLog(t testing.TB, n *NATSServer) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(n.Conn(t, identity.Revocation))
	if err != nil {
		t.Fatal(err)
	}
	_, err = js.CreateOrUpdateStream(t.Context(), jetstream.StreamConfig{
		Name: wire.Stream, Subjects: []string{wire.LogAll}, AllowMsgTTL: true, AllowDirect: true,
		RePublish: &jetstream.RePublish{Source: wire.LogAll, Destination: wire.FeedAll, HeadersOnly: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	return js
}

// refused collects the permission errors that a connection is told.
type refused struct {
	mu   sync.Mutex
	text []string
}

func (r *refused) option() nats.Option {
	return nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.text = append(r.text, err.Error())
	})
}

func (r *refused) names(subject string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.text {
		if strings.Contains(s, "\""+subject+"\"") {
			return true
		}
	}
	return false
}

func TestGuardCanReadAndReportAndNothingElse(t *testing.T) {
	n := NATS(t)
	makeLog(t, n)
	var told refused
	guard := n.Dial(t, "orders", told.option())

	for _, subject := range []string{
		wire.LogTick, wire.LogEntry + "x", wire.FeedPrefix + "tick", wire.CommitPrefix + "issuer", wire.CommitPrefix + "orders",
		wire.GuardPrefix + "billing." + wire.OpReport, wire.GuardPrefix + "issuer." + wire.OpJoin,
		"$JS.API.INFO", "$JS.API.STREAM.INFO." + wire.Stream, "$JS.API.CONSUMER.CREATE." + wire.Stream, "$KV.keys.x", "_INBOX_billing.x",
	} {
		if err := guard.Publish(subject, []byte("x")); err != nil {
			t.Fatal(err)
		}
		Eventually(t, "refusal of publishing to "+subject, func() error { return told.want(subject) })
	}
	for _, subject := range []string{
		">", "_INBOX_billing.>", "_INBOX_*.>", wire.LogAll, wire.GuardPrefix + ">", wire.GuardPrefix + "orders.>",
		wire.CommitPrefix + ">", wire.APIIssuer + ">", "$SYS.>", "$JS.>", "_R_.>",
	} {
		if _, err := guard.SubscribeSync(subject); err != nil {
			t.Fatal(err)
		}
		Eventually(t, "refusal of subscribing to "+subject, func() error { return told.want(subject) })
	}
}

func (r *refused) want(subject string) error {
	if !r.names(subject) {
		return errors.New("not refused so far")
	}
	return nil
}

func TestFeedCrossesAccountsHeadersOnly(t *testing.T) {
	n := NATS(t)
	js := makeLog(t, n)
	subs := map[string]*nats.Subscription{}
	for _, name := range []string{"orders", identity.Issuer, identity.Rotator, identity.Revocation} {
		c := n.Conn(t, name)
		sub, err := c.SubscribeSync(wire.FeedAll)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Flush(); err != nil {
			t.Fatal(err)
		}
		subs[name] = sub
	}
	m := nats.NewMsg(wire.LogTick)
	m.Header.Set(wire.Header, `{"kind":"tick"}`)
	m.Data = []byte("who and why")
	ack, err := js.PublishMsg(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	for name, sub := range subs {
		got, err := sub.NextMsg(time.Minute)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got.Subject != wire.FeedPrefix+"tick" || len(got.Data) != 0 || got.Header.Get(wire.Header) != `{"kind":"tick"}` {
			t.Errorf("%s got %q with header %q and body %q", name, got.Subject, got.Header, got.Data)
		}
		if seq := got.Header.Get("Nats-Sequence"); seq != fmt.Sprint(ack.Sequence) {
			t.Errorf("%s got sequence %q, want %d", name, seq, ack.Sequence)
		}
	}
}

func TestRequestsReachTheService(t *testing.T) {
	n := NATS(t)
	serve := func(service, subject string) {
		c := n.Conn(t, service)
		if _, err := c.QueueSubscribe(subject, "q", func(m *nats.Msg) { _ = m.Respond([]byte(service + " " + m.Subject)) }); err != nil {
			t.Fatal(err)
		}
		if err := c.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	serve(identity.Revocation, "quash.guard.*.sync")
	serve(identity.Revocation, "quash.commit.*")
	serve(identity.Revocation, "quash.api.revocation.*")
	serve(identity.Rotator, "quash.api.rotation.*")
	serve(identity.Issuer, "quash.api.issuer.*")
	for _, c := range []struct{ user, subject, service string }{
		{"orders", "quash.guard.orders.sync", identity.Revocation},
		{"orders", "quash.api.revocation.revocations", identity.Revocation},
		{"orders", "quash.api.rotation.rotations", identity.Rotator},
		{"orders", "quash.api.issuer.keys", identity.Issuer},
		{identity.Issuer, "quash.guard.issuer.sync", identity.Revocation},
		{identity.Rotator, "quash.guard.rotator.sync", identity.Revocation},
		{identity.Issuer, "quash.commit.issuer", identity.Revocation},
		{identity.Rotator, "quash.commit.rotator", identity.Revocation},
	} {
		t.Run(c.user+" "+c.subject, func(t *testing.T) {
			got, err := n.Conn(t, c.user).Request(c.subject, nil, 5*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			if want := c.service + " " + c.subject; string(got.Data) != want {
				t.Errorf("answered %q, want %q", got.Data, want)
			}
		})
	}
}

func TestServicesReachTheirStreamsOnly(t *testing.T) {
	n := NATS(t)
	makeLog(t, n)
	ctx := t.Context()
	for service, buckets := range identity.Buckets {
		js, err := jetstream.New(n.Conn(t, service))
		if err != nil {
			t.Fatal(err)
		}
		for _, bucket := range buckets {
			kv, err := js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: bucket, History: 8, LimitMarkerTTL: time.Minute})
			if err != nil {
				t.Fatalf("%s makes %s: %v", service, bucket, err)
			}
			rev, err := kv.Create(ctx, "k", []byte("1"), jetstream.KeyTTL(time.Hour))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := kv.Update(ctx, "k", []byte("2"), rev); err != nil {
				t.Fatal(err)
			}
			if e, err := kv.Get(ctx, "k"); err != nil || string(e.Value()) != "2" {
				t.Fatalf("%s reads %s: %v", service, bucket, err)
			}
			w, err := kv.WatchAll(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if e := <-w.Updates(); string(e.Value()) != "2" {
				t.Fatalf("watch of %s gave %v", bucket, e)
			}
			_ = w.Stop()
			if err := kv.Delete(ctx, "k"); err != nil {
				t.Fatal(err)
			}
		}
	}
	mustFail := func(what, user string, try func(context.Context, jetstream.JetStream) error) {
		t.Helper()
		js, err := jetstream.New(n.Conn(t, user))
		if err != nil {
			t.Fatal(err)
		}
		short, cancel := context.WithTimeout(ctx, 150*time.Millisecond)
		defer cancel()
		if try(short, js) == nil {
			t.Errorf("%s may %s", user, what)
		}
	}
	write := func(subject string) func(context.Context, jetstream.JetStream) error {
		return func(ctx context.Context, js jetstream.JetStream) error {
			_, err := js.Publish(ctx, subject, []byte("x"))
			return err
		}
	}
	mustFail("write the issuer's bucket", identity.Rotator, write("$KV.keys.x"))
	mustFail("write the rotator's bucket", identity.Issuer, write("$KV.signing_keys.x"))
	mustFail("write a bucket", identity.ControlReader, write("$KV.keys.x"))
	mustFail("write the log", identity.Issuer, write(wire.LogTick))
	mustFail("delete the log", identity.Revocation, func(ctx context.Context, js jetstream.JetStream) error {
		return js.DeleteStream(ctx, wire.Stream)
	})

	reader, err := jetstream.New(n.Conn(t, identity.ControlReader))
	if err != nil {
		t.Fatal(err)
	}
	cons, err := reader.OrderedConsumer(ctx, "KV_keys", jetstream.OrderedConsumerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cons.Next(); err != nil {
		t.Fatalf("control-reader can't read the history of a bucket: %v", err)
	}
}

func TestRestartKeepsWhatWasAcknowledged(t *testing.T) {
	n := NATS(t)
	js := makeLog(t, n)
	if _, err := js.Publish(t.Context(), wire.LogTick, []byte("x")); err != nil {
		t.Fatal(err)
	}
	n.Restart(t)
	Eventually(t, "the log after a restart", func() error {
		s, err := js.Stream(t.Context(), wire.Stream)
		if err != nil {
			return err
		}
		if got := s.CachedInfo().State.Msgs; got != 1 {
			return fmt.Errorf("%d messages, want 1", got)
		}
		return nil
	})
}

func TestMonitorSeesThatWritesAreSynced(t *testing.T) {
	n := NATS(t)
	got, err := n.Conn(t, identity.Monitor).Request("$SYS.REQ.SERVER.PING.JSZ", nil, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(got.Data), `"sync_always":true`) {
		t.Errorf("jsz does not say sync_always: %s", got.Data)
	}
}

func TestRedisIsRealAndEmptyAfterRestart(t *testing.T) {
	r := Redis(t)
	ctx := t.Context()
	if err := r.Client.Set(ctx, "a", "b", 0).Err(); err != nil {
		t.Fatal(err)
	}
	r.Restart(t)
	if size, err := r.Client.DBSize(ctx).Result(); err != nil || size != 0 {
		t.Errorf("after a restart: %d keys, %v", size, err)
	}
}
