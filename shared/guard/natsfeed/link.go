package natsfeed

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	"github.com/nats-io/nats.go"

	"github.com/quash-project/quash/shared/guard/follow"
	"github.com/quash-project/quash/shared/guard/wire"
)

// What the client holds of the feed for a reader that is slow for a moment; a
// message with 1,000 targets has some 30 KB.
const (
	pendingMessages = 1 << 20
	pendingBytes    = 256 << 20
)

// Link is both the Source and the Feed of a reader. It is safe for concurrent
// use.
type Link struct {
	nc   *nats.Conn
	user string
}

var (
	_ follow.Source = (*Link)(nil)
	_ follow.Feed   = (*Link)(nil)

	_ follow.AttemptsSource = (*Link)(nil)
	_ follow.RunningSource  = (*Link)(nil)
	_ follow.QuestionFeed   = (*Link)(nil)
	_ follow.SeenSource     = (*Link)(nil)
)

// New returns the link of the reader whose NATS user has this name.
func New(nc *nats.Conn, user string) (*Link, error) {
	if err := wire.CheckInstance(user); err != nil {
		return nil, fmt.Errorf("natsfeed: user: %w", err)
	}
	return &Link{nc: nc, user: user}, nil
}

// Sync implements follow.Source.
func (l *Link) Sync(ctx context.Context, req wire.SyncRequest) (wire.SyncAnswer, error) {
	return ask[wire.SyncAnswer](ctx, l, wire.OpSync, req)
}

// Probe implements follow.Source.
func (l *Link) Probe(ctx context.Context, req wire.ProbeRequest) (wire.ProbeAnswer, error) {
	return ask[wire.ProbeAnswer](ctx, l, wire.OpProbe, req)
}

// Join implements follow.Source.
func (l *Link) Join(ctx context.Context, req wire.JoinRequest) (wire.JoinAnswer, error) {
	return ask[wire.JoinAnswer](ctx, l, wire.OpJoin, req)
}

// Out implements follow.Source.
func (l *Link) Out(ctx context.Context, req wire.OutRequest) (wire.JoinAnswer, error) {
	return ask[wire.JoinAnswer](ctx, l, wire.OpOut, req)
}

// Page implements follow.Source.
func (l *Link) Page(ctx context.Context, replica string, req wire.PageRequest) ([]byte, error) {
	// What an answer says must not lead anywhere but to a replica.
	if err := wire.CheckInstance(replica); err != nil {
		return nil, fmt.Errorf("page: replica: %w", err)
	}
	msg, err := l.request(ctx, wire.OpPage+"."+replica, req)
	if err != nil {
		return nil, err
	}
	if refusal := refused(msg.Data); refusal != nil {
		return nil, refusal
	}
	return msg.Data, nil
}

// Report implements follow.Source.
func (l *Link) Report(_ context.Context, report wire.Report) error {
	data, err := json.Marshal(report)
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return l.nc.Publish(wire.GuardSubject(l.user, wire.OpReport), data)
}

// Attempts implements follow.AttemptsSource.
func (l *Link) Attempts(_ context.Context, report wire.AttemptsReport) error {
	data, err := json.Marshal(report)
	if err != nil {
		return fmt.Errorf("attempts: %w", err)
	}
	return l.nc.Publish(wire.GuardSubject(l.user, wire.OpAttempts), data)
}

// Running implements follow.RunningSource.
func (l *Link) Running(_ context.Context, report wire.RunningReport) error {
	data, err := json.Marshal(report)
	if err != nil {
		return fmt.Errorf("running: %w", err)
	}
	return l.nc.Publish(wire.GuardSubject(l.user, wire.OpRunning), data)
}

// Seen implements follow.SeenSource.
func (l *Link) Seen(_ context.Context, replica string, answer wire.Seen) error {
	// What a question says must not lead anywhere but to a replica.
	if err := wire.CheckInstance(replica); err != nil {
		return fmt.Errorf("seen: replica: %w", err)
	}
	data, err := json.Marshal(answer)
	if err != nil {
		return fmt.Errorf("seen: %w", err)
	}
	return l.nc.Publish(wire.GuardSubject(l.user, wire.OpSeen+"."+replica), data)
}

// Questions implements follow.QuestionFeed. What can't be read is of a newer service, and
// is not answered.
func (l *Link) Questions(deliver func(wire.Question)) (stop func(), err error) {
	sub, err := l.nc.Subscribe(wire.FeedAsk, func(m *nats.Msg) {
		if q, err := wire.DecodeRequest[wire.Question](m.Data); err == nil {
			deliver(q)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("questions: %w", err)
	}
	return func() { _ = sub.Unsubscribe() }, nil // fails only on a connection that is closed already
}

func (l *Link) request(ctx context.Context, op string, req any) (*nats.Msg, error) {
	data, err := json.Marshal(req)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	msg, err := l.nc.RequestWithContext(ctx, wire.GuardSubject(l.user, op), data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	return msg, nil
}

func ask[T any](ctx context.Context, l *Link, op string, req any) (T, error) {
	msg, err := l.request(ctx, op, req)
	if err != nil {
		var none T
		return none, err
	}
	ans, err := wire.DecodeAnswer[T](msg.Data)
	if err != nil {
		return ans, fmt.Errorf("%s: %w", op, err)
	}
	return ans, nil
}

// refused reads a refusal where a page was wanted; a page never begins so.
func refused(data []byte) error {
	if len(data) == 0 || data[0] != '{' {
		return nil
	}
	ans, err := wire.DecodeAnswer[struct {
		Error *wire.Refusal `json:"error"`
	}](data)
	if err != nil || ans.Error == nil {
		return nil // not a page either; whoever decodes it says so
	}
	return ans.Error
}

// Subscribe implements follow.Feed.
func (l *Link) Subscribe(deliver func(wire.Stored, error), lost func()) (stop func(), err error) {
	f := &feed{nc: l.nc, deliver: deliver, lost: lost, connections: l.nc.Stats().Reconnects}
	status := l.nc.StatusChanged(nats.CONNECTED)
	sub, err := l.nc.Subscribe(wire.FeedAll, f.receive)
	if err != nil {
		l.nc.RemoveStatusListener(status)
		return nil, fmt.Errorf("feed: %w", err)
	}
	if err := sub.SetPendingLimits(pendingMessages, pendingBytes); err != nil {
		l.nc.RemoveStatusListener(status)
		return nil, fmt.Errorf("feed: %w", err)
	}
	slow := sub.StatusChanged(nats.SubscriptionSlowConsumer)
	done := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() { f.watch(status, slow, done) })
	return sync.OnceFunc(func() {
		close(done)
		l.nc.RemoveStatusListener(status)
		_ = sub.Unsubscribe() // fails only on a connection that is closed already
		watching.Wait()
	}), nil
}

// feed hands on what comes, and before it what may have been lost.
type feed struct {
	nc      *nats.Conn
	deliver func(wire.Stored, error)
	lost    func()

	mu          sync.Mutex
	connections uint64 // how many came after the first, when last looked
}

func (f *feed) receive(msg *nats.Msg) {
	f.mu.Lock()
	defer f.mu.Unlock()
	// The client counts a reconnect before it reads anything from it; its status
	// channel may be heard only after the first messages have come.
	f.reconnected()
	if msg.Subject == wire.FeedAsk {
		return // no message of the log; see Questions
	}
	f.deliver(wire.FromHeader(msg.Header))
}

// reconnected tells of a loss if the connection is another one than before.
func (f *feed) reconnected() {
	if n := f.nc.Stats().Reconnects; n != f.connections {
		f.connections = n
		f.lost()
	}
}

// watch tells of losses that no message follows.
func (f *feed) watch(status <-chan nats.Status, slow <-chan nats.SubStatus, done <-chan struct{}) {
	for {
		select {
		case <-done:
			return
		case _, ok := <-status:
			if !ok {
				status = nil
				continue
			}
			f.mu.Lock()
			f.reconnected()
			f.mu.Unlock()
		case _, ok := <-slow:
			if !ok {
				slow = nil
				continue
			}
			f.mu.Lock()
			f.lost()
			f.mu.Unlock()
		}
	}
}
