package dev

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"

	"github.com/quash-project/quash/services/rotator"
	"github.com/quash-project/quash/shared/engine"
	"github.com/quash-project/quash/shared/guard"
	"github.com/quash-project/quash/shared/guard/natsfeed"
	"github.com/quash-project/quash/shared/identity"
	"github.com/quash-project/quash/shared/logging"
	"github.com/quash-project/quash/shared/process"
	"github.com/quash-project/quash/shared/seal"
	"github.com/quash-project/quash/shared/signing"
)

// The guards beside the services: the demo's, and the identity that dev.env
// gives to a guard of one's own.
const (
	demoGuard = "demo"
	ownGuard  = "app"
)

// canary is how often revocation is measured.
const canary = 10 * time.Second

// service is what the three have in common.
type service interface {
	Handler() http.Handler
	Run(ctx context.Context) error
	Ready() error
}

// instance is what runs, in the order in which it starts.
type instance struct {
	dir    *dataDir
	out    io.Writer
	told   func(Places) error
	failed chan error // what ended by itself

	secondPerson string // see Config

	logFile *os.File
	log     *zap.Logger
	ids     *identity.Set
	trust   string
	url     string // the issuer's
	demoURL string

	nats  *engine.NATS
	redis *engine.Redis
	conns []*nats.Conn
	view  redis.UniversalClient // the writer's

	revocation, rotator, issuer service
	demo                        *guard.Guard
	demoHandler                 http.Handler
	traces                      []func() // each sends what is left of one service's
	base                        []*task  // revocation: ends last
	above                       []*task
	servers                     []*http.Server // API, demo; one for each listener
	listeners                   []net.Listener
}

// start starts everything; stop undoes what it did, also when it failed.
func (i *instance) start(ctx context.Context, cfg Config) error {
	for _, step := range []func() error{
		i.openLog,
		i.makeKeys,
		i.startEngines,
		func() error { return i.openListeners(cfg) },
		func() error { return i.buildServices(ctx) },
		i.runServices,
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func (i *instance) openLog() error {
	f, err := i.dir.openLog()
	if err != nil {
		return err
	}
	i.logFile = f
	i.log = logging.New(logging.Config{}, f)
	i.log.Info("starting", zap.Int("pid", os.Getpid()))
	return nil
}

// makeKeys makes what is made once.
func (i *instance) makeKeys() error {
	var err error
	if i.ids, err = identity.Ensure(i.dir.file("nats")); err != nil {
		return fmt.Errorf("NATS identities: %w", err)
	}
	for _, name := range []string{demoGuard, ownGuard} {
		if _, err := i.ids.AddGuard(name); err != nil {
			return err
		}
	}
	for _, name := range []string{kekName, proofKEKName} {
		if err := seal.CreateKEK(i.dir.file(name)); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	if _, err := rotator.CreateIdentity(i.dir.file(identityName), rand.Reader); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	private, err := rotator.LoadIdentity(i.dir.file(identityName))
	if err != nil {
		return err
	}
	public, ok := private.Public().(ed25519.PublicKey)
	if !ok {
		return errors.New("the rotator's identity key is not of Ed25519")
	}
	i.trust = signing.TrustString(public)
	for _, password := range []*string{&i.dir.settings.RedisWriter, &i.dir.settings.RedisReader} {
		if *password == "" {
			*password = newPassword()
		}
	}
	return i.dir.syncDirs("nats")
}

func newPassword() string {
	var b [24]byte
	_, _ = rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}

func (i *instance) startEngines() error {
	s := &i.dir.settings
	var err error
	if s.NATSPort, err = freePort(s.NATSPort); err != nil {
		return err
	}
	i.nats, err = engine.StartNATS(engine.NATSConfig{
		Dir: i.dir.path, Port: s.NATSPort, Identities: i.ids, SyncAlways: true, Log: i.log.Named("nats-server"),
	})
	if err != nil {
		return err
	}
	if s.RedisPort, err = freePort(s.RedisPort); err != nil {
		return err
	}
	i.redis, err = engine.StartRedis(engine.RedisConfig{Port: s.RedisPort, WriterPassword: s.RedisWriter, ReaderPassword: s.RedisReader})
	return err
}

// openListeners fixes the addresses, and keeps them before anything is issued
// that has the issuer's URL in it.
func (i *instance) openListeners(cfg Config) error {
	s := &i.dir.settings
	api, err := listenKept("--listen", cfg.Listen, s.Listen)
	if err != nil {
		return err
	}
	addr := sameHost(cfg.Listen, api)
	if s.Listen != "" && s.Listen != addr {
		_ = api.Close()
		return fmt.Errorf("this Quash is at http://%s, which stands in every token that it has issued; start it with --listen %s, name another directory with --data, or begin anew with: quash dev reset --data %s",
			s.Listen, s.Listen, shellQuote(i.dir.path))
	}
	i.serve(api)
	demo, err := listenKept("--demo-listen", cfg.DemoListen, s.Demo)
	if err != nil {
		return err
	}
	i.serve(demo)
	s.Listen, s.Demo = addr, sameHost(cfg.DemoListen, demo)
	i.url, i.demoURL = "http://"+s.Listen, "http://"+s.Demo
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return i.dir.write(settingsName, string(data)+"\n")
}

// sameHost is the address of l with the host as it was given.
func sameHost(given string, l net.Listener) string {
	host, _, _ := net.SplitHostPort(given)
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return net.JoinHostPort(host, port)
}

// serve makes a server that waits for its handler. The listener is open from now
// on, so that nobody else takes its port.
func (i *instance) serve(l net.Listener) {
	srv := process.NewServer(nil)
	i.servers = append(i.servers, srv)
	srv.Addr = l.Addr().String()
	i.listeners = append(i.listeners, l)
}

// connect opens the connection of one of our users.
func (i *instance) connect(user string) (*nats.Conn, error) {
	nc, _, err := natsfeed.Connect(i.nats.URL(), i.ids.Creds(user), "quash-dev-"+user, i.log.Named("nats").With(zap.String("user", user)))
	if err != nil {
		return nil, err
	}
	i.conns = append(i.conns, nc)
	return nc, nil
}

// waitReady returns when all is ready, or ctx has ended, or something failed. It
// says what it waits for when that takes longer than people expect.
func (i *instance) waitReady(ctx context.Context) error {
	t := time.NewTicker(5 * time.Millisecond)
	defer t.Stop()
	said := time.Now()
	for {
		err := i.ready()
		if err == nil {
			return nil
		}
		if time.Since(said) > 3*time.Second {
			said = time.Now()
			_, _ = fmt.Fprintf(i.out, "waiting: %v\n", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case err := <-i.failed:
			return err
		case <-t.C:
		}
	}
}

func (i *instance) ready() error {
	return errors.Join(i.revocation.Ready(), i.rotator.Ready(), i.issuer.Ready(), i.demo.Ready())
}
