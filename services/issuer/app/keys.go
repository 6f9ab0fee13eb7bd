package app

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/quash-project/quash/services/issuer"
	"github.com/quash-project/quash/shared/guard/peer"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
	frame "github.com/quash-project/quash/shared/httpapi"
	"github.com/quash-project/quash/shared/metrics"
)

// events tells whoever listens of what nobody has asked for, as CloudEvents 1.0: see
// schemas/issuer-event.json.
type events struct{ nats *nats.Conn }

type event struct {
	SpecVersion     string `json:"specversion"`
	ID              string `json:"id"`
	Source          string `json:"source"`
	Type            string `json:"type"`
	Subject         string `json:"subject"`
	Time            string `json:"time"`
	DataContentType string `json:"datacontenttype"`
	Data            any    `json:"data"`
}

// keyData is what every event of a key says.
type keyData struct {
	Tenant    string            `json:"tenant"`
	ID        string            `json:"id"`
	Kind      string            `json:"kind"`
	Owner     string            `json:"owner"`
	ClientID  string            `json:"client_id"`
	Name      string            `json:"name,omitempty"`
	Labels    map[string]string `json:"labels,omitempty"`
	ExpiresAt string            `json:"expires_at"`
}

type expiringData struct {
	keyData
	// BeforeSeconds is which of the warnings it is.
	BeforeSeconds int64 `json:"before_seconds"`
}

type rotatedData struct {
	keyData
	Next      string `json:"next"`
	Until     string `json:"until"`
	Emergency bool   `json:"emergency,omitempty"`
	By        string `json:"by"`
	Sealed    bool   `json:"sealed,omitempty"`
	// Outcome is of a rotation that has come to its end.
	Outcome string `json:"outcome,omitempty"`
}

type dueData struct {
	keyData
	Firing string `json:"firing"`
	By     string `json:"by"`
}

const (
	eventSource      = "/quash/issuer"
	typeKeyExpiring  = "dev.quash.key.expiring"
	typeKeyRotated   = "dev.quash.key.rotated"
	typeRotationDone = "dev.quash.key.rotation-ended"
	typeKeyDue       = "dev.quash.key.due"
	eventTime        = "2006-01-02T15:04:05.000Z07:00"
)

// keyExpiring tells that a key's end is near. The record says so next, so that an event
// that nobody hears is not lost.
func (e events) keyExpiring(_ context.Context, x issuer.KeyExpiring) error {
	k := &x.Key
	return e.tell(k, "key-expiring", event{
		Type: typeKeyExpiring,
		// The same warning is the same event.
		ID: k.ID + "-" + strconv.FormatInt(k.Expires.Add(-x.Before).Unix(), 10), Time: x.At.UTC().Format(eventTime),
		Data: expiringData{dataOf(k), int64(x.Before / time.Second)},
	})
}

// keyRotated tells that another key takes the place of one, and what has become of that.
func (e events) keyRotated(_ context.Context, x issuer.KeyRotated) error {
	k, r := &x.Key, x.Key.Rotation
	data := rotatedData{keyData: dataOf(k), Next: r.Next, Until: r.Until.UTC().Format(eventTime), Emergency: r.Emergency, By: r.By, Sealed: r.Sealed}
	typ, what := typeKeyRotated, "key-rotated"
	if x.Change != issuer.RotationBegun {
		typ, what, data.Outcome = typeRotationDone, "key-rotation-ended", string(x.Change)
	}
	return e.tell(k, what, event{Type: typ, ID: r.Next + "-" + string(x.Change), Time: x.At.UTC().Format(eventTime), Data: data})
}

// keyDue tells that a key should be rotated, and that nobody is registered who could have the
// new secret. The same firing is the same event.
func (e events) keyDue(_ context.Context, x issuer.KeyDue) error {
	k := &x.Key
	return e.tell(k, "key-due", event{
		Type: typeKeyDue, ID: k.ID + "-due-" + x.Firing, Time: x.At.UTC().Format(eventTime), Data: dueData{dataOf(k), x.Firing, x.By},
	})
}

func dataOf(k *issuer.Key) keyData {
	return keyData{
		Tenant: k.Tenant, ID: k.ID, Kind: string(k.Kind), Owner: k.Owner, ClientID: k.ClientID(), Name: k.Name, Labels: k.Labels,
		ExpiresAt: k.Expires.UTC().Format(eventTime),
	}
}

func (e events) tell(k *issuer.Key, what string, v event) error {
	v.SpecVersion, v.Source, v.DataContentType = "1.0", eventSource, "application/json"
	v.Subject = revoke.Target{Kind: revoke.KindKey, ID: k.ID}.String()
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return e.nats.Publish(wire.EventIssuer+k.Tenant+"."+what, data)
}

// leakIn is how long it may take to deal with a secret that stands in a URL.
const leakIn = 5 * time.Second

// leaks deals with secrets in URLs as if somebody had shown them.
func (s *Service) leaks(proxies peer.Proxies) frame.Leaks {
	return frame.Leaks{Known: s.domain.Imported, Told: func(r *http.Request, where string, secrets []string) {
		// Who sent it may have gone; it has leaked all the same.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), leakIn)
		defer cancel()
		for _, secret := range secrets {
			if err := s.domain.ReportLeak(ctx, secret, where, proxies.Caller(r)); err != nil {
				s.log.Warn("a secret in a URL could not be dealt with", zap.String("request_id", frame.RequestID(r.Context())), zap.Error(err))
			}
		}
	}}
}

func (s *Service) keyMetrics() []prometheus.Collector {
	count := func(name, help string, of func(issuer.Stats) uint64) prometheus.Collector {
		return metrics.Counter(name, help, nil, func() float64 { return float64(of(s.domain.Stats())) })
	}
	canaries := func(outcome string, of func(issuer.CanaryStats) uint64) prometheus.Collector {
		return metrics.Counter("quash_canaries_total", "Tokens that were issued and cut to see that it takes effect, by outcome: refused as it should be, lives (an alarm), failed.",
			prometheus.Labels{"outcome": outcome}, func() float64 { return float64(of(s.domain.CanaryStats())) })
	}
	rotations := func(outcome string, of func(issuer.Stats) uint64) prometheus.Collector {
		return metrics.Counter("quash_key_rotations_total", "Rotations of API keys and client secrets: begun, ended (the old key has ended) and back (the new one has).",
			prometheus.Labels{"outcome": outcome}, func() float64 { return float64(of(s.domain.Stats())) })
	}
	return []prometheus.Collector{
		rotations("begun", func(s issuer.Stats) uint64 { return s.Rotated }),
		rotations("ended", func(s issuer.Stats) uint64 { return s.RotatedOut }),
		rotations("back", func(s issuer.Stats) uint64 { return s.RotatedBack }),
		metrics.Gauge("quash_keys_in_overlap", "API keys and client secrets whose place another one takes, and which are still good.",
			func() float64 { keys, _ := s.domain.InOverlap(); return float64(keys) }),
		metrics.Gauge("quash_keys_in_overlap_used", "Those of them that were used since.",
			func() float64 { _, used := s.domain.InOverlap(); return float64(used) }),
		canaries("refused", func(s issuer.CanaryStats) uint64 { return s.Refused }),
		canaries("lives", func(s issuer.CanaryStats) uint64 { return s.Lives }),
		canaries("failed", func(s issuer.CanaryStats) uint64 { return s.Failed }),
		count("quash_keys_rate_limited_total", "Exchanges refused by the rate limit of their key.", func(s issuer.Stats) uint64 { return s.RateLimited }),
		count("quash_keys_leaked_total", "Times that somebody has shown an API key or client secret that should be secret.", func(s issuer.Stats) uint64 { return s.Leaked }),
		count("quash_keys_due_total", "Times that a schedule was to rotate a key for which nobody has registered a recipient, so that its owner was told.", func(s issuer.Stats) uint64 { return s.Due }),
		count("quash_keys_expiring_total", "Times that the end of a key was told of, each by the replica that was first.", func(s issuer.Stats) uint64 { return s.Expiring }),
	}
}
