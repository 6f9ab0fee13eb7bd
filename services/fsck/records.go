package fsck

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/quash-project/quash/services/issuer"
	"github.com/quash-project/quash/services/revocation/incidents"
	"github.com/quash-project/quash/services/rotator"
	"github.com/quash-project/quash/services/rotator/kvstore"
	"github.com/quash-project/quash/services/rotator/schedule"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/identity"
	"github.com/quash-project/quash/shared/kv"
	"github.com/quash-project/quash/shared/signing"
)

// markAge is how old a mark may be: every replica finishes those of some seconds.
const markAge = time.Minute

// revision is the newest one of a record.
type revision struct {
	seq     uint64
	removed bool
	data    []byte
}

// bucket is one as it was read.
type bucket struct {
	name, stream string
	made         time.Time
	maxAge       time.Duration // 0: records do not leave by their age
	last         uint64        // sequence of the stream
	records      map[string]revision
	digests      map[uint64]digestOf
}

// stampOf is a position that a record names: the log must have been there.
type stampOf struct {
	record string
	stamp  revoke.Stamp
}

func (c *checker) readBuckets(ctx context.Context) error {
	if err := c.takeBucket(ctx, c.js, identity.Incidents); err != nil {
		return err
	}
	if c.cfg.Control == nil {
		c.notLookedAt("buckets: no credentials of the user %s were given", identity.ControlReader)
		return nil
	}
	var err error
	if c.control, err = jetstream.New(c.cfg.Control); err != nil {
		return err
	}
	for _, service := range []string{identity.Issuer, identity.Rotator} {
		for _, name := range identity.Buckets[service] {
			if err := c.takeBucket(ctx, c.control, name); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *checker) takeBucket(ctx context.Context, js jetstream.JetStream, name string) error {
	b, err := c.readBucket(ctx, js, name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		b = &bucket{name: name, stream: "KV_" + name} // not made yet, or gone: the trail knows
	} else if err != nil {
		return err
	}
	c.buckets = append(c.buckets, b)
	c.checkRecords(b)
	return nil
}

func (c *checker) readBucket(ctx context.Context, js jetstream.JetStream, name string) (*bucket, error) {
	b := &bucket{name: name, stream: "KV_" + name, records: map[string]revision{}, digests: map[uint64]digestOf{}}
	info, err := streamInfo(ctx, js, b.stream)
	if err != nil {
		return nil, err
	}
	b.made, b.maxAge, b.last = info.Created, info.Config.MaxAge, info.State.LastSeq
	r := reading{js: js, name: b.stream, stuck: func(from, to uint64, why error) {
		c.differ(Buckets, "stuck", name+" at "+span(from, to), "%s", why)
	}}
	r.take = func(m jetstream.Msg, meta *jetstream.MsgMetadata) {
		key := strings.TrimPrefix(m.Subject(), "$KV."+name+".")
		if strings.HasPrefix(key, kv.BeatPrefix) {
			return
		}
		header := m.Headers()
		rev := revision{seq: meta.Sequence.Stream, data: m.Data()}
		rev.removed = header.Get("KV-Operation") != "" || header.Get(jetstream.MarkerReasonHeader) != ""
		b.records[key], b.digests[rev.seq] = rev, digest(m.Subject(), header, m.Data())
	}
	return b, r.read(ctx, 1, b.last)
}

// row is what the issuer's records have in common, and what their keys are made of.
type row struct {
	ID      string `json:"id"`
	Tenant  string `json:"tenant"`
	Name    string `json:"name"`
	Subject string `json:"subject"`
	Role    struct {
		ID string `json:"id"`
	} `json:"role"`
	Stamp   *revoke.Stamp `json:"stamp"`
	Created *time.Time    `json:"created_at"`
	Meta    *struct {
		Actor string    `json:"actor"`
		At    time.Time `json:"at"`
	} `json:"meta"`
	Mark *struct {
		ID string    `json:"id"`
		At time.Time `json:"at"`
	} `json:"mark"`
}

// keys say under which key a record of a bucket stands. A bucket that is not among
// them has records of which no more is known than that they are JSON.
var keys = map[string]func(*row) string{
	"tenants":  func(r *row) string { return r.Name },
	"users":    func(r *row) string { return issuer.PrincipalKey(r.Tenant, r.ID) },
	"keys":     func(r *row) string { return issuer.RecordKey(r.Tenant, r.ID) },
	"clients":  func(r *row) string { return issuer.RecordKey(r.Tenant, r.ID) },
	"roles":    func(r *row) string { return issuer.RoleKey(r.Tenant, r.Name) },
	"bindings": func(r *row) string { return issuer.BindingKey(r.Tenant, r.Subject, r.Role.ID) },
}

// stamped are the buckets whose records have a stamp of their birth.
var stamped = map[string]bool{"keys": true, "roles": true, "bindings": true}

// checkRecords wants every record to be one, to stand under its own key, and to have no
// mark that nobody has finished.
func (c *checker) checkRecords(b *bucket) {
	for _, key := range slices.Sorted(maps.Keys(b.records)) {
		rev := b.records[key]
		if rev.removed {
			continue
		}
		c.report.Records++
		name := b.name + "/" + key
		want, err := c.checkRecord(b.name, name, rev.data)
		switch {
		case err != nil:
			c.differ(Buckets, "unreadable", name, "revision %d: %s", rev.seq, err)
		case want != "" && want != key:
			c.differ(Buckets, "key", name, "revision %d is the record of %s", rev.seq, want)
		}
	}
}

// checkRecord returns the key under which a record must stand, if that is known.
func (c *checker) checkRecord(bucket, name string, data []byte) (string, error) {
	switch bucket {
	case signing.Bucket:
		var s signing.Set
		if err := json.Unmarshal(data, &s); err != nil {
			return "", err
		}
		for _, k := range s.Keys {
			for _, sent := range []*signing.Sent{k.Sent, k.EndedBy} {
				c.stamps = append(c.stamps, stampOf{name + " " + k.ID, sent.Stamp()})
			}
		}
		return s.Tenant, nil
	case identity.Incidents:
		var x incidents.Incident
		if err := json.Unmarshal(data, &x); err != nil {
			return "", err
		}
		if x.Meta.Actor == "" || x.Opened.Actor == "" {
			return "", errors.New("it does not say who opened it, or who changed it")
		}
		return x.Tenant + "." + x.ID, nil
	case "rotations":
		var r rotator.Rotation
		err := json.Unmarshal(data, &r)
		return r.ID, err
	case kvstore.SchedulesBucket:
		var x schedule.Schedule
		if err := json.Unmarshal(data, &x); err != nil {
			return "", err
		}
		if _, err := schedule.NewPlan(&x); err != nil {
			return "", err
		}
		if x.CreatedBy == "" || x.Meta.Actor == "" {
			return "", errors.New("it does not say who made it, or who changed it")
		}
		return x.Tenant + "." + x.Name, nil
	}
	var r row
	if err := json.Unmarshal(data, &r); err != nil {
		return "", err
	}
	if r.Stamp != nil {
		c.stamps = append(c.stamps, stampOf{name, *r.Stamp})
	}
	if r.Mark != nil && r.Mark.At.Before(c.cfg.Now().Add(-markAge)) {
		c.differ(Buckets, "mark", name, "it has been ending since %s (mark %s), and nobody has finished it", r.Mark.At.UTC().Format(time.RFC3339), r.Mark.ID)
	}
	of := keys[bucket]
	switch {
	case of == nil:
		return "", nil
	case r.Created == nil || r.Meta == nil || r.Meta.Actor == "":
		return "", errors.New("it does not say when it was made, or who changed it")
	case stamped[bucket] && r.Stamp == nil:
		return "", errors.New("it has no stamp of its birth")
	}
	return of(&r), nil
}

// judgeRecords holds the buckets against the log and the audit trail.
func (c *checker) judgeRecords() {
	for _, s := range c.stamps {
		switch {
		case c.log.neverWas(s.stamp):
			c.differ(Buckets, "unknown-epoch", s.record, "it names %s, and the log has no epoch %d", s.stamp, s.stamp.Epoch)
		case c.log.headStamp().Less(s.stamp):
			c.differ(Buckets, "above-head", s.record, "it names %s, and the log ends at %s", s.stamp, c.log.headStamp())
		}
	}
	for _, b := range c.buckets {
		c.judgeBucket(b)
	}
}

// judgeBucket holds a bucket against what the audit trail has seen of it, unless it
// was restored since.
func (c *checker) judgeBucket(b *bucket) {
	place, ok := c.trail.upto[b.stream]
	for _, rev := range b.records {
		if rev.seq > place.Sequence {
			c.report.Unaudited++
		}
	}
	if !ok || c.restoredSince(c.trail.newest[b.stream]) {
		return
	}
	switch {
	case b.records == nil:
		c.differ(Buckets, "gone", b.name, "the audit trail has read it up to %d, and there is no such stream", place.Sequence)
		return
	case !b.made.Equal(place.Made):
		c.differ(Buckets, "went-back", b.name, "it was made %s; the audit trail has read one that was made %s up to %d", b.made.UTC().Format(time.RFC3339Nano), place.Made.UTC().Format(time.RFC3339Nano), place.Sequence)
	case b.last < place.Sequence:
		c.differ(Buckets, "went-back", b.name, "it ends at %d, and the audit trail has read it up to %d", b.last, place.Sequence)
	}
	for _, key := range slices.Sorted(maps.Keys(c.trail.records[b.stream])) {
		then := c.trail.records[b.stream][key]
		switch now, ok := b.records[key]; {
		case ok && now.seq < then.seq:
			c.differ(Buckets, "record-went-back", b.name+"/"+key, "it has the revision %d, and the audit trail has seen %d", now.seq, then.seq)
		case !ok && !then.removed && (b.maxAge == 0 || c.cfg.Now().Before(then.stored.Add(b.maxAge))):
			c.differ(Buckets, "record-lost", b.name+"/"+key, "it is not there, and the audit trail has seen its revision %d and nobody take it away", then.seq)
		}
	}
	for _, seq := range slices.Sorted(maps.Keys(c.trail.bySeq[b.stream])) {
		if now, ok := b.digests[seq]; ok && now != c.trail.bySeq[b.stream][seq].digest {
			c.differ(Buckets, "revision-differs", fmt.Sprintf("%s at %d", b.name, seq), "it is not what the audit trail has seen there")
		}
	}
}
