package audit

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/identity"
)

// Found is an item, where it stands in the trail, and what its event says.
type Found struct {
	Place Spot
	Item
	// Tenant is whose item it is; empty: the installation's.
	Tenant   string
	Op       string
	Entry    string   // the id of the revocation, hold or release
	Service  string   // which service asked
	Issuer   string   // short name of a foreign one, of the targets
	Targets  []string // kind:id, or target keys where no ids are known
	KeyID    string   // of a signing key
	Guard    string   // the name of one that joined or is out
	Instance string
	Incident string // under which it was done
	Request  string // the id of the request that led to it
	// ApprovedBy is the second person, BreakGlass whether none was waited for.
	ApprovedBy string
	BreakGlass bool
}

// Spot is the place of an item in the trail. The zero Spot is before everything.
type Spot struct {
	Page uint64
	Item int // in the page, from 0
}

// Less orders spots as the trail does.
func (s Spot) Less(o Spot) bool { return s.Page < o.Page || s.Page == o.Page && s.Item < o.Item }

// eventData is what is taken from the event of a message.
type eventData struct {
	Op      string `json:"op"`
	Tenant  string `json:"tenant"`
	Service string `json:"service"`
	Targets []struct {
		Issuer string      `json:"issuer"`
		Kind   revoke.Kind `json:"kind"`
		ID     string      `json:"id"`
	} `json:"targets"`
	TargetKeys []revoke.Key `json:"target_keys"`
	KeyID      string       `json:"kid"`
	Name       string       `json:"name"`
	Instance   string       `json:"instance"`
	Entry      string       `json:"entry"`
	Incident   string       `json:"incident"`
	Request    string       `json:"request"`
	ApprovedBy string       `json:"approved_by"`
	BreakGlass bool         `json:"break_glass"`
}

// tenantInKey are the buckets whose keys begin with the tenant, alone or before a dot.
// Records of the others are the installation's.
var tenantInKey = []string{"bindings", "clients", "codes", identity.Incidents, "keys", identity.Pending, "roles", "schedules", "sessions", "signing_keys", "users"}

// foundOf reads an item.
func foundOf(at Spot, it Item) Found {
	f := Found{Place: at, Item: it, Request: it.Request, Incident: it.Incident}
	if it.Bucket != "" {
		if slices.Contains(tenantInKey, it.Bucket) {
			f.Tenant, _, _ = strings.Cut(it.Key, ".")
		}
		if it.Bucket == identity.Incidents {
			_, f.Incident, _ = strings.Cut(it.Key, ".")
		}
		return f
	}
	var e struct {
		Data eventData `json:"data"`
	}
	if len(it.Event) == 0 || json.Unmarshal(it.Event, &e) != nil {
		return f // nobody's but the installation's
	}
	d := &e.Data
	f.Tenant, f.Op, f.Service, f.Entry, f.KeyID, f.Guard, f.Instance = d.Tenant, d.Op, d.Service, d.Entry, d.KeyID, d.Name, d.Instance
	f.Incident, f.Request = d.Incident, d.Request
	f.ApprovedBy, f.BreakGlass = d.ApprovedBy, d.BreakGlass
	for _, t := range d.Targets {
		f.Targets = append(f.Targets, revoke.Target{Kind: t.Kind, ID: t.ID}.String())
		if t.Issuer != revoke.Own {
			f.Issuer = t.Issuer // a request has one
		}
	}
	for _, k := range d.TargetKeys {
		f.Targets = append(f.Targets, k.String())
	}
	if d.KeyID != "" && len(f.Targets) == 0 {
		f.Targets = []string{revoke.Target{Kind: revoke.KindSigningKey, ID: d.KeyID}.String()}
	}
	return f
}

// Filter says what is looked for; what is empty is not asked.
type Filter struct {
	// Tenant is whose items are seen at all; empty: everybody's.
	Tenant string
	Actor  string
	Type   string
	Target string // kind:id, or a target key
	Record string // BUCKET, or BUCKET/KEY
	// Incident is under which it was done, or whose notebook it is; Request led to it.
	Incident, Request string
	// Since and Until bound when it was stored, by the broker's clock.
	Since, Until time.Time
}

// Matches reports whether an item is what is looked for.
func (f *Filter) Matches(x *Found) bool {
	bucket, key, one := strings.Cut(f.Record, "/")
	switch {
	case f.Tenant != "" && x.Tenant != f.Tenant,
		f.Actor != "" && x.Actor != f.Actor,
		f.Type != "" && x.Type != f.Type,
		f.Incident != "" && x.Incident != f.Incident,
		f.Request != "" && x.Request != f.Request,
		f.Record != "" && x.Bucket != bucket,
		one && x.Key != key,
		!f.Since.IsZero() && x.Stored.Before(f.Since),
		!f.Until.IsZero() && x.Stored.After(f.Until):
		return false
	}
	return f.Target == "" || f.hits(x)
}

// hits compares the target with those of an item: where these are keys, by its own.
func (f *Filter) hits(x *Found) bool {
	if len(x.Targets) == 0 || slices.Contains(x.Targets, f.Target) {
		return len(x.Targets) > 0
	}
	issuer := x.Issuer
	if issuer == "" {
		issuer = revoke.Own
	}
	t, err := revoke.ParseTarget(x.Tenant, issuer, f.Target)
	return err == nil && (slices.Contains(x.Targets, t.String()) || slices.Contains(x.Targets, t.Key().String()))
}
