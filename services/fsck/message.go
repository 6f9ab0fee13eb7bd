package fsck

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// head is the wire part of a message, as schemas/message.json has it: decoded here by
// other means than readers do, so that a fault of theirs is not ours.
type head struct {
	Kind     string `json:"kind"`
	ID       string `json:"id"`
	Epoch    uint64 `json:"epoch"`
	Optional bool   `json:"optional"`

	Cut         []revoke.Key                `json:"cut"`
	End         []revoke.Key                `json:"end"`
	Hold        []revoke.Key                `json:"hold"`
	First       map[revoke.Key]revoke.Stamp `json:"first"` // holds too, each with its first position
	Release     map[revoke.Key]revoke.Stamp `json:"release"`
	At          int64                       `json:"at"`
	Until       int64                       `json:"until"`
	Then        string                      `json:"then"`
	Recommitted *revoke.Stamp               `json:"recommitted"`

	D       *revoke.Stamp `json:"d"`
	Restore bool          `json:"restore"`

	KeyID    string `json:"kid"`
	Name     string `json:"name"`
	Instance string `json:"instance"`
}

// body is the event that stands beside it, as schemas/event.json has it.
type body struct {
	ID     string `json:"id"`
	Source string `json:"source"`
	Type   string `json:"type"`
	Time   string `json:"time"`
	Data   struct {
		Op      string `json:"op"`
		Tenant  string `json:"tenant"`
		Actor   string `json:"actor"`
		Reason  string `json:"reason"`
		Targets []struct {
			Issuer string      `json:"issuer"`
			Kind   revoke.Kind `json:"kind"`
			ID     string      `json:"id"`
		} `json:"targets"`
		TargetKeys []revoke.Key `json:"target_keys"`
		Record     bool         `json:"record"`
		Name       string       `json:"name"`
		Instance   string       `json:"instance"`
		KeyID      string       `json:"kid"`
		Entry      string       `json:"entry"`
	} `json:"data"`
}

const (
	eventPrefix = "dev.quash.log."
	eventSource = "/quash/revocation"
)

var kinds = map[string]bool{
	wire.KindEpoch: true, wire.KindEntry: true, wire.KindKey: true, wire.KindJoin: true, wire.KindOut: true, wire.KindTick: true,
}

// decode reads the wire part of a message. Readers have to be able to read it too: what
// they refuse makes all of them incomplete.
func decode(header map[string][]string) (head, error) {
	var h head
	values := header[wire.Header]
	if len(values) != 1 {
		return h, fmt.Errorf("it has %d headers %s, not one", len(values), wire.Header)
	}
	if err := json.Unmarshal([]byte(values[0]), &h); err != nil {
		return h, err
	}
	if _, err := wire.Decode([]byte(values[0])); err != nil {
		return h, fmt.Errorf("readers refuse it: %w", err)
	}
	if !kinds[h.Kind] && !h.Optional {
		return h, fmt.Errorf("its kind is %.40q", h.Kind)
	}
	return h, nil
}

// states are what an entry at a position says of its targets.
func (h *head) states(at revoke.Stamp) map[revoke.Key]revoke.State {
	if h.Kind != wire.KindEntry {
		return nil
	}
	if h.Recommitted != nil { // it counts as where it stood before it was lost
		at = *h.Recommitted
	}
	out := map[revoke.Key]revoke.State{}
	say := func(k revoke.Key, s revoke.State) {
		s.Until = h.Until
		out[k] = out[k].Merge(s)
	}
	for _, k := range h.Cut {
		say(k, revoke.State{Cut: at, CutAt: h.At})
	}
	for _, k := range h.End {
		say(k, revoke.State{Cut: at, CutAt: h.At, Ended: true})
	}
	for _, k := range h.Hold {
		say(k, revoke.State{Held: at})
	}
	for k, first := range h.First {
		say(k, revoke.State{Held: first})
	}
	for k, held := range h.Release {
		say(k, revoke.State{Released: held})
	}
	return out
}

// compare holds the wire part of a message against its body and its subject, and
// returns what does not agree.
func compare(h *head, subject string, data []byte) error {
	if h.Kind == wire.KindTick {
		return errors.Join(unless(len(data) == 0, "a tick has a body"), unless(subject == wire.LogTick, "a tick stands under %s", subject))
	}
	if !kinds[h.Kind] {
		return nil // optional, and of a newer version
	}
	var b body
	d := json.NewDecoder(bytes.NewReader(data))
	if err := d.Decode(&b); err != nil {
		return fmt.Errorf("its body can't be read: %w", err)
	}
	errs := []error{
		unless(b.ID == h.ID, "the id is %s, and %.40q in the body", h.ID, b.ID),
		unless(b.Type == eventPrefix+h.Kind, "the kind is %s, and the body's type %.60q", h.Kind, b.Type),
		unless(b.Source == eventSource, "the body's source is %.60q", b.Source),
		unless(b.Data.Actor != "" && b.Data.Reason != "", "the body names no actor or no reason"),
		unless(h.Name == b.Data.Name && h.Instance == b.Data.Instance, "it is about the guard %s/%s, and %.60s/%.60s in the body", h.Name, h.Instance, b.Data.Name, b.Data.Instance),
		unless(h.KeyID == b.Data.KeyID, "it is about the key %s, and %.60q in the body", h.KeyID, b.Data.KeyID),
		unless(subject == subjectOf(h, &b), "it stands under %s, and says that it is of %s", subject, subjectOf(h, &b)),
	}
	if _, err := time.Parse(time.RFC3339Nano, b.Time); err != nil {
		errs = append(errs, fmt.Errorf("the body's time is %.60q", b.Time))
	}
	if h.Kind == wire.KindEntry {
		errs = append(errs, compareTargets(h, &b))
	}
	return errors.Join(errs...)
}

func unless(ok bool, format string, args ...any) error {
	if ok {
		return nil
	}
	return fmt.Errorf(format, args...)
}

func subjectOf(h *head, b *body) string {
	switch h.Kind {
	case wire.KindEpoch:
		return wire.LogEpoch
	case wire.KindEntry:
		return wire.LogEntry + b.Data.Entry
	case wire.KindJoin:
		return wire.LogJoin + h.Instance
	case wire.KindOut:
		return wire.LogOut + h.Instance
	case wire.KindKey:
		return wire.LogKey + keyOf(b.Data.Tenant, revoke.Own, revoke.KindSigningKey, h.KeyID).String()
	}
	return ""
}

func keyOf(tenant, issuer string, kind revoke.Kind, id string) revoke.Key {
	return revoke.Target{Tenant: tenant, Issuer: issuer, Kind: kind, ID: id}.Key()
}

// compareTargets wants the wire part to do to each target what the body says, and to
// no other. A release leaves out what was not held.
func compareTargets(h *head, b *body) error {
	want := map[revoke.Key]string{}
	for _, t := range b.Data.Targets {
		k := keyOf(b.Data.Tenant, t.Issuer, t.Kind, t.ID)
		if want[k] = b.Data.Op; b.Data.Op == "revoke" {
			want[k] = wire.OpCut
			if t.Kind.Final() {
				want[k] = wire.OpEnd
			}
		}
	}
	for _, k := range b.Data.TargetKeys {
		if want[k] = b.Data.Op; b.Data.Op == "revoke" {
			want[k] = wire.OpCut // nobody knows any more what it is
		}
	}
	var errs []error
	done := 0
	does := func(k revoke.Key, op string) {
		said, ok := want[k]
		if done++; !ok {
			errs = append(errs, fmt.Errorf("it has the target %s under %s, and its body does not", k, op))
		} else if said != op {
			errs = append(errs, fmt.Errorf("it has the target %s under %s, and its body says %.20q", k, op, said))
		}
	}
	for _, k := range h.Cut {
		does(k, wire.OpCut)
	}
	for _, k := range h.End {
		does(k, wire.OpEnd)
	}
	for _, k := range h.Hold {
		does(k, wire.OpHold)
	}
	for k := range h.First {
		does(k, wire.OpHold)
	}
	for k := range h.Release {
		does(k, wire.OpRelease)
	}
	if done < len(want) && b.Data.Op != "release" {
		errs = append(errs, fmt.Errorf("it has %d targets, and its body %d", done, len(want)))
	}
	return errors.Join(errs...)
}
