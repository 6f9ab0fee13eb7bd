package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quash-project/quash/services/issuer"
	"github.com/quash-project/quash/shared/guard"
	"github.com/quash-project/quash/shared/identity"
)

// ending is something that is taken away, while a replica of the issuer fails.
type ending struct {
	name, token string
	record      string // where it is stored
	path        string // DELETE
	look        string // GET: it is gone when this is 404, or an empty list
	role        string // what tokens must not have any more; empty: there must be none
	form        url.Values
}

// makeEnding makes one of a kind and a token that comes of it.
func (s *services) makeEnding(admin, kind string, i int) *ending {
	s.t.Helper()
	owner, role := fmt.Sprintf("dora%d", i), fmt.Sprintf("clerk%d", i)
	post := func(path string, body map[string]any, into any) {
		s.t.Helper()
		body["reason"] = "test"
		s.decode(s.api(admin, http.MethodPost, path, body), http.StatusCreated, into)
	}
	var r struct{ ID string }
	post("/v1/roles", map[string]any{"name": role, "scopes": []string{"orders:write"}}, &r)
	post("/v1/bindings", map[string]any{"subject": owner, "role": role}, &struct{}{})
	e := &ending{name: kind}
	if kind == "client" {
		var c struct {
			ID     string `json:"client_id"`
			Secret string `json:"client_secret"`
		}
		post("/v1/clients", map[string]any{"name": owner, "grants": []string{"client_credentials"}, "scopes": []string{"orders:read"}}, &c)
		e.record, e.path = "$KV.clients."+issuer.RecordKey("default", c.ID), "/v1/clients/"+c.ID
		e.look, e.form = e.path, url.Values{"grant_type": {"client_credentials"}, "client_id": {c.ID}, "client_secret": {c.Secret}}
	} else {
		var k apiKey
		post("/v1/keys", map[string]any{"owner": owner, "scopes": []string{"orders:read"}, "owner_roles": true}, &k)
		e.form = exchange(k.Secret)
		switch kind {
		case "key":
			e.record, e.path = "$KV.keys."+issuer.RecordKey("default", k.ID), "/v1/keys/"+k.ID
			e.look = e.path
		case "role":
			e.record, e.path, e.role = "$KV.roles."+issuer.RoleKey("default", role), "/v1/roles/"+role, role
			e.look = e.path
		case "binding":
			e.record, e.role = "$KV.bindings."+issuer.BindingKey("default", owner, r.ID), role
			e.look = "/v1/bindings?" + url.Values{"subject": {owner}}.Encode()
			e.path = "/v1/bindings?" + url.Values{"subject": {owner}, "role": {role}}.Encode()
		}
	}
	var tok struct {
		AccessToken string `json:"access_token"`
	}
	s.decode(s.form("/oauth/token", e.form), http.StatusOK, &tok)
	e.token = tok.AccessToken
	e.path += map[bool]string{true: "&", false: "?"}[strings.Contains(e.path, "?")] + "reason=test"
	return e
}

// at returns what picks the message of a step out of what a replica sends.
func (e *ending) at(step string) func([]byte) bool {
	return func(sent []byte) bool {
		if step == "log" {
			return bytes.Contains(sent, []byte("PUB quash.commit.issuer "))
		}
		return bytes.Contains(sent, []byte("PUB "+e.record+" ")) && bytes.Contains(sent, []byte("KV-Operation")) == (step == "finish")
	}
}

// gone reports whether the record is no more.
func (s *services) gone(admin string, e *ending) bool {
	r := s.api(admin, http.MethodGet, e.look, nil)
	var list struct{ Items *[]any }
	return r.status == http.StatusNotFound || json.Unmarshal(r.body, &list) == nil && list.Items != nil && len(*list.Items) == 0
}

// alive says what still lives of something, as a guard decides that asks first.
func (s *services) alive(g *resource, e *ending) string {
	probe := guard.Requirement{MaxStale: guard.Probe}
	if d := g.Decide(context.Background(), e.token, probe); d.Status != http.StatusUnauthorized {
		return fmt.Sprintf("its token: %d %s", d.Status, d.Reason)
	}
	if e.role != "" {
		probe.AnyRole = []string{e.role}
	}
	var tok struct {
		AccessToken string `json:"access_token"`
	}
	if r := s.form("/oauth/token", e.form); r.status == http.StatusOK && json.Unmarshal(r.body, &tok) == nil {
		if d := g.Decide(context.Background(), tok.AccessToken, probe); d.Status == http.StatusOK {
			return "a new token of it"
		}
	}
	return ""
}

// Mark, log, finish: whichever acknowledgement is lost, and whether the replica
// goes on or dies with it, the thing is dead once somebody was told so, the
// record is not removed before it is dead, and another replica finishes.
func TestPromise5LostAcknowledgements(t *testing.T) {
	t.Parallel()
	// The other replica's clock is ahead, as it may be: it takes marks up sooner.
	s := inProcess(t, clocks(map[string]*clock{identity.Issuer: clockAt(time.Minute)}))
	admin := s.token(s.operator)
	g := s.guard(guard.WithNATS(s.nats.URL, s.nats.Creds(t, "orders")))
	g.ready()
	var wg sync.WaitGroup
	var told atomic.Int64
	i := 0
	for _, kind := range []string{"key", "client", "role", "binding"} {
		for _, step := range []string{"mark", "log", "finish"} {
			for _, dies := range []bool{false, true} {
				e := s.makeEnding(admin, kind, i)
				e.name = fmt.Sprintf("%s: the answer to %q is lost, and the replica with it: %t", kind, step, dies)
				l := &line{}
				replica := s.anotherIssuer(l)
				i++
				l.arm(dies, e.at(step))
				wg.Go(func() {
					ctx, cancel := context.WithTimeout(t.Context(), 2*deadline)
					defer cancel()
					if dies { // nobody will answer
						go func() {
							select {
							case <-l.hit:
								cancel()
							case <-ctx.Done():
							}
						}()
					}
					if s.end(ctx, admin, replica.URL, g, e) {
						told.Add(1)
					}
					l.revive() // it goes on where it was, long after
					select {
					case <-l.hit:
					default:
						if step != "finish" { // the other replica may be first
							t.Errorf("%s: it was not", e.name)
						}
					}
				})
			}
		}
	}
	wg.Wait()
	if told.Load() < 8 { // a lost answer to the log, and to what comes after it, is no reason to say anything else
		t.Errorf("only %d of %d were told of success", told.Load(), i)
	}
}

// end asks a replica to end something, and watches until it has ended and the
// replica has answered, or was given up. It returns whether it said that it was
// done.
func (s *services) end(ctx context.Context, admin, replica string, g *resource, e *ending) (told bool) {
	answer := make(chan int, 1)
	go func() {
		req, err := http.NewRequestWithContext(ctx, http.MethodDelete, replica+e.path, nil)
		if err != nil {
			panic(err)
		}
		req.Header.Set("Authorization", "Bearer "+admin)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			answer <- 0
			return
		}
		resp.Body.Close()
		answer <- resp.StatusCode
	}()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	late := time.After(2 * deadline)
	for answered, gone := false, false; !answered || !gone; {
		select {
		case status := <-answer:
			answered, told = true, status/100 == 2
		case <-late:
			s.t.Errorf("%s: answered %t, the record is gone %t", e.name, answered, gone)
			return told
		case <-tick.C:
		}
		gone = s.gone(admin, e)
		if still := s.alive(g, e); (gone || told) && still != "" {
			s.t.Errorf("%s: answered %t with success %t, the record is gone %t, and alive is %s", e.name, answered, told, gone, still)
			return told
		}
	}
	if r := s.api(admin, http.MethodDelete, e.path, nil); r.status != http.StatusNotFound && r.status/100 != 2 {
		s.t.Errorf("%s: asked for once more: %d: %s", e.name, r.status, r.body)
	}
	return told
}
