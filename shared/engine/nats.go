// Package engine runs the engines of the all-in-one process and of tests: an
// embedded nats-server, and a Redis-protocol server in memory. They are the
// real code: JetStream on disk, synced before each acknowledgement, operator
// mode with the identities of package identity.
package engine

import (
	"fmt"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/identity"
)

// MaxPayload of a NATS message: bodies of the log with 1,000 targets of 512
// bytes each, and some.
const MaxPayload = 4 << 20

// NATSConfig is how an embedded nats-server runs.
type NATSConfig struct {
	Dir        string        // where JetStream keeps its files
	Host       string        // address to listen on; empty: 127.0.0.1
	Port       int           // -1: a free one
	Identities *identity.Set // required
	// SyncAlways syncs each message before it is acknowledged. Without it an
	// acknowledged revocation can be lost in a power cut.
	SyncAlways bool
	Log        *zap.Logger // nil: none
}

// NATS is a running server.
type NATS struct {
	server *server.Server
}

// StartNATS starts a server and returns when it accepts connections.
func StartNATS(c NATSConfig) (*NATS, error) {
	opts, err := options(c)
	if err != nil {
		return nil, err
	}
	s, err := server.NewServer(opts)
	if err != nil {
		return nil, fmt.Errorf("nats-server: %w", err)
	}
	if c.Log != nil {
		s.SetLoggerV2(zapLogger{c.Log.Sugar()}, false, false, false)
	}
	s.Start()
	n := &NATS{server: s}
	if !s.ReadyForConnections(20 * time.Second) {
		n.Shutdown()
		return nil, fmt.Errorf("nats-server on %s:%d with its files in %s did not get ready in 20s", opts.Host, opts.Port, c.Dir)
	}
	if !s.JetStreamEnabled() {
		n.Shutdown()
		return nil, fmt.Errorf("nats-server: JetStream did not start with its files in %s", c.Dir)
	}
	return n, nil
}

func options(c NATSConfig) (*server.Options, error) {
	operator, err := jwt.DecodeOperatorClaims(c.Identities.OperatorJWT)
	if err != nil {
		return nil, fmt.Errorf("operator: %w", err)
	}
	resolver := &server.MemAccResolver{}
	for name, token := range c.Identities.AccountJWTs {
		key, err := c.Identities.AccountKey(name)
		if err != nil {
			return nil, err
		}
		if err := resolver.Store(key, token); err != nil {
			return nil, fmt.Errorf("account %s: %w", name, err)
		}
	}
	host := c.Host
	if host == "" {
		host = "127.0.0.1"
	}
	return &server.Options{
		ServerName:       "quash-embedded",
		Host:             host,
		Port:             c.Port,
		NoSigs:           true,
		NoSystemAccount:  true, // operator mode names its own
		TrustedOperators: []*jwt.OperatorClaims{operator},
		SystemAccount:    operator.SystemAccount,
		AccountResolver:  resolver,
		JetStream:        true,
		StoreDir:         c.Dir,
		SyncAlways:       c.SyncAlways,
		MaxPayload:       MaxPayload,
		// One guard that reads slowly must not hold up the feed of the others:
		// it loses messages, notices the gap and syncs.
		NoFastProducerStall: true,
		// A busy machine may take longer than the default 2 s to verify a JWT.
		AuthTimeout: 10,
	}, nil
}

// URL returns the address for clients.
func (n *NATS) URL() string { return n.server.ClientURL() }

// Server returns the embedded server, for health and statistics.
func (n *NATS) Server() *server.Server { return n.server }

// Shutdown stops the server and waits until its files are closed.
func (n *NATS) Shutdown() {
	n.server.Shutdown()
	n.server.WaitForShutdown()
}

// zapLogger writes the server's log; its notices are our debug lines.
type zapLogger struct{ l *zap.SugaredLogger }

func (z zapLogger) Noticef(f string, v ...any) { z.l.Debugf(f, v...) }
func (z zapLogger) Warnf(f string, v ...any)   { z.l.Warnf(f, v...) }
func (z zapLogger) Errorf(f string, v ...any)  { z.l.Errorf(f, v...) }
func (z zapLogger) Fatalf(f string, v ...any)  { z.l.Errorf(f, v...) } // an engine does not end its process
func (z zapLogger) Debugf(f string, v ...any)  { z.l.Debugf(f, v...) }
func (z zapLogger) Tracef(f string, v ...any)  {}
