package itest

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"maps"
	"path"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/quash-project/quash/schemas"
	"github.com/quash-project/quash/schemas/schematest"
	"github.com/quash-project/quash/services/issuer"
	"github.com/quash-project/quash/services/revocation"
	"github.com/quash-project/quash/services/revocation/attempts"
	"github.com/quash-project/quash/services/revocation/audit"
	"github.com/quash-project/quash/services/revocation/incidents"
	"github.com/quash-project/quash/services/revocation/ledger"
	"github.com/quash-project/quash/services/revocation/proof"
	"github.com/quash-project/quash/services/revocation/receipts"
	"github.com/quash-project/quash/services/revocation/running"
	"github.com/quash-project/quash/services/rotator"
	"github.com/quash-project/quash/services/rotator/schedule"
	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/guard/keys"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/token"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/problem"
	"github.com/quash-project/quash/shared/signing"
)

// reader reads a sample as the code of today does, and returns what the code of
// today writes for the same.
type reader func(t *testing.T, text []byte) []byte

// readers are the readers of samples, by what a sample is of.
func readers() map[string]reader {
	return map[string]reader{
		"message.json":                        written(wire.Decode, wire.Encode),
		"feed.json":                           readFeed,
		"requests.json#/$defs/sync":           again(wire.DecodeRequest[wire.SyncRequest]),
		"requests.json#/$defs/page":           again(wire.DecodeRequest[wire.PageRequest]),
		"requests.json#/$defs/probe":          again(wire.DecodeRequest[wire.ProbeRequest]),
		"requests.json#/$defs/join":           again(wire.DecodeRequest[wire.JoinRequest]),
		"requests.json#/$defs/out":            again(wire.DecodeRequest[wire.OutRequest]),
		"requests.json#/$defs/heard":          again(wire.DecodeRequest[wire.HeardBatch]),
		"requests.json#/$defs/report":         again(wire.DecodeRequest[wire.Report]),
		"requests.json#/$defs/attempts":       again(wire.DecodeRequest[wire.AttemptsReport]),
		"requests.json#/$defs/running":        again(wire.DecodeRequest[wire.RunningReport]),
		"requests.json#/$defs/question":       again(wire.DecodeRequest[wire.Question]),
		"requests.json#/$defs/seen":           again(wire.DecodeRequest[wire.Seen]),
		"requests.json#/$defs/sync_answer":    again(wire.DecodeAnswer[wire.SyncAnswer]),
		"requests.json#/$defs/probe_answer":   again(wire.DecodeAnswer[wire.ProbeAnswer]),
		"requests.json#/$defs/join_answer":    again(wire.DecodeAnswer[wire.JoinAnswer]),
		"commit.json#/$defs/request":          again(wire.DecodeRequest[commit.Request]),
		"commit.json#/$defs/key_request":      again(wire.DecodeRequest[commit.KeyRequest]),
		"commit.json#/$defs/lacking_request":  again(wire.DecodeRequest[commit.LackingRequest]),
		"commit.json#/$defs/answer":           again(plain[commit.Answer]),
		"commit.json#/$defs/lacking_answer":   again(plain[commit.LackingAnswer]),
		"problem.json":                        again(plain[problem.Document]),
		"key-state.json":                      again(plain[wire.KeyState]),
		"event.json":                          again(plain[ledger.Event]),
		"audit.json":                          again(plain[audit.Page]),
		"token.json#/$defs/claims":            readClaims,
		"token.json#/$defs/signed":            readSigned,
		"records.json#/$defs/signing_key_set": again(plain[signing.Set]),
		"records.json#/$defs/rotation":        again(plain[rotator.Rotation]),
		"records.json#/$defs/schedule":        again(plain[schedule.Schedule]),
		"records.json#/$defs/pending":         again(plain[revocation.Pending]),
		"records.json#/$defs/receipt":         again(plain[receipts.Receipt]),
		"records.json#/$defs/incident":        again(plain[incidents.Incident]),
		"records.json#/$defs/attempts":        again(plain[attempts.Record]),
		"records.json#/$defs/proof_key_set":   again(plain[proof.Set]),
		"records.json#/$defs/running":         again(plain[running.Record]),
		"page":                                readPage,
		"redis-meta":                          written(text(wire.ParseRedisMeta), func(m wire.RedisMeta) ([]byte, error) { return []byte(m.String()), nil }),
		"redis-state":                         written(text(wire.ParseRedisState), redisState),
	}
}

// issuersRecords are read by the issuer's record store, whose rows are its own; its events by
// nobody here.
const (
	issuersRecords = "key client role binding tenant principal use delivery"
	issuersEvents  = "issuer-event.json"
)

// sampleOf returns what a sample is of: a schema, or what stands before the name.
func sampleOf(name string) string {
	if path.Ext(name) == ".json" {
		return schematest.SchemaOf(name)
	}
	for _, kind := range []string{"page", "redis-meta", "redis-state"} {
		if strings.HasPrefix(name, kind) {
			return kind
		}
	}
	return ""
}

// samples calls each with every sample and what it is of.
func samples(t *testing.T, each func(name, of string, text []byte)) {
	t.Helper()
	files, err := fs.ReadDir(schemas.FS(), "samples/v1")
	if err != nil || len(files) < 70 {
		t.Fatalf("%d samples, %v", len(files), err)
	}
	for _, f := range files {
		if f.Name() != "SHA256SUMS" {
			each(f.Name(), sampleOf(f.Name()), schematest.Read(t, "samples/v1/"+f.Name()))
		}
	}
}

// TestFrozenSamplesAreReadAndWrittenAsEver: what could be read once can be read
// for ever, and what is written today says the same in the same words: whoever
// could read it then still can.
func TestFrozenSamplesAreReadAndWrittenAsEver(t *testing.T) {
	all := readers()
	samples(t, func(name, of string, text []byte) {
		t.Run(name, func(t *testing.T) {
			def, record := strings.CutPrefix(of, "records.json#/$defs/")
			read := all[of]
			switch {
			case read != nil:
				same(t, read(t, text), text)
			case of == issuersEvents:
			case !record || !slices.Contains(strings.Fields(issuersRecords), def):
				t.Errorf("nobody reads it: it is of %q", of)
			}
		})
	})
}

// TestEveryFormOfTheWireHasASample: a kind, op, request or record without one
// could change in silence.
func TestEveryFormOfTheWireHasASample(t *testing.T) {
	seen := map[string]bool{}
	samples(t, func(_, of string, text []byte) {
		seen[of] = true
		if m, err := wire.Decode(text); err == nil {
			seen["kind "+m.Kind] = true
			for _, op := range m.Ops {
				seen["op "+op] = true
			}
		}
		var e ledger.Event
		if json.Unmarshal(text, &e) == nil && of == "event.json" {
			seen["event "+strings.TrimPrefix(e.Type, ledger.EventPrefix)] = true
			seen["event of "+e.Data.Op] = true
		}
		var p audit.Page
		if of == "audit.json" && json.Unmarshal(text, &p) == nil {
			for _, it := range p.Items {
				seen["item "+it.Type] = true
			}
		}
	})
	want := slices.Collect(maps.Keys(readers()))
	for _, kind := range wire.Kinds() {
		want = append(want, "kind "+kind)
		if kind != wire.KindTick { // it has no body
			want = append(want, "event "+kind)
		}
	}
	for _, op := range wire.Ops() {
		want = append(want, "op "+op)
	}
	for _, op := range []commit.Op{commit.Revoke, commit.Hold, commit.Release} {
		want = append(want, "event of "+string(op))
	}
	want = append(want, "item "+audit.TypePut, "item "+audit.TypeRemove, "item "+audit.TypeRestart)
	for _, file := range []string{"requests.json", "commit.json", "records.json", "token.json"} {
		for _, def := range definitions(t, file) {
			want = append(want, file+"#/$defs/"+def)
		}
	}
	for _, form := range want {
		if !seen[form] {
			t.Errorf("no sample in schemas/samples/v1 of %s", form)
		}
	}
}

// definitions are those of a schema that stand alone, not only in others.
func definitions(t *testing.T, file string) (out []string) {
	t.Helper()
	var schema struct {
		Defs map[string]json.RawMessage `json:"$defs"`
	}
	whole := schematest.Read(t, file)
	if err := json.Unmarshal(whole, &schema); err != nil {
		t.Fatal(err)
	}
	for name := range schema.Defs {
		if !strings.Contains(string(whole), `"#/$defs/`+name+`"`) {
			out = append(out, name)
		}
	}
	return out
}

// same wants two texts to say the same.
func same(t *testing.T, got, want []byte) {
	t.Helper()
	var a, b any
	if json.Unmarshal(got, &a) != nil || json.Unmarshal(want, &b) != nil {
		a, b = strings.TrimSpace(string(got)), strings.TrimSpace(string(want))
	}
	if !reflect.DeepEqual(a, b) {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func written[T any](decode func([]byte) (T, error), encode func(T) ([]byte, error)) reader {
	return func(t *testing.T, text []byte) []byte {
		v, err := decode(text)
		if err != nil {
			t.Fatal(err)
		}
		b, err := encode(v)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
}

func again[T any](decode func([]byte) (T, error)) reader {
	return written(decode, func(v T) ([]byte, error) { return json.Marshal(v) })
}

// plain reads as those do who take any JSON.
func plain[T any](text []byte) (v T, err error) { return v, json.Unmarshal(text, &v) }

func text[T any](parse func(string) (T, error)) func([]byte) (T, error) {
	return func(b []byte) (T, error) { return parse(strings.TrimSpace(string(b))) }
}

// redisState writes a state as a writer does.
func redisState(s revoke.State) ([]byte, error) { return []byte(wire.RedisState(s)), nil }

// readFeed reads headers; the message in them is written again, the rest is the
// broker's.
func readFeed(t *testing.T, text []byte) []byte {
	var h map[string][]string
	if err := json.Unmarshal(text, &h); err != nil {
		t.Fatal(err)
	}
	s, err := wire.FromHeader(h)
	if err != nil {
		t.Fatal(err)
	}
	seqs, times := h["Nats-Sequence"], h["Nats-Time-Stamp"]
	at, err := time.Parse(time.RFC3339Nano, times[len(times)-1])
	if err != nil || s.Time != at.UnixMilli() || strconv.FormatUint(s.Sequence, 10) != seqs[len(seqs)-1] {
		t.Errorf("read as %d at %d, %v: want the broker's own, which come last", s.Sequence, s.Time, err)
	}
	b, err := wire.Encode(s.Message)
	if err != nil {
		t.Fatal(err)
	}
	same(t, b, []byte(h[wire.Header][0]))
	h[wire.Header][0] = string(b)
	return marshal(t, h)
}

func readPage(t *testing.T, text []byte) []byte {
	data, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	p, err := wire.DecodePage(data)
	if err != nil {
		t.Fatal(err)
	}
	if p.Pages != 1 || len(p.States) == 0 || len(p.Keys) == 0 || len(p.Epochs) == 0 {
		t.Errorf("%+v: want a whole state with some of each", p)
	}
	pages, err := wire.EncodePages(wire.Snapshot{
		ID: p.Snapshot, Epochs: p.Epochs, Keys: p.Keys,
		States: func(yield func(revoke.Key, revoke.State) bool) {
			for _, s := range p.States {
				if !yield(s.Key, s.State) {
					return
				}
			}
		},
	})
	if err != nil || len(pages) != 1 {
		t.Fatalf("%d pages, %v", len(pages), err)
	}
	return []byte(hex.EncodeToString(pages[0]))
}

// readClaims reads claims as a guard does, and writes them as an issuer does.
func readClaims(t *testing.T, text []byte) []byte {
	b64 := base64.RawURLEncoding.EncodeToString
	tok, err := token.Decode(b64([]byte(`{"alg":"ES256","kid":"k","typ":"at+jwt"}`)) + "." + b64(text) + "." + b64([]byte("signature")))
	if err != nil {
		t.Fatal(err)
	}
	return marshal(t, &issuer.Claims{
		Issuer: tok.Issuer, Subject: tok.Subject, Audience: tok.Audience, Expires: tok.Expires, IssuedAt: tok.IssuedAt, ID: tok.Claims.ID,
		ClientID: tok.ClientID, Scope: strings.Join(tok.Scopes, " "), Roles: tok.Roles, Tenant: tok.Tenant, Stamp: tok.Stamp, Via: tok.Via,
	})
}

// readSigned takes a signed key message, and a token that the key has signed.
func readSigned(t *testing.T, text []byte) []byte {
	s, err := plain[struct {
		Trust string       `json:"trust"`
		Key   wire.Message `json:"key"`
		Token string       `json:"token"`
	}](text)
	if err != nil {
		t.Fatal(err)
	}
	tok, err := token.Decode(s.Token)
	if err != nil {
		t.Fatal(err)
	}
	set, err := keys.NewSet(tok.Tenant, tok.Issuer, []string{s.Trust}, keys.OwnAlgs())
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(tok.IssuedAt, 0)
	if err := set.Apply(s.Key, now); err != nil {
		t.Fatal(err)
	}
	k := set.Lookup(tok.KeyID)
	if k == nil {
		t.Fatalf("the key %s is not known", tok.KeyID)
	}
	if err := k.Usable(now); err != nil {
		t.Error(err)
	}
	if err := k.Verify(tok.Alg, tok.Signed, tok.Signature); err != nil {
		t.Error(err)
	}
	return marshal(t, s)
}

func marshal(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
