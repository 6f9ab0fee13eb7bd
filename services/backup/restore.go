package backup

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/quash-project/quash/services/revocation/ledger"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// auditStream is kept where it is there: it is a chain of what was done, also of
// what the restore undoes.
const auditStream = "QUASH_AUDIT"

// Order is how a backup is restored.
type Order struct {
	// Replace deletes streams that are there. Without it a restore touches a broker
	// only if it has none of the backup's.
	Replace bool
	Actor   string // for the event of the new epoch
	Reason  string
	Now     func() time.Time
}

// Errors of Restore before it has touched anything.
var (
	ErrRunning = errors.New("services are running: end revocation, issuer and rotator first")
	ErrExists  = errors.New("the broker has streams of the backup already: to replace them by what the backup has, say so")
)

// Restored is what was done.
type Restored struct {
	Manifest
	Kept  []string // streams that were there and are kept
	Epoch revoke.Epoch
}

// Restore puts a backup in place and begins a new epoch. The backup is read twice,
// by open: it is checked as a whole first. An error after that says so; the same
// restore can then be done again, with Replace.
func Restore(ctx context.Context, b Broker, open func() (io.ReadCloser, error), o Order) (Restored, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	c, err := checked(open)
	if err != nil {
		return Restored{}, err
	}
	out := Restored{Manifest: c.Manifest}
	if err := b.stopped(ctx); err != nil {
		return out, err
	}
	if out.Kept, err = b.makeRoom(ctx, c, o.Replace); err != nil {
		return out, err
	}
	r, err := open()
	if err != nil {
		return out, err
	}
	defer r.Close()
	if err := b.put(ctx, r, c, out.Kept); err != nil {
		return out, fmt.Errorf("the restore is not whole, and no service must be started on it; do it again: %w", err)
	}
	log, _ := c.find(wire.Stream)
	out.Epoch, err = ledger.BeginRestored(ctx, ledger.Config{NATS: b.Log, Now: o.Now},
		ledger.EpochOrder{Actor: o.Actor, Reason: o.Reason, Last: log.LastSeq})
	if err != nil {
		return out, fmt.Errorf("everything is restored, but the new epoch was not begun; do the restore again: %w", err)
	}
	return out, nil
}

func checked(open func() (io.ReadCloser, error)) (*contents, error) {
	r, err := open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	c, err := check(r)
	if err != nil {
		return nil, err
	}
	if _, ok := c.find(wire.Stream); !ok {
		return nil, fmt.Errorf("%w: it has no log", errDamaged)
	}
	return c, nil
}

func (c *contents) find(name string) (Stream, bool) {
	for _, s := range c.Streams {
		if s.Name == name {
			return s, true
		}
	}
	return Stream{}, false
}

// stopped fails if a service runs: revocation would make its log anew as soon as
// it is gone, and the others would write into buckets that are replaced.
func (b Broker) stopped(ctx context.Context) error {
	for _, ask := range []struct {
		conn    *nats.Conn
		subject string
	}{
		{b.Log, wire.GuardSubject("restore", wire.OpReport)}, // every replica hears it, ready or not
		{b.Control, wire.APIRotation + "restore"},
		{b.Control, wire.BreakGlassIssuer + "restore"},
	} {
		one, cancel := context.WithTimeout(ctx, time.Second)
		_, err := ask.conn.RequestWithContext(one, ask.subject, nil)
		cancel()
		switch {
		case errors.Is(err, nats.ErrNoResponders):
		case err == nil, errors.Is(err, context.DeadlineExceeded):
			return fmt.Errorf("%w (somebody listens to %s)", ErrRunning, ask.subject)
		default:
			return err
		}
	}
	return nil
}

// makeRoom deletes what the backup replaces, and returns what is kept.
func (b Broker) makeRoom(_ context.Context, c *contents, replace bool) (kept []string, err error) {
	var there []func() error
	for _, s := range c.Streams {
		m, err := b.manager(s.Account)
		if err != nil {
			return nil, err
		}
		known, err := m.IsKnownStream(s.Name)
		if err != nil {
			return nil, err
		}
		switch {
		case !known:
		case s.Name == auditStream:
			kept = append(kept, s.Name)
		default:
			there = append(there, func() error { return m.DeleteStream(s.Name) })
		}
	}
	if len(there) > 0 && !replace {
		return nil, ErrExists
	}
	for _, remove := range there {
		if err := remove(); err != nil {
			return nil, fmt.Errorf("make room for the backup: %w", err)
		}
	}
	return kept, nil
}

// put restores the streams in the order of the file.
func (b Broker) put(ctx context.Context, r io.Reader, c *contents, kept []string) error {
	data := &stream{tar: tar.NewReader(r)}
	if err := data.next(); err != nil {
		return err
	}
	for _, s := range c.Streams {
		data.name = s.Account + "/" + s.Name
		if len(kept) > 0 && s.Name == kept[0] {
			if _, err := io.Copy(io.Discard, data); err != nil {
				return err
			}
			continue
		}
		nc, err := b.conn(s.Account)
		if err != nil {
			return err
		}
		last, err := upload(ctx, nc, s.Name, c.configs[data.name], data)
		if err != nil {
			return fmt.Errorf("restore the stream %s: %w", s.Name, err)
		}
		if last != s.LastSeq {
			return fmt.Errorf("restore the stream %s: it ends at %d, and the backup at %d", s.Name, last, s.LastSeq)
		}
	}
	return nil
}

// stream reads the parts of one stream's data as one.
type stream struct {
	tar  *tar.Reader
	head *tar.Header // of the file that is read; nil at the end
	name string      // of the stream that is wanted
}

func (s *stream) next() (err error) {
	if s.head, err = s.tar.Next(); errors.Is(err, io.EOF) {
		s.head, err = nil, nil
	}
	return err
}

func (s *stream) Read(p []byte) (int, error) {
	for s.head != nil {
		of, file := split(s.head.Name)
		if of != s.name {
			return 0, io.EOF // of the next stream
		}
		if strings.HasPrefix(file, dataPrefix) {
			n, err := s.tar.Read(p)
			if n > 0 {
				return n, nil
			}
			if err != nil && !errors.Is(err, io.EOF) {
				return 0, err
			}
		}
		if err := s.next(); err != nil {
			return 0, err
		}
	}
	return 0, io.EOF
}
