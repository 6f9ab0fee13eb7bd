package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/guard/wire"
)

func streamConfig(replicas int) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:        wire.Stream,
		Description: "Quash: the log of revocations. Only the revocation service publishes here; nothing is ever deleted by hand.",
		Subjects:    []string{wire.LogAll},
		Retention:   jetstream.LimitsPolicy,
		Storage:     jetstream.FileStorage,
		Replicas:    replicas,
		// No limit of any kind: entries leave by their own TTL alone, so that
		// the log is the state.
		MaxMsgs: -1, MaxBytes: -1, MaxMsgsPerSubject: -1, MaxConsumers: -1, MaxMsgSize: -1, MaxAge: 0,
		Discard:    jetstream.DiscardNew,
		DenyDelete: true, DenyPurge: true,
		AllowMsgTTL:        true,
		AllowAtomicPublish: true, // where all or nothing is wanted
		// A direct get may be answered by a replica that is behind; who reads
		// one message here decides on it, so the leader answers.
		AllowDirect: false,
		RePublish:   &jetstream.RePublish{Source: wire.LogAll, Destination: wire.FeedAll, HeadersOnly: true},
	}
}

// setUpTime bounds one try to create the stream: with three replicas it takes a
// moment.
const setUpTime = 3 * time.Second

// setUpStream creates the stream, or brings an older one to its settings, and
// says in one line what would let an acknowledged revocation be lost.
func (l *Ledger) setUpStream(ctx context.Context) error {
	// A cluster that has no leader yet leaves the request unanswered.
	ctx, cancel := context.WithTimeout(ctx, setUpTime)
	defer cancel()
	want := streamConfig(l.cfg.Replicas)
	s, err := l.js.CreateOrUpdateStream(ctx, want)
	if err != nil {
		return fmt.Errorf("create stream %s: %w", wire.Stream, err)
	}
	info, err := s.Info(ctx)
	if err != nil {
		return fmt.Errorf("read settings of stream %s: %w", wire.Stream, err)
	}
	hazards := hazardsOf(info, want, l.cfg.SyncAlways)
	l.hazards.Store(&hazards)
	if len(hazards) > 0 {
		l.log.Warn("an acknowledged revocation can be lost: "+strings.Join(hazards, "; "), zap.String("stream", wire.Stream))
	} else {
		l.log.Info("the log keeps what it acknowledges", zap.String("stream", wire.Stream), zap.Int("replicas", info.Config.Replicas))
	}
	return nil
}

// Hazards are the settings by which an acknowledged revocation can be lost, as
// the start-up check found them; none is what should be.
func (l *Ledger) Hazards() []string {
	if h := l.hazards.Load(); h != nil {
		return *h
	}
	return nil
}

func hazardsOf(info *jetstream.StreamInfo, want jetstream.StreamConfig, syncAlways bool) []string {
	var out []string
	add := func(bad bool, text string) {
		if bad {
			out = append(out, text)
		}
	}
	c := info.Config
	add(!syncAlways, "the server may acknowledge before it has synced (set jetstream { sync_interval: always } and say so with sync_always): a power cut loses up to two minutes")
	add(c.Storage != jetstream.FileStorage, "the stream is in memory: a restart loses all")
	add(c.PersistMode != jetstream.DefaultPersistMode, "persist_mode is async, which switches syncing off")
	add(c.MaxAge != 0 || c.MaxMsgs > 0 || c.MaxBytes > 0 || c.MaxMsgsPerSubject > 0, "the stream has a limit of age, number or size, which removes entries that still count")
	add(c.Retention != jetstream.LimitsPolicy, "the stream removes what was read")
	add(!c.DenyDelete || !c.DenyPurge, "entries can be deleted or purged by hand")
	add(!c.AllowMsgTTL, "the stream knows no TTL")
	add(c.AllowRollup, "a publisher can roll entries up")
	add(c.SubjectDeleteMarkerTTL != 0, "the stream writes markers of its own")
	add(c.NoAck, "the stream acknowledges nothing")
	add(c.Mirror != nil || len(c.Sources) > 0, "the stream copies another one")
	add(c.RePublish == nil || *c.RePublish != *want.RePublish, "the feed is not what the stream republishes")
	add(len(c.Subjects) != 1 || c.Subjects[0] != wire.LogAll, "the stream has other subjects than "+wire.LogAll)
	add(c.Replicas < want.Replicas, fmt.Sprintf("the stream has %d replicas, not %d", c.Replicas, want.Replicas))
	return out
}

// raw is one message as the leader has it.
type raw struct {
	seq    uint64
	at     time.Time
	header nats.Header
	data   []byte
	stored wire.Stored
	err    error // of the wire part
}

// ErrNoMessage is what Find and EventAt say of something that the log does not have
// (any more).
var ErrNoMessage = errors.New("no such message in the log")

// getBySeq reads one message at the leader.
func (l *Ledger) getBySeq(ctx context.Context, seq uint64) (raw, error) {
	return l.get(ctx, map[string]any{"seq": seq})
}

// getLast reads the newest message of a subject at the leader.
func (l *Ledger) getLast(ctx context.Context, subject string) (raw, error) {
	return l.get(ctx, map[string]any{"last_by_subj": subject})
}

func (l *Ledger) get(ctx context.Context, ask map[string]any) (raw, error) {
	body, err := json.Marshal(ask)
	if err != nil {
		return raw{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, l.cfg.TryTimeout)
	defer cancel()
	resp, err := l.nc.RequestWithContext(ctx, "$JS.API.STREAM.MSG.GET."+wire.Stream, body)
	if err != nil {
		return raw{}, fmt.Errorf("read the log: %w", err)
	}
	var answer struct {
		Error   *jetstream.APIError `json:"error"`
		Message *struct {
			Subject string    `json:"subject"`
			Seq     uint64    `json:"seq"`
			Header  []byte    `json:"hdrs"`
			Data    []byte    `json:"data"`
			Time    time.Time `json:"time"`
		} `json:"message"`
	}
	if err := json.Unmarshal(resp.Data, &answer); err != nil {
		return raw{}, fmt.Errorf("read the log: %w", err)
	}
	switch {
	case answer.Error != nil && answer.Error.ErrorCode == jetstream.JSErrCodeMessageNotFound:
		return raw{}, ErrNoMessage
	case answer.Error != nil:
		return raw{}, fmt.Errorf("read the log: %w", answer.Error)
	case answer.Message == nil:
		return raw{}, errors.New("read the log: an answer without a message")
	}
	m := answer.Message
	r := raw{seq: m.Seq, at: m.Time, data: m.Data}
	if r.header, err = nats.DecodeHeadersMsg(m.Header); err != nil {
		return raw{}, fmt.Errorf("read the log at %d: %w", m.Seq, err)
	}
	r.stored, r.err = storedOf(r.header, m.Seq, m.Time)
	return r, nil
}

// storedOf decodes the wire part of a message whose place is known.
func storedOf(h nats.Header, seq uint64, at time.Time) (wire.Stored, error) {
	s := wire.Stored{Sequence: seq, Time: at.UnixMilli()}
	parts := h[wire.Header]
	if len(parts) != 1 {
		return s, fmt.Errorf("%w: %d headers %s, want one", wire.ErrMalformed, len(parts), wire.Header)
	}
	var err error
	s.Message, err = wire.Decode([]byte(parts[0]))
	return s, err
}
