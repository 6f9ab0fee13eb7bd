package deployment

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/quash-project/quash/services/rotator"
	"github.com/quash-project/quash/shared/authority"
	"github.com/quash-project/quash/shared/identity"
	"github.com/quash-project/quash/shared/ports"
	"github.com/quash-project/quash/shared/seal"
	"github.com/quash-project/quash/shared/signing"
)

// How many there are of each.
const (
	natsNodes = 3
	replicas  = 2
)

// The guards: those of the demo servers, and the one that up.env gives to a
// guard of one's own.
const ownGuard = "app"

func demoGuard(n int) string { return fmt.Sprintf("demo-%d", n) }

// settings are what is chosen once and kept.
type settings struct {
	// Ports by process name and use, as in "nats-1 clients".
	Ports       map[string]int `json:"ports"`
	RedisWriter string         `json:"redis_writer"`
	RedisReader string         `json:"redis_reader"`
	// Of Sentinel and Cluster.
	RedisSentinel string `json:"redis_sentinel"`
	RedisReplica  string `json:"redis_replica"`
	RedisClient   string `json:"redis_client"`
	RedisSetup    string `json:"redis_setup"`
}

const settingsFile = "settings.json"

// deployment is one that is being started.
type deployment struct {
	dir, source string // source is the root of the repository
	redis       Redis
	options     Options
	settings    settings
	taken       []net.Listener
	ids         *identity.Set
	trust       string
	running     []Process
}

func (d *deployment) path(parts ...string) string {
	return filepath.Join(append([]string{d.dir}, parts...)...)
}

// prepare makes what is made once, and the configuration of the engines.
func (d *deployment) prepare(ctx context.Context) error {
	for _, step := range []func(context.Context) error{
		d.loadSettings, d.build, d.makeKeys, d.configureNATS, d.configureRedis,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	d.release()
	data, err := json.MarshalIndent(d.settings, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(d.path(settingsFile), append(data, '\n'))
}

func (d *deployment) loadSettings(context.Context) error {
	d.settings.Ports = map[string]int{}
	data, err := os.ReadFile(d.path(settingsFile))
	if err == nil {
		err = json.Unmarshal(data, &d.settings)
	} else if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", d.path(settingsFile), err)
	}
	set := &d.settings
	for _, password := range []*string{&set.RedisWriter, &set.RedisReader, &set.RedisSentinel, &set.RedisReplica, &set.RedisClient, &set.RedisSetup} {
		if *password == "" {
			*password = rand.Text()
		}
	}
	// Every port is chosen before anything starts, and held until then.
	for n := range natsNodes {
		for _, use := range []string{"clients", "cluster", "monitor"} {
			if err := d.choose(natsNode(n+1) + " " + use); err != nil {
				return err
			}
		}
	}
	names := append(d.redisPorts(), issuerAddress+" https")
	for _, service := range []string{"issuer", "rotator", "revocation", "demo"} {
		for n := range replicas {
			name := fmt.Sprintf("%s-%d", service, n+1)
			names = append(names, name+" https", name+" admin")
		}
	}
	for _, name := range names {
		if err := d.choose(name); err != nil {
			return err
		}
	}
	return nil
}

func natsNode(n int) string { return fmt.Sprintf("nats-%d", n) }

// choose takes the port that is kept under a name, or any.
func (d *deployment) choose(name string) (err error) {
	var l net.Listener
	if kept := d.settings.Ports[name]; kept != 0 {
		if l, err = ports.Open(fmt.Sprintf("127.0.0.1:%d", kept)); err != nil {
			return fmt.Errorf("the port of %s, which is kept, is in use: %w", name, err)
		}
	} else if l, err = ports.Choose("127.0.0.1"); err != nil {
		return err
	}
	d.taken = append(d.taken, l)
	d.settings.Ports[name] = l.Addr().(*net.TCPAddr).Port
	return nil
}

func (d *deployment) release() {
	for _, l := range d.taken {
		_ = l.Close()
	}
	d.taken = nil
}

func (d *deployment) addr(name string) string {
	return fmt.Sprintf("127.0.0.1:%d", d.settings.Ports[name])
}

// reach returns the address under which a process reaches a port.
func (d *deployment) reach(from, to string) string {
	if from == "" || d.options.Route == nil {
		return d.addr(to)
	}
	return d.options.Route(from, to, d.addr(to))
}

// build makes the programs in bin, or lets bin be where they are.
func (d *deployment) build(ctx context.Context) error {
	if d.options.Programs == "" {
		return buildWith(ctx, d.source, d.path("bin"), cmp.Or(d.options.Node, natsServer), d.options.Overlay)
	}
	if err := os.Symlink(d.options.Programs, d.path("bin")); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// natsServer is the package of the nats-server of the module.
const natsServer = "github.com/nats-io/nats-server/v2"

// Build makes the programs, the nats-server of the module among them, in a
// directory. Source is the root of the repository.
func Build(ctx context.Context, source, dir string) error {
	return buildWith(ctx, source, dir, natsServer, "")
}

func buildWith(ctx context.Context, source, dir, node, overlay string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, set := range [][]string{
		{"-o", dir + "/", "./services/issuer/cmd/quash-issuer", "./services/rotator/cmd/quash-rotator", "./services/revocation/cmd/quash-revocation", "./services/demo/cmd/quash-demo", "./services/quash", "./services/deployment/cmd/quash-deployment"},
		{"-o", filepath.Join(dir, "nats-server"), node},
	} {
		cmd := exec.CommandContext(ctx, "go", append([]string{"build", "-overlay=" + overlay}, set...)...)
		cmd.Dir = source
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("go build: %w\n%s", err, out)
		}
	}
	return nil
}

// makeKeys makes identities, keys and certificates that are not there.
func (d *deployment) makeKeys(context.Context) error {
	if _, err := os.Stat(d.path("tls", authority.KeyFile)); errors.Is(err, fs.ErrNotExist) {
		if err := authority.Create(d.path("tls"), time.Now()); err != nil {
			return err
		}
	}
	var err error
	if d.ids, err = identity.Ensure(d.path("identities")); err != nil {
		return err
	}
	for _, name := range []string{demoGuard(1), demoGuard(2), ownGuard} {
		if _, err := d.ids.AddGuard(name); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(d.path("secrets"), 0o700); err != nil {
		return err
	}
	for _, name := range []string{"kek", "proof-kek"} {
		if err := seal.CreateKEK(d.path("secrets", name)); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	private := d.path("secrets", "rotator.pem")
	if _, err := rotator.CreateIdentity(private, rand.Reader); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	key, err := rotator.LoadIdentity(private)
	if err != nil {
		return err
	}
	public, ok := key.Public().(ed25519.PublicKey)
	if !ok {
		return errors.New("the rotator's identity key is not of Ed25519")
	}
	d.trust = signing.TrustString(public)
	return nil
}

// configureNATS writes a file for each node: what every Quash needs
// (deploy/nats), who may do what, and where this one is.
func (d *deployment) configureNATS(context.Context) error {
	shipped, err := os.ReadFile(filepath.Join(d.source, "deploy", "nats", "jetstream.conf"))
	if err != nil {
		return err
	}
	accounts, err := d.ids.ServerConfig()
	if err != nil {
		return err
	}
	const store = `store_dir: "/var/lib/nats/jetstream"`
	if !strings.Contains(string(shipped), store) {
		return fmt.Errorf("deploy/nats/jetstream.conf has no line %s any more", store)
	}
	tls := fmt.Sprintf("tls: { cert_file: %q, key_file: %q, ca_file: %q }",
		d.path("tls", authority.CertFile), d.path("tls", authority.KeyFile), d.path("tls", authority.CAFile))
	for n := range natsNodes {
		name := natsNode(n + 1)
		text := strings.Replace(string(shipped), store, fmt.Sprintf("store_dir: %q", d.path(name)), 1) + fmt.Sprintf(`
server_name: %s
listen: %q
http: %q
%s
cluster: {
  name: quash
  listen: %q
  routes: [ %s ]
  %s
%s}
`, name, d.addr(name+" clients"), d.addr(name+" monitor"), tls, d.addr(name+" cluster"), d.routes(name), tls, d.gossip(name)) + accounts
		if err := writeFile(d.path(name+".conf"), []byte(text)); err != nil {
			return err
		}
	}
	return nil
}

// routes are where a node finds the cluster.
func (d *deployment) routes(node string) string {
	var routes []string
	for n := range natsNodes {
		routes = append(routes, "tls://"+d.reach(node, natsNode(n+1)+" cluster"))
	}
	return strings.Join(routes, ", ")
}

// gossip keeps nodes from telling clients and each other of ways past what
// stands in between.
func (d *deployment) gossip(node string) string {
	if d.options.Route == nil {
		return ""
	}
	to := node + " cluster"
	return fmt.Sprintf("  no_advertise: true\n  advertise: %q\n", d.options.Route("", to, d.addr(to)))
}

// natsURL is where a process finds the log; whoever is none ("") goes directly.
func (d *deployment) natsURL(from string) string {
	var urls []string
	for n := range natsNodes {
		urls = append(urls, "tls://"+d.reach(from, natsNode(n+1)+" clients"))
	}
	return strings.Join(urls, ",")
}
