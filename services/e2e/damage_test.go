package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/quash-project/quash/services/fsck"
	"github.com/quash-project/quash/services/revocation/ledger"
	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/guard/natsfeed"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/identity"
)

// admin connects with every right in the log's account.
func (b *brokers) admin() *nats.Conn {
	b.t.Helper()
	creds := filepath.Join(b.t.TempDir(), "admin.creds")
	if err := b.identities.Admin(creds, identity.Log); err != nil {
		b.t.Fatal(err)
	}
	nc, _, err := natsfeed.Connect("nats://"+strings.Join(b.clients, ",nats://"), creds, "a test", nil, nats.ReconnectWait(50*time.Millisecond))
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(nc.Close)
	return nc
}

// leader returns the node that leads the log, and whether all others follow it.
func (b *brokers) leader(nc *nats.Conn) (node int, current bool, err error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return 0, false, err
	}
	s, err := js.Stream(b.t.Context(), wire.Stream)
	if err != nil {
		return 0, false, err
	}
	c := s.CachedInfo().Cluster
	if c == nil || c.Leader == "" {
		return 0, false, errors.New("the log has no leader")
	}
	if _, err := fmt.Sscanf(c.Leader, "nats-%d", &node); err != nil {
		return 0, false, err
	}
	current = len(c.Replicas) == clusterNodes-1
	for _, r := range c.Replicas {
		current = current && r.Current && !r.Offline
	}
	return node - 1, current, nil
}

// lead has one node lead the log.
func (b *brokers) lead(nc *nats.Conn, node int) {
	b.t.Helper()
	eventually(b.t, fmt.Sprintf("nats-%d leads the log", node+1), func() error {
		is, current, err := b.leader(nc)
		if err != nil || is == node && current {
			return err
		}
		if current {
			body := fmt.Sprintf(`{"placement":{"preferred":"nats-%d"}}`, node+1)
			_, err = nc.Request("$JS.API.STREAM.LEADER.STEPDOWN."+wire.Stream, []byte(body), 2*time.Second)
		}
		return errors.Join(err, fmt.Errorf("nats-%d leads it, all current: %t", is+1, current))
	})
}

// copyOf returns where a node keeps the log.
func (b *brokers) copyOf(node int) string {
	b.t.Helper()
	dirs, err := filepath.Glob(filepath.Join(b.disks[node], "jetstream", "*", "streams", wire.Stream))
	if err != nil || len(dirs) != 1 {
		b.t.Fatalf("where the log is: %q, %v", dirs, err)
	}
	return dirs[0]
}

// damage flips a byte of an entry in the middle of a node's copy of the log.
func (b *brokers) damage(node int) {
	b.t.Helper()
	file := filepath.Join(b.copyOf(node), "msgs", "1.blk")
	data, err := os.ReadFile(file)
	if err != nil {
		b.t.Fatal(err)
	}
	at := len(data) / 2
	at += bytes.Index(data[at:], []byte(wire.LogEntry)) + len(wire.LogEntry)
	data[at] ^= 1
	if err := os.WriteFile(file, data, 0o600); err != nil {
		b.t.Fatal(err)
	}
}

// standing wants a service to hold what was acknowledged.
func standing(l *ledger.Ledger, acknowledged map[string]commit.Answer) error {
	if err := l.Ready(); err != nil {
		return err
	}
	for key, a := range acknowledged {
		k := revoke.Target{Tenant: "default", Issuer: revoke.Own, Kind: revoke.KindSession, ID: key}.Key()
		if !l.View().Hit(k, revoke.Stamp{Epoch: a.Epoch, Seq: a.Sequence}) {
			return fmt.Errorf("%s is not revoked", key)
		}
	}
	return nil
}

// TestOneDamagedFileOfThree: the copy of one node is damaged while it is down, and then it
// leads. Nothing that was acknowledged is lost, and whoever starts afterwards has it all.
func TestOneDamagedFileOfThree(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: it mounts file systems on loop devices")
	}
	t.Parallel()
	shipped, err := os.ReadFile(filepath.Join("..", "..", "deploy", "nats", "jetstream.conf"))
	if err != nil {
		t.Fatal(err)
	}
	for name, end := range map[string]syscall.Signal{"after a crash": syscall.SIGKILL, "after an orderly end": syscall.SIGTERM} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // it waits for elections most of its time
			b := newBrokers(t, string(shipped))
			b.start()
			remembers, stopFirst := b.keep(true)
			acknowledged, stop := commitMany(t, remembers, 60)
			stop()
			all, nc := acknowledged(), b.admin()
			var node int
			eventually(t, "all nodes have the log", func() error {
				is, current, err := b.leader(nc)
				if err == nil && !current {
					err = errors.New("not yet")
				}
				node = (is + 1) % clusterNodes
				return err
			})
			_ = b.running[node].Process.Signal(end)
			_ = b.running[node].Wait()
			b.damage(node)
			b.startNode(node)
			b.lead(nc, node)

			// A reading goes to any of the nodes: of so many, some go to this one.
			readings, former, noticed := 20, remembers.Epoch(), 0
			if end == syscall.SIGKILL {
				readings = 4 // it will not be noticed: see below
			}
			for try := 0; try < readings && (noticed == 0 || try < noticed+2); try++ {
				fresh, stop := b.keep(true)
				if noticed == 0 && fresh.Epoch() > former {
					noticed = try + 1
				}
				// Whoever remembers what this one has not read commits it again.
				eventually(t, fmt.Sprintf("reading %d: all that was acknowledged stands", try+1), func() error { return standing(fresh, all) })
				stop()
			}
			t.Logf("noticed by reading %d of %d", noticed, readings)
			stopFirst()
			last, _ := b.keep(true) // of the log alone
			if err := standing(last, all); err != nil {
				t.Errorf("LOST: %v", err)
			}
			if end == syscall.SIGKILL { // the node has seen it by itself, and copied the log anew
				b.agree()
				return
			}
			if noticed == 0 {
				t.Error("nobody noticed what the index of the node hides: was it damaged?")
			}
			// fsck names it until the node's copy is made anew: as docs/operations.md says.
			eventually(t, "fsck names what the node lacks", func() error {
				if r := b.fsck(); len(r.Differences) != 1 || r.Differences[0].Name != "gap" {
					return fmt.Errorf("%q", r.Differences)
				}
				return nil
			})
			b.lead(nc, (node+1)%clusterNodes)
			_ = b.running[node].Process.Signal(syscall.SIGTERM)
			_ = b.running[node].Wait()
			// All that it keeps: with its part of the cluster's own log it would go on to
			// vote for what it has no longer.
			if err := os.RemoveAll(filepath.Join(b.disks[node], "jetstream")); err != nil {
				t.Fatal(err)
			}
			b.startNode(node)
			eventually(t, "the node has a copy again", func() error {
				_, current, err := b.leader(nc)
				if err == nil && !current {
					err = errors.New("not yet")
				}
				return err
			})
			b.lead(nc, node)
			b.agree()
		})
	}
}

func (b *brokers) fsck() fsck.Report {
	b.t.Helper()
	r, err := fsck.Check(b.t.Context(), fsck.Config{Log: b.connect()})
	if err != nil {
		b.t.Fatal(err)
	}
	return r
}

// agree wants fsck to find nothing, whichever node it reads from.
func (b *brokers) agree() {
	b.t.Helper()
	for range 8 {
		if r := b.fsck(); !r.OK {
			b.t.Fatalf("the log afterwards: %q", r.Differences)
		}
	}
}
