// Package itest holds the guard's tests that need more than the guard may
// depend on.
package itest

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/quash-project/quash/schemas/schematest"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/problem"
)

func TestTargetKeysAreThoseOfTheVectors(t *testing.T) {
	var file struct {
		About   string
		Vectors []struct{ Tenant, Issuer, Kind, ID, Text, Hashed, Key, Note string }
		Refused []struct{ Tenant, Issuer, Kind, ID, Why string }
	}
	schematest.Vectors(t, "target-keys.json", &file)
	seen, kinds := map[revoke.Key]bool{}, map[string]bool{}
	for _, v := range file.Vectors {
		kind, err := revoke.ParseKind(v.Kind)
		if err != nil {
			t.Fatal(err)
		}
		target, err := revoke.NewTarget(v.Tenant, v.Issuer, kind, v.ID)
		if err != nil {
			t.Errorf("%+v: %v", v, err)
			continue
		}
		if got := target.Key().String(); got != v.Key {
			t.Errorf("%+v: key %s", v, got)
		}
		if back, err := revoke.ParseTarget(v.Tenant, v.Issuer, v.Text); err != nil || back != target || target.String() != v.Text {
			t.Errorf("%+v: its text %q is %+v, %v", v, target, back, err)
		}
		if seen[target.Key()] {
			t.Errorf("%+v: a key twice", v)
		}
		seen[target.Key()], kinds[v.Kind] = true, true
	}
	if len(kinds) != len(revoke.Kinds()) {
		t.Errorf("vectors for %d kinds of %d", len(kinds), len(revoke.Kinds()))
	}
	for _, v := range file.Refused {
		kind, err := revoke.ParseKind(v.Kind)
		if err == nil {
			_, err = revoke.NewTarget(v.Tenant, v.Issuer, kind, v.ID)
		}
		if err == nil {
			t.Errorf("%+v was taken", v)
		}
	}
}

func TestStampsAreThoseOfTheVectors(t *testing.T) {
	var file struct {
		About          string
		Order, Refused []string
	}
	schematest.Vectors(t, "stamps.json", &file)
	var last revoke.Stamp
	for i, text := range file.Order {
		s, err := revoke.ParseStamp(text)
		if err != nil || s.String() != text || i > 0 && !last.Less(s) {
			t.Errorf("%q after %s: %s, %v", text, last, s, err)
		}
		last = s
	}
	for _, text := range file.Refused {
		if s, err := revoke.ParseStamp(text); err == nil {
			t.Errorf("%q is %s", text, s)
		}
	}
}

// state is a revoke.State as the vectors have it.
type state struct {
	Key      revoke.Key   `json:"key"`
	Cut      revoke.Stamp `json:"cut"`
	CutAt    int64        `json:"cut_at"`
	Ended    bool         `json:"ended"`
	Held     revoke.Stamp `json:"held"`
	Released revoke.Stamp `json:"released"`
	Until    int64        `json:"until"`
}

func (s state) state() revoke.State {
	return revoke.State{Cut: s.Cut, CutAt: s.CutAt, Ended: s.Ended, Held: s.Held, Released: s.Released, Until: s.Until}
}

type epoch struct {
	Number  uint64       `json:"number"`
	D       revoke.Stamp `json:"d"`
	Restore bool         `json:"restore"`
}

func TestPagesAreThoseOfTheVectors(t *testing.T) {
	var file struct {
		About string
		Pages []struct {
			Name, Hex, Snapshot string
			Page, Pages         int
			Epochs              []epoch
			Keys                []struct {
				Kid, JWS string
				Until    int64
			}
			States []state
		}
		Malformed []struct{ Why, Hex string }
	}
	schematest.Vectors(t, "pages/v1.json", &file)
	for _, v := range file.Pages {
		t.Run(v.Name, func(t *testing.T) {
			data, err := hex.DecodeString(v.Hex)
			if err != nil {
				t.Fatal(err)
			}
			got, err := wire.DecodePage(data)
			if err != nil {
				t.Fatal(err)
			}
			want := wire.Page{Snapshot: v.Snapshot, Number: v.Page, Pages: v.Pages, States: []wire.TargetState{}}
			for _, e := range v.Epochs {
				want.Epochs = append(want.Epochs, revoke.Epoch(e))
			}
			for _, k := range v.Keys {
				want.Keys = append(want.Keys, wire.KeyMessage{KeyID: k.Kid, Until: k.Until, JWS: k.JWS})
			}
			for _, s := range v.States {
				want.States = append(want.States, wire.TargetState{Key: s.Key, State: s.state()})
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
			if v.Pages > 1 {
				return
			}
			again, err := wire.EncodePages(wire.Snapshot{
				ID: v.Snapshot, Epochs: want.Epochs, Keys: want.Keys,
				States: func(yield func(revoke.Key, revoke.State) bool) {
					for _, s := range want.States {
						if !yield(s.Key, s.State) {
							return
						}
					}
				},
			})
			if err != nil || len(again) != 1 || !bytes.Equal(again[0], data) {
				t.Errorf("is written as %x, %v", again, err)
			}
		})
	}
	for _, v := range file.Malformed {
		data, err := hex.DecodeString(v.Hex)
		if err != nil {
			t.Fatal(err)
		}
		if p, err := wire.DecodePage(data); err == nil {
			t.Errorf("%s: %+v", v.Why, p)
		}
	}
}

func TestMessagesFoldAsTheVectorsSay(t *testing.T) {
	var file struct {
		About string
		Cases []struct {
			Name     string
			Epochs   []epoch
			Messages []struct {
				Sequence uint64
				Message  wire.Message
			}
			States map[revoke.Key]state
			Hits   []struct {
				Key   revoke.Key
				Stamp revoke.Stamp
				Hit   bool
			}
		}
	}
	schematest.Vectors(t, "fold.json", &file)
	for _, c := range file.Cases {
		t.Run(c.Name, func(t *testing.T) {
			want := map[revoke.Key]revoke.State{}
			for k, s := range c.States {
				want[k] = s.state()
			}
			r := rand.New(rand.NewPCG(1, 1))
			for range 10 {
				v := revoke.NewView()
				for _, i := range r.Perm(len(c.Epochs)) {
					v.MergeEpoch(revoke.Epoch(c.Epochs[i]))
				}
				for _, i := range append(r.Perm(len(c.Messages)), r.IntN(len(c.Messages))) {
					m := c.Messages[i]
					for k, s := range m.Message.States(revoke.Stamp{Epoch: m.Message.Epoch, Seq: m.Sequence}) {
						v.Merge(k, s)
					}
				}
				if got := maps.Collect(v.All); !maps.Equal(got, want) {
					t.Fatalf("got  %+v\nwant %+v", got, want)
				}
				for _, h := range c.Hits {
					if got := v.Hit(h.Key, h.Stamp); got != h.Hit {
						t.Errorf("%s, stamp %s: hit %t", h.Key, h.Stamp, got)
					}
				}
			}
		})
	}
}

func TestEveryProblemTypeIsListed(t *testing.T) {
	var file struct {
		About    string
		Problems []struct {
			Name, Type, Title, OAuth, Do string
			Status                       int
		}
	}
	schematest.Vectors(t, "problems.json", &file)
	all := schematest.Load(t)
	var listed, built []string
	for _, p := range file.Problems {
		listed = append(listed, strings.Join([]string{p.Name, p.Type, p.Title, p.OAuth}, "|"))
		if k := problem.ByName(p.Name); k.Status() != p.Status {
			t.Errorf("%s: status %d, listed %d", p.Name, k.Status(), p.Status)
		}
	}
	for _, k := range problem.Kinds() {
		e := problem.FieldError("targets[0]", "no such kind")
		e.Kind, e.Key = k, "key-1"
		doc := problem.DocumentOf(e, "r-1")
		built = append(built, strings.Join([]string{k.Name(), doc.Type, doc.Title, k.OAuth()}, "|"))
		b, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		all.Valid(t, "problem.json", b)
	}
	slices.Sort(listed)
	slices.Sort(built)
	if !slices.Equal(listed, built) {
		t.Errorf("listed %q\nbuilt  %q", listed, built)
	}
}
