package doctor

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/quash-project/quash/shared/guard/natsfeed"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/identity"
)

const natsTime = 5 * time.Second

// nats looks at each server by itself, and then at what is the same on all.
func (d *doctor) nats(ctx context.Context) []Finding {
	if d.NATSURL == "" {
		return []Finding{unseen("NATS", "set QUASH_NATS_URL and QUASH_NATS_CREDS to what a guard here would use")}
	}
	var found []Finding
	if d.Creds == "" {
		found = append(found, unseen("NATS rights", "set QUASH_NATS_CREDS to the credentials of a guard"))
	}
	creds := firstOf(d.Creds, d.MonitorCreds, d.RevocationCreds)
	if creds == "" {
		return append(found, unseen("NATS servers", "they let nobody in without credentials"))
	}
	var first string
	for _, server := range strings.Split(d.NATSURL, ",") {
		server = strings.TrimSpace(server)
		nc, fs := d.server(server, creds)
		found = append(found, fs...)
		if nc == nil {
			continue
		}
		nc.Close()
		if first == "" {
			first = server
		}
	}
	if first == "" {
		return found
	}
	if d.Creds != "" {
		found = append(found, d.rights(ctx, first)...)
	}
	servers, fs := d.monitor(ctx, first)
	return slices.Concat(found, fs, d.stream(ctx, first, servers), records(servers))
}

func firstOf(texts ...string) string {
	i := slices.IndexFunc(texts, func(s string) bool { return s != "" })
	if i < 0 {
		return ""
	}
	return texts[i]
}

// dial connects to this one server, as who the credentials are of.
func dial(server, creds string) (nc *nats.Conn, user string, err error) {
	data, err := os.ReadFile(creds)
	if err != nil {
		return nil, "", err
	}
	if user, err = natsfeed.UserName(data); err != nil {
		return nil, "", fmt.Errorf("%s: %w", creds, err)
	}
	nc, err = nats.Connect(server, nats.Name("quash doctor"), nats.Timeout(natsTime), nats.NoReconnect(), nats.IgnoreDiscoveredServers(),
		nats.PermissionErrOnSubscribe(true), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}), // each try asks for itself
		natsfeed.Credentials(creds), nats.CustomInboxPrefix(identity.InboxPrefix(user)))
	if bad := (*url.Error)(nil); errors.As(err, &bad) {
		err = bad.Err // its text has the URL, with a password if there is one
	}
	return nc, user, err
}

func (d *doctor) server(server, creds string) (*nats.Conn, []Finding) {
	where := host(server)
	nc, _, err := dial(server, creds)
	if err != nil {
		if f, is := untrusted(where, err); is {
			return nil, []Finding{f}
		}
		mend := "start that nats-server, or take it out of QUASH_NATS_URL and of what guards and services are given"
		if errors.Is(err, nats.ErrAuthorization) || errors.Is(err, os.ErrNotExist) {
			mend = "use credentials of the quash nats init whose accounts.conf this server includes"
		}
		return nil, []Finding{wrong("NATS "+where, mend, err)}
	}
	rtt, err := nc.RTT()
	if err != nil {
		nc.Close()
		return nil, []Finding{wrong("NATS "+where, "look at that nats-server's log", err)}
	}
	found := []Finding{good("NATS "+where, "answers in %s", rtt.Round(10*time.Microsecond))}
	if s, err := nc.TLSConnectionState(); err == nil {
		return nc, append(found, certificate(where, &s, d.Now()))
	}
	return nc, append(found, certificate(where, nil, d.Now()))
}

// rights tries what a guard does, and what it must not be able to.
func (d *doctor) rights(ctx context.Context, server string) []Finding {
	const check, mend = "NATS rights", "make it anew: quash nats user add guard NAME; and let every server include the accounts.conf of quash nats init as it is"
	nc, user, err := dial(server, d.Creds)
	if err != nil {
		return []Finding{wrong(check, mend, err)}
	}
	defer nc.Close()
	if slices.Contains(identity.Services(), user) {
		return []Finding{unseen(check, fmt.Sprintf("QUASH_NATS_CREDS are those of %s: give those of a guard", user))}
	}
	var errs []error
	for _, may := range []string{wire.FeedAll, nc.NewInbox()} {
		if err := subscribe(nc, may); err != nil {
			errs = append(errs, fmt.Errorf("can't listen to %s: %w", may, err))
		}
	}
	for _, mayNot := range []string{wire.LogAll, wire.GuardPrefix + ">", identity.InboxPrefix(identity.Revocation) + ".>", ">"} {
		if err := subscribe(nc, mayNot); err == nil {
			errs = append(errs, fmt.Errorf("can listen to %s, which is not a guard's", mayNot))
		} else if !errors.Is(err, nats.ErrPermissionViolation) {
			errs = append(errs, err)
		}
	}
	// Only asks: whoever may ask this may ask JetStream for more.
	if _, err := nc.Request("$JS.API.INFO", nil, time.Second); err == nil || errors.Is(err, nats.ErrNoResponders) {
		errs = append(errs, errors.New("can ask JetStream, as no guard may"))
	}
	found := []Finding{good(check, "%s hears the feed, and no more than a guard may", user)}
	if err := errors.Join(errs...); err != nil {
		found[0] = wrong(check, mend, fmt.Errorf("%s %s", user, strings.ReplaceAll(err.Error(), "\n", "; ")))
	}
	return append(found, d.log(ctx, nc, user))
}

// subscribe tells whether the server lets the connection listen there.
func subscribe(nc *nats.Conn, subject string) error {
	sub, err := nc.SubscribeSync(subject)
	if err != nil {
		return err
	}
	defer func() { _ = sub.Unsubscribe() }() // the connection ends soon
	if err := nc.FlushTimeout(natsTime); err != nil {
		return err
	}
	_, err = sub.NextMsg(time.Millisecond)
	if errors.Is(err, nats.ErrTimeout) {
		return nil
	}
	return err
}

// log asks for a commit, as a guard's probe does: nothing else shows that the log
// can commit now.
func (d *doctor) log(ctx context.Context, nc *nats.Conn, user string) Finding {
	const check = "log"
	const mend = "look at the revocation service's log, and whether a majority of the NATS servers is there"
	id, err := wire.NewID(rand.Reader)
	if err != nil {
		return wrong(check, mend, err)
	}
	body, err := json.Marshal(wire.ProbeRequest{Instance: id, Urgent: true})
	if err != nil {
		return wrong(check, mend, err)
	}
	ctx, cancel := context.WithTimeout(ctx, 2*natsTime)
	defer cancel()
	began := time.Now()
	m, err := nc.RequestWithContext(ctx, wire.GuardSubject(user, wire.OpProbe), body)
	if errors.Is(err, nats.ErrNoResponders) {
		err = errors.New("no revocation service that is ready listens")
	}
	if err != nil {
		return wrong(check, mend, err)
	}
	var a wire.ProbeAnswer
	if err := json.Unmarshal(m.Data, &a); err != nil {
		return wrong(check, mend, err)
	}
	if a.Error != nil {
		return wrong(check, mend, a.Error)
	}
	return good(check, "commits: in %s, at %d.%d", time.Since(began).Round(time.Millisecond), a.Tick.Epoch, a.Tick.Sequence)
}
