package natstrail

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"strings"
	"time"

	"github.com/quash-project/quash/services/revocation/audit"
	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/identity"
	"github.com/quash-project/quash/shared/kv"
)

// stored is a message of a source.
type stored struct {
	source   string
	sequence uint64
	at       time.Time
	subject  string
	header   map[string][]string
	body     []byte
}

func (s *stored) digest() audit.Digest {
	h := sha256.New()
	var n [4]byte
	for _, part := range [...]string{s.subject, first(s.header, wire.Header), string(s.body)} {
		binary.BigEndian.PutUint32(n[:], uint32(len(part)))
		h.Write(n[:])
		h.Write([]byte(part))
	}
	var d audit.Digest
	h.Sum(d[:0])
	return d
}

func first(header map[string][]string, name string) string {
	if v := header[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// item returns what a message says, false if it says nothing of a change.
func (s *stored) item() (audit.Item, bool) {
	it := audit.Item{Source: s.source, Sequence: s.sequence, Stored: s.at.UTC(), Digest: s.digest()}
	if s.source == wire.Stream {
		return it, s.subject != wire.LogTick && ofLog(&it, s)
	}
	bucket, key, ok := strings.Cut(strings.TrimPrefix(s.subject, "$KV."), ".")
	if !ok || strings.HasPrefix(key, kv.BeatPrefix) {
		return it, false
	}
	it.Bucket, it.Key = bucket, key
	ofRecord(&it, s)
	return it, true
}

// ofLog takes the event of a message. One that can't be read is in the chain all
// the same, by its digest.
func ofLog(it *audit.Item, s *stored) bool {
	var e struct {
		Type string    `json:"type"`
		Time time.Time `json:"time"`
		Data struct {
			Actor  string `json:"actor"`
			Reason string `json:"reason"`
		} `json:"data"`
	}
	it.Type, it.At = "dev.quash.log.unknown", it.Stored
	if json.Unmarshal(s.body, &e) != nil || e.Type == "" {
		return true
	}
	if LeftOut(s.body) {
		return false
	}
	it.Type, it.Actor, it.Reason, it.Event = e.Type, e.Data.Actor, e.Data.Reason, s.body
	if !e.Time.IsZero() {
		it.At = e.Time.UTC()
	}
	return true
}

// LeftOut reports whether the body of an entry is about a canary alone. The trail leaves
// it out: there is one every few seconds, and it can hit nothing of anybody's.
func LeftOut(body []byte) bool {
	var e struct {
		Data struct {
			Service    string            `json:"service"`
			Op         commit.Op         `json:"op"`
			Targets    []commit.Target   `json:"targets"`
			TargetKeys []json.RawMessage `json:"target_keys"`
		} `json:"data"`
	}
	d := &e.Data
	return json.Unmarshal(body, &e) == nil && len(d.TargetKeys) == 0 && commit.IsCanary(d.Service, d.Op, d.Targets)
}

// ofRecord takes who changed a record, why and when, as the record says.
func ofRecord(it *audit.Item, s *stored) {
	it.Type, it.At = audit.TypePut, it.Stored
	if op := first(s.header, "KV-Operation"); op != "" || len(s.header["Nats-Marker-Reason"]) > 0 {
		// What is removed was marked before, with who and why; or it has expired.
		it.Type, it.Actor, it.Reason = audit.TypeRemove, ownerOf(it.Bucket), "what was marked is finished"
		if why := first(s.header, "Nats-Marker-Reason"); why != "" {
			it.Reason = "its time has come: " + why
		}
		return
	}
	it.Actor, it.Reason = ownerOf(it.Bucket), "a record that does not say why"
	var v any
	if json.Unmarshal(s.body, &v) != nil {
		return
	}
	if a := newest(v); !a.at.IsZero() {
		it.Actor, it.Reason, it.At, it.Request = a.actor, a.reason, a.at.UTC(), a.request
	}
	if m, ok := v.(map[string]any); ok && it.Bucket == identity.Pending {
		it.Incident, _ = m["incident"].(string)
	}
}

func ownerOf(bucket string) string {
	if bucket == identity.Incidents {
		return identity.Revocation
	}
	for service, buckets := range identity.Buckets {
		for _, b := range buckets {
			if b == bucket {
				return service
			}
		}
	}
	if bucket == identity.Pending {
		return identity.Revocation
	}
	return "unknown"
}

// account is who did something, why and when, and by which request.
type account struct {
	actor, reason string
	at            time.Time
	request       string
}

// newest returns the newest account in a record: some hold many things, each
// with an account of its own, and a mark beside what it marks.
func newest(v any) (out account) {
	take := func(a account) {
		if a.at.After(out.at) || a.at.Equal(out.at) && out.reason == "" {
			out = a
		}
	}
	switch v := v.(type) {
	case []any:
		for _, x := range v {
			take(newest(x))
		}
	case map[string]any:
		if actor, _ := v["actor"].(string); actor != "" {
			reason, _ := v["reason"].(string)
			request, _ := v["request"].(string)
			take(account{actor, reason, instant(v["at"]), request})
		}
		for _, x := range v {
			take(newest(x))
		}
	}
	return out
}

// instant reads the forms in which records have times: RFC 3339, or Unix
// milliseconds.
func instant(v any) time.Time {
	switch v := v.(type) {
	case string:
		if t, err := time.Parse(time.RFC3339, v); err == nil {
			return t
		}
	case float64:
		return time.UnixMilli(int64(v))
	}
	return time.Time{}
}
