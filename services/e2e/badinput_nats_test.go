package e2e

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/natsapi"
	"github.com/quash-project/quash/shared/problem"
)

// TestRequestsOverNATSRefuseBadInput sends, as a guard does, what no operation
// takes: with the token in the header Authorization.
func TestRequestsOverNATSRefuseBadInput(t *testing.T) {
	v := newVictim(t)
	nc := v.nats.Conn(t, "outsider")
	weak := v.services.token(v.key.Secret)
	const revocations, rotations = wire.APIRevocation + "revocations", wire.APIRotation + "rotations"
	good := map[string]string{
		revocations: `{"op":"revoke","targets":["principal:bob"],"reason":"r"}`,
		rotations:   `{"kind":"signing-key","reason":"r"}`,
	}
	type request struct {
		name, body string
		auth       []string
		want       problem.Kind
		field      string
	}
	operator := []string{"Bearer " + v.token}
	common := func(subject string) []request {
		ok := good[subject]
		limit := map[string]int{revocations: 1 << 20, rotations: 64 << 10}[subject]
		return []request{
			{"no token", ok, nil, problem.Unauthorized, ""},
			{"empty token", ok, []string{"Bearer "}, problem.Unauthorized, ""},
			{"no scheme", ok, []string{v.token}, problem.Unauthorized, ""},
			{"an API key", ok, []string{"Bearer " + v.operator}, problem.Unauthorized, ""},
			{"garbage", ok, []string{"Bearer a.b.c"}, problem.Unauthorized, ""},
			{"lengthened", ok, []string{"Bearer " + v.token + "AA"}, problem.Unauthorized, ""},
			{"two headers", ok, []string{operator[0], operator[0]}, problem.Invalid, "Authorization"},
			{"scope missing", ok, []string{"Bearer " + weak}, problem.Forbidden, ""},
			{"empty", "", operator, problem.Invalid, ""},
			{"null", "null", operator, problem.Invalid, ""},
			{"an array", "[" + ok + "]", operator, problem.Invalid, ""},
			{"trailing data", ok + v.key.Secret, operator, problem.Invalid, ""},
			{"too large", ok + strings.Repeat(" ", limit+1-len(ok)), operator, problem.TooLarge, ""},
			{"10,000 deep", strings.Repeat("[", 10_000), operator, problem.Invalid, ""},
			{"no UTF-8", `{"reason":"` + "\xff" + `"}`, operator, problem.Invalid, ""},
			{"a member twice", `{"reason":"r","reason":"r"}`, operator, problem.Invalid, "reason"},
			{"an oddly cased member", `{"Reason":"` + v.key.Secret + `"}`, operator, problem.Invalid, "Reason"},
			{"an unknown member", ok[:len(ok)-1] + `,"unknown":"` + v.key.Secret + `"}`, operator, problem.Invalid, "unknown"},
			{"a secret for a reason", strings.Replace(ok, `"r"`, `"`+v.key.Secret+`"`, 1), operator, problem.Invalid, "reason"},
			{"an empty reason", strings.Replace(ok, `"r"`, `""`, 1), operator, problem.Invalid, "reason"},
			{"an empty idempotency key", ok[:len(ok)-1] + `,"idempotency_key":""}`, operator, problem.Invalid, "idempotency_key"},
			{"a long idempotency key", ok[:len(ok)-1] + `,"idempotency_key":"` + strings.Repeat("k", 513) + `"}`, operator, problem.Invalid, ""},
			{"an idempotency key with a line end", ok[:len(ok)-1] + `,"idempotency_key":"a\nb"}`, operator, problem.Invalid, ""},
		}
	}
	more := map[string][]request{
		revocations: {
			{"0 targets", `{"op":"revoke","targets":[],"reason":"r"}`, operator, problem.Invalid, "targets"},
			{"1,001 targets", jsonOf(t, map[string]any{"op": "revoke", "targets": targetsOf(1001), "reason": "r"}), operator, problem.Invalid, "targets"},
			{"unknown kind", `{"op":"revoke","targets":["user:bob"],"reason":"r"}`, operator, problem.Invalid, "targets[0]"},
			{"a secret for an id", `{"op":"revoke","targets":["key:` + v.key.Secret + `"],"reason":"r"}`, operator, problem.Invalid, "targets[0]"},
			{"a foreign tenant", `{"op":"revoke","targets":["principal:bob"],"reason":"r","tenant":"elsewhere"}`, operator, problem.Forbidden, "tenant"},
			{"a bad duration", `{"op":"hold","targets":["principal:bob"],"reason":"r","for":"-1h"}`, operator, problem.Invalid, "for"},
		},
		rotations: {
			{"unknown kind", `{"kind":"password","reason":"r"}`, operator, problem.Invalid, "kind"},
			{"a bad wait", `{"kind":"signing-key","reason":"r","wait":"soon"}`, operator, problem.Invalid, "wait"},
			{"unknown algorithm", `{"kind":"signing-key","reason":"r","alg":"none"}`, operator, problem.Invalid, "alg"},
		},
		wire.APIRevocation + "nothing": {{"unknown operation", "{}", operator, problem.NotFound, ""}},
		wire.APIRotation + "nothing":   {{"unknown operation", "{}", operator, problem.NotFound, ""}},
	}
	for subject, requests := range more {
		if good[subject] != "" {
			requests = append(requests, common(subject)...)
		}
		for _, r := range requests {
			t.Run(subject+" "+r.name, func(t *testing.T) {
				m := &nats.Msg{Subject: subject, Data: []byte(r.body), Header: nats.Header{}}
				for _, a := range r.auth {
					m.Header.Add("Authorization", a)
				}
				v.refusedOver(t, nc, m, r.want, r.field)
			})
		}
	}
	// Without a place to answer to nothing comes back, and nothing happens twice.
	if err := nc.PublishMsg(&nats.Msg{Subject: revocations, Data: []byte("{")}); err != nil {
		t.Fatal(err)
	}
	v.alive(t)
}

func (v *victim) refusedOver(t *testing.T, nc *nats.Conn, m *nats.Msg, want problem.Kind, field string) {
	t.Helper()
	answer, err := nc.RequestMsg(m, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if got := answer.Header.Get(natsapi.ErrorHeader); got != want.Name() {
		t.Errorf("%s %q, want %q: %.300s", natsapi.ErrorHeader, got, want.Name(), answer.Data)
	}
	var p problem.Document
	if err := json.Unmarshal(answer.Data, &p); err != nil || p.Type != problem.TypeBase+want.Name() || p.Detail == "" {
		t.Errorf("%.300s: want a problem document of %s", answer.Data, want.Name())
	}
	if field != "" && p.Field != field {
		t.Errorf("the problem names the field %q, want %q: %s", p.Field, field, p.Detail)
	}
	v.nothingIn(t, "the answer", string(answer.Data))
	v.unchanged(t)
}
