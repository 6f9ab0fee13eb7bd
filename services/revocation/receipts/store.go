package receipts

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/quash-project/quash/services/revocation/ledger"
	"github.com/quash-project/quash/shared/kv"
	"github.com/quash-project/quash/shared/problem"
)

// Bucket has the receipts, the proof keys, and how far the log has receipts.
const Bucket = "receipts"

// Stream is the stream of the bucket.
const Stream = "KV_" + Bucket

const (
	subject       = "$KV." + Bucket + "."
	receiptPrefix = "r."
	cursorKey     = "cursor"
	// noteHeader has a note in short, so that a list needs no bodies.
	noteHeader = "Quash-Receipt"
)

// note is what a receipt's header says of it.
type note struct {
	Tenant      string `json:"tenant"`
	Epoch       uint64 `json:"epoch"`
	Sequence    uint64 `json:"sequence"`
	CommittedAt int64  `json:"committed_at"`
	Complete    bool   `json:"complete"`
	Incident    string `json:"incident,omitempty"`
}

func noteOf(r *Receipt) note {
	return note{r.Tenant, r.Epoch, r.Sequence, r.CommittedAt, r.Complete, r.Incident}
}

// store is the bucket. Until run has opened it everything is problem.Unavailable.
type store struct {
	js     jetstream.JetStream
	broker ledger.Broker
	now    func() time.Time
	log    *zap.Logger

	late *kv.Late
}

// How long the bucket may take to begin to be followed, and to answer, and how long it is
// paused before it is followed anew.
const (
	openIn    = 5 * time.Second
	openAgain = 500 * time.Millisecond
	answerIn  = 3 * time.Second
)

func newStore(nc *nats.Conn, cfg Config) (*store, error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, fmt.Errorf("receipts: %w", err)
	}
	broker, err := ledger.NewBroker(nc, ledger.Config{NATS: nc, Rand: cfg.Rand})
	if err != nil {
		return nil, fmt.Errorf("receipts: %w", err)
	}
	stream := kv.StreamOf(Bucket, "receipts of revocations, and the sealed keys that sign them", cfg.Replicas)
	// An older version of a receipt shows how it came to be. Messages have a TTL of their
	// own, and batches are stored as one.
	stream.MaxMsgsPerSubject, stream.AllowMsgTTL, stream.AllowAtomicPublish = 8, true, true
	return &store{js: js, broker: broker, now: cfg.Now, log: cfg.Log, late: kv.NewLate(js, stream, "the receipts can't be read yet; try again")}, nil
}

// run makes the bucket, trying until it can or ctx ends.
func (s *store) run(ctx context.Context) error {
	return s.late.Open(ctx, func(err error) {
		s.log.Warn("receipts can't be kept until their bucket can be opened; they are made up then", zap.Error(err))
	})
}

// get reads a receipt and its revision; problem.NotFound if there is none.
func (s *store) get(ctx context.Context, id string) (Receipt, uint64, error) {
	b, err := s.late.Bucket(ctx)
	if err != nil {
		return Receipt{}, 0, err
	}
	return kv.Get[Receipt](ctx, b, receiptPrefix+id)
}

// errRaced says that somebody has written in between.
var errRaced = errors.New("another replica has written it meanwhile")

// write is a receipt that is to follow a revision of its record.
type write struct {
	receipt  Receipt
	revision uint64
	err      error // after putAll
}

func (s *store) message(w *write) (*nats.Msg, error) {
	r := &w.receipt
	data, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	head, err := json.Marshal(noteOf(r))
	if err != nil {
		return nil, err
	}
	ttl := max(time.UnixMilli(r.KeepUntil).Sub(s.now()), time.Minute)
	return &nats.Msg{Subject: subject + receiptPrefix + r.ID, Data: data, Header: nats.Header{
		noteHeader:                          {string(head)},
		jetstream.MsgTTLHeader:              {strconv.FormatInt(int64(ttl/time.Second), 10)},
		jetstream.ExpectedLastSubjSeqHeader: {strconv.FormatUint(w.revision, 10)},
	}}, nil
}

// put writes one receipt; errRaced if its revision is not the newest.
func (s *store) put(ctx context.Context, w *write) error {
	m, err := s.message(w)
	if err != nil {
		return err
	}
	if _, err := s.late.Bucket(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, answerIn)
	defer cancel()
	_, err = s.broker.Publish(ctx, m)
	return classify(err)
}

func classify(err error) error {
	var api *jetstream.APIError
	if errors.As(err, &api) && (api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant) {
		return errRaced
	}
	if err != nil {
		return problem.Wrap(problem.Unavailable, err, "the receipt could not be written; try again")
	}
	return nil
}

// batchFrom is from how many receipts on a batch costs less than each by itself;
// see package ledger. batchBytes bounds one.
const (
	batchFrom  = 15
	batchBytes = 4 << 20
)

// putAll writes receipts, together where they are many. Each write has its error.
func (s *store) putAll(ctx context.Context, ws []*write) {
	for len(ws) > 0 && ctx.Err() == nil {
		var ms []*nats.Msg
		size, n := 0, 0
		for n < len(ws) && n < 1000 {
			m, err := s.message(ws[n])
			if err != nil {
				ws[n].err = err
				break
			}
			if size += len(m.Data); size > batchBytes && n > 0 {
				break
			}
			ms = append(ms, m)
			n++
		}
		if n == 0 { // it can't be encoded
			ws = ws[1:]
			continue
		}
		if n < batchFrom || s.batch(ctx, ms) != nil {
			// One member that lost a race refuses them all.
			for _, w := range ws[:n] {
				w.err = s.put(ctx, w)
			}
		}
		ws = ws[n:]
	}
	for _, w := range ws {
		w.err = cmp.Or(w.err, ctx.Err())
	}
}

func (s *store) batch(ctx context.Context, ms []*nats.Msg) error {
	ctx, cancel := context.WithTimeout(ctx, answerIn)
	defer cancel()
	_, err := s.broker.PublishBatch(ctx, ms)
	return err
}

// cursor is the position up to which every entry of the log has a receipt that is
// complete, or was looked at for as long as one is.
type cursor struct {
	Epoch    uint64 `json:"epoch"`
	Sequence uint64 `json:"sequence"`
}

func (s *store) readCursor(ctx context.Context) (cursor, error) {
	b, err := s.late.Bucket(ctx)
	if err != nil {
		return cursor{}, err
	}
	c, _, err := kv.Get[cursor](ctx, b, cursorKey)
	if err != nil && problem.KindOf(err) == problem.NotFound {
		return cursor{}, nil
	}
	return c, err
}

var errNotAhead = errors.New("another replica is further")

func (s *store) moveCursor(ctx context.Context, to cursor) error {
	b, err := s.late.Bucket(ctx)
	if err != nil {
		return err
	}
	_, _, err = kv.Change(ctx, b, cursorKey, func(is cursor) (cursor, error) {
		if is.Epoch > to.Epoch || is.Epoch == to.Epoch && is.Sequence >= to.Sequence {
			return is, errNotAhead
		}
		return to, nil
	})
	if err != nil && problem.KindOf(err) == problem.NotFound {
		_, err = kv.Create(ctx, b, cursorKey, to)
	}
	if errors.Is(err, errNotAhead) || err != nil && problem.KindOf(err) == problem.Conflict {
		return nil
	}
	return err
}
