package backup

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/jsm.go"
	"github.com/nats-io/nats.go"

	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/identity"
)

// Broker is the connections by which streams are saved and restored: with every
// right in the accounts of log and buckets (see identity.Set.Admin).
type Broker struct {
	Log, Control *nats.Conn
}

func (b Broker) conn(account string) (*nats.Conn, error) {
	switch account {
	case identity.Log:
		return b.Log, nil
	case identity.Control:
		return b.Control, nil
	}
	return nil, fmt.Errorf("the account %.40q has no streams", account)
}

// patience is how long the broker may take to answer one question of ours.
const patience = 10 * time.Second

func (b Broker) manager(account string) (*jsm.Manager, error) {
	nc, err := b.conn(account)
	if err != nil {
		return nil, err
	}
	return jsm.New(nc, jsm.WithTimeout(patience))
}

// Save writes a backup of everything that there is. It may run while the services
// do.
func Save(ctx context.Context, b Broker, w io.Writer, now time.Time) (Manifest, error) {
	a := newArchive(w, now)
	found := false
	for _, account := range []string{identity.Control, identity.Log} {
		m, err := b.manager(account)
		if err != nil {
			return a.manifest, err
		}
		names, err := m.StreamNames(nil)
		if err != nil {
			return a.manifest, fmt.Errorf("list the streams of %s: %w", account, err)
		}
		for _, name := range inOrder(names) {
			if err := save(ctx, a, m, account, name); err != nil {
				return a.manifest, fmt.Errorf("save the stream %s of %s: %w", name, account, err)
			}
			found = found || name == wire.Stream
		}
	}
	if !found {
		return a.manifest, errors.New("there is no log: is it the broker of a Quash?")
	}
	return a.manifest, a.close()
}

// inOrder puts the log last: it then has all that the others refer to.
func inOrder(names []string) []string {
	slices.SortFunc(names, func(a, b string) int {
		switch wire.Stream {
		case a:
			return 1
		case b:
			return -1
		}
		return strings.Compare(a, b)
	})
	return names
}

// buffer is a bytes.Buffer that the client library may close.
type buffer struct{ bytes.Buffer }

func (*buffer) Close() error { return nil }

func save(ctx context.Context, a *archive, m *jsm.Manager, account, name string) error {
	s, err := m.LoadStream(name)
	if err != nil {
		return err
	}
	p := a.begin(account, name)
	var config buffer
	if _, err := s.SnapshotToBuffer(ctx, p, &config, jsm.SnapshotHealthCheck()); err != nil {
		return err
	}
	var meta struct {
		State struct {
			LastSeq uint64 `json:"last_seq"`
		} `json:"state"`
	}
	if err := json.Unmarshal(config.Bytes(), &meta); err != nil {
		return err
	}
	return p.end(config.Bytes(), meta.State.LastSeq)
}
