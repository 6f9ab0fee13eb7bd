// Package dev is all of Quash in one process, on one machine: the same services
// as everywhere, over an embedded nats-server (JetStream on disk, synced before
// each acknowledgement) and a Redis-protocol server in memory, with a guarded
// demo resource server beside them.
//
// What is in its directory survives: identities and keys are made once, ports
// are kept, since the issuer's URL stands in every token. The directory is
// locked, and the lock is what proves that a former process is gone: so its
// guards are declared out at start. It listens on loopback only.
package dev

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"

	"github.com/quash-project/quash/services/revocation"
	"github.com/quash-project/quash/shared/process"
)

// Config is what the operator may choose.
type Config struct {
	DataDir    string // empty: .quash
	Listen     string // of all APIs, host:port; empty: 127.0.0.1:8420; port 0: any, and then kept
	DemoListen string // of the demo resource server; empty: 127.0.0.1:8421

	// SecondPerson is which revocations and holds need two people, as in the configuration of
	// the revocation service; empty: none.
	SecondPerson string

	// Told is told when all is ready, in place of the text for people.
	Told func(Places) error
}

// Validate says what is wrong.
func (c Config) Validate() error { return c.complete() }

func (c *Config) complete() error {
	for _, s := range []struct {
		value   *string
		initial string
	}{{&c.DataDir, ".quash"}, {&c.Listen, "127.0.0.1:8420"}, {&c.DemoListen, "127.0.0.1:8421"}, {&c.SecondPerson, revocation.SecondNever}} {
		if *s.value == "" {
			*s.value = s.initial
		}
	}
	if !slices.Contains([]string{revocation.SecondAuto, revocation.SecondAlways, revocation.SecondNever}, c.SecondPerson) {
		return fmt.Errorf("--second-person %.40q: want auto, always or never", c.SecondPerson)
	}
	return errors.Join(loopback("--listen", c.Listen), loopback("--demo-listen", c.DemoListen))
}

// loopback refuses addresses that others could reach: all is in clear text here,
// and the first operator's key lies in a file.
func loopback(flag, addr string) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("%s %q: must be host:port, as in 127.0.0.1:8420", flag, addr)
	}
	if !process.Loopback(host) {
		return fmt.Errorf("%s %q: quash dev listens on this machine only, as all passes in clear text: use 127.0.0.1, [::1] or localhost", flag, addr)
	}
	return nil
}

// Run runs everything until ctx ends. When all is ready it writes DIR/dev.env,
// then tells out where things are and what to paste. It returns nil when it
// ended because ctx did.
func Run(ctx context.Context, cfg Config, out io.Writer) error {
	if err := cfg.complete(); err != nil {
		return err
	}
	d, err := open(cfg.DataDir)
	if err != nil {
		return err
	}
	defer d.close()
	i := &instance{dir: d, out: out, told: cfg.Told, secondPerson: cfg.SecondPerson, failed: make(chan error, 16)}
	defer i.stop()
	if err := i.start(ctx, cfg); err != nil {
		return err
	}
	if err := i.waitReady(ctx); err != nil {
		return err
	}
	if ctx.Err() == nil {
		if err := i.announce(); err != nil {
			return err
		}
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-i.failed:
		return err
	}
}

// Reset deletes everything that is in the directory of quash dev. It refuses
// one that is no such directory, or in which a process runs.
func Reset(dir string) error {
	if dir == "" {
		dir = ".quash"
	}
	return reset(dir)
}
