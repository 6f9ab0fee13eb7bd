package deployment

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/quash-project/quash/shared/authority"
	"github.com/quash-project/quash/shared/identity"
)

// issuerAddress is the process under whose address the issuer's replicas are
// reached: an issuer has one URL for its life.
const issuerAddress = "balancer-1"

// environmentFile is what a shell reads to use the deployment.
const environmentFile = "up.env"

// readyTime is how long everything may take until it is ready.
const readyTime = 90 * time.Second

// Options are what Up can be told.
type Options struct {
	Source string // the root of the repository; "": the current directory
	Redis  Redis  // "": Single
	// Spare has a second server beside a Single Redis, redis-2, that follows it.
	// Whoever wants it in the other's place has to see to that.
	Spare bool
	// Programs is a directory in which Build has made the programs; "": they are made.
	Programs string
	// Node is the package of the nats-server that is made; "": the module's own.
	Node string
	// Overlay is a file by which sources are replaced in the build; see go help build.
	Overlay string
	// Route returns the address under which one process reaches a port of another
	// ("nats-2 clients", "redis-1 clients", "nats-3 cluster"), given where it is:
	// for a proxy in between. An empty from is whoever is told an address by
	// gossip. It is asked again at each Up. nil: directly. A single Redis only.
	Route func(from, to, addr string) string
	// Settings are more settings of a service's replicas, by the service, as their
	// environment has them: "demo" -> "LIMIT" -> "5s".
	Settings map[string]map[string]string
	// RedisLines are more lines of each redis.conf.
	RedisLines []string
}

// Up starts everything in dir, waits until it is ready, and writes up.env and
// processes.json. When it fails it ends what it had started.
func Up(ctx context.Context, dir string, o Options, out io.Writer) (err error) {
	if o.Redis == "" {
		o.Redis = Single
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	source, err := filepath.Abs(o.Source)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	list, err := Processes(dir)
	if err != nil {
		return err
	}
	for _, p := range list {
		if p.Runs() {
			return fmt.Errorf("%s (process %d) runs in %s: end it with scripts/down --dir %s", p.Name, p.PID, dir, dir)
		}
	}
	_ = os.Remove(filepath.Join(dir, environmentFile)) // of one that crashed
	d := &deployment{dir: dir, source: source, redis: o.Redis, options: o}
	defer func() {
		d.release()
		if err != nil {
			err = errors.Join(err, Down(context.WithoutCancel(ctx), dir))
		}
	}()
	if err := d.prepare(ctx); err != nil {
		return err
	}
	if err := d.startAll(ctx); err != nil {
		return err
	}
	if err := d.waitReady(ctx, out); err != nil {
		return err
	}
	if err := writeFile(d.path(environmentFile), []byte(d.environment())); err != nil {
		return err
	}
	d.tell(out)
	return nil
}

// run starts a process and keeps it in processes.json, so that it can be ended
// whatever happens next.
func (d *deployment) run(name string, addresses []string, env []string, program string, args ...string) error {
	base := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "SSL_CERT_FILE=" + d.path("tls", authority.CAFile)}
	// Where traces go. Not OTEL_EXPORTER_OTLP_HEADERS, a secret: this is kept in a file.
	for _, v := range []string{"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG"} {
		if value := os.Getenv(v); value != "" {
			base = append(base, v+"="+value)
		}
	}
	l := launch{Program: program, Args: args, Env: append(base, env...)}
	data, err := json.Marshal(l)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(d.path("launch"), 0o700); err != nil {
		return err
	}
	if err := writeFile(launchFile(d.dir, name), data); err != nil {
		return err
	}
	p, err := start(d.dir, name, addresses, l)
	if err != nil {
		return err
	}
	d.running = append(d.running, p)
	return writeProcesses(d.dir, d.running)
}

func (d *deployment) startAll(ctx context.Context) error {
	if err := d.startEngines(ctx); err != nil {
		return err
	}
	return d.startServices()
}

func (d *deployment) startEngines(ctx context.Context) error {
	for n := range natsNodes {
		name := natsNode(n + 1)
		addresses := []string{"tls://" + d.addr(name+" clients"), "tls://" + d.addr(name+" cluster"), "http://" + d.addr(name+" monitor")}
		if err := d.run(name, addresses, nil, d.path("bin", "nats-server"), "-c", d.path(name+".conf")); err != nil {
			return err
		}
	}
	return d.startRedis(ctx)
}

func (d *deployment) startServices() error {
	for _, service := range []string{"revocation", "rotator", "issuer"} {
		for n := range replicas {
			if err := d.runService(service, n+1, d.settingsOf(service, n+1)); err != nil {
				return err
			}
		}
	}
	args := []string{"balance", "--listen", d.addr(issuerAddress + " https")}
	for n := range replicas {
		name := fmt.Sprintf("issuer-%d", n+1)
		args = append(args, "--to", d.addr(name+" https")+"="+d.addr(name+" admin"))
	}
	if err := d.run(issuerAddress, []string{d.issuer()}, nil, d.path("bin", "quash-deployment"), args...); err != nil {
		return err
	}
	for n := range replicas {
		if err := d.runService("demo", n+1, d.settingsOf("demo", n+1)); err != nil {
			return err
		}
	}
	return nil
}

// runService starts a replica with the shipped configuration; what differs from
// machine to machine comes by the environment.
func (d *deployment) runService(service string, n int, settings map[string]string) error {
	name := fmt.Sprintf("%s-%d", service, n)
	settings["NATS_URL"] = d.natsURL(name)
	settings["LISTEN_ADDR"], settings["LISTEN_ADMIN"] = d.addr(name+" https"), d.addr(name+" admin")
	settings["LISTEN_GRACE"] = (2 * checkEvery).String() // the balancer has looked by then
	settings["LISTEN_CERT"], settings["LISTEN_KEY"] = d.path("tls", authority.CertFile), d.path("tls", authority.KeyFile)
	maps.Copy(settings, d.options.Settings[service])
	var env []string
	for key, value := range settings {
		env = append(env, "QUASH_"+strings.ToUpper(service)+"_"+key+"="+value)
	}
	slices.Sort(env)
	addresses := []string{"https://" + d.addr(name+" https"), "http://" + d.addr(name+" admin")}
	return d.run(name, addresses, env, d.path("bin", "quash-"+service), "--config", filepath.Join(d.source, "deploy", service+".yaml"))
}

func (d *deployment) issuer() string { return "https://" + d.addr(issuerAddress+" https") }

// endpoints are the URLs of a service's replicas.
func (d *deployment) endpoints(service, path string) string {
	var out []string
	for n := range replicas {
		out = append(out, "https://"+d.addr(fmt.Sprintf("%s-%d https", service, n+1))+path)
	}
	return strings.Join(out, ",")
}

func (d *deployment) settingsOf(service string, n int) map[string]string {
	switch service {
	case "revocation":
		return map[string]string{
			"URL": d.issuer(), "TRUST": d.trust, "REDIS_URL_FILE": d.writerFile(n), "PROOF_KEK_FILE": d.path("secrets", "proof-kek"),
			"NATS_CREDS": d.ids.Creds(identity.Revocation), "NATS_CONTROL_CREDS": d.ids.Creds(identity.ControlReader),
			// Nobody sits here who could approve what a test or a script cuts.
			"SECOND_PERSON_MODE": "never",
		}
	case "rotator":
		return map[string]string{
			"ISSUER": d.issuer(), "IDENTITY_FILE": d.path("secrets", "rotator.pem"), "KEK_FILE": d.path("secrets", "kek"),
			"NATS_CREDS": d.ids.Creds(identity.Rotator),
			// Nobody reads the JWKS URL here: a key signs as soon as every guard has it.
			"LEAD": "0s", "NO_LEAD": "true",
		}
	case "issuer":
		s := map[string]string{
			"URL": d.issuer(), "AUDIENCE": d.issuer(), "TRUST": d.trust, "KEK_FILE": d.path("secrets", "kek"),
			"REVOCATION_URLS": d.endpoints("revocation", "/v1/revocations"), "ROTATION_URLS": d.endpoints("rotator", "/v1/rotations"),
			"NATS_CREDS": d.ids.Creds(identity.Issuer), "OPERATOR_KEY_FILE": "",
		}
		if n == 1 {
			s["OPERATOR_KEY_FILE"] = d.operatorKey()
		}
		return s
	}
	return map[string]string{"ISSUER": d.issuer(), "TRUST": d.trust, "NATS_CREDS": d.ids.Creds(demoGuard(n))}
}

func (d *deployment) operatorKey() string { return d.path("secrets", "operator.key") }

// waitReady waits until every service says that it is, and says now and then
// what it waits for.
func (d *deployment) waitReady(ctx context.Context, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	client := &http.Client{Timeout: 2 * time.Second}
	said := time.Now()
	for _, p := range d.running {
		if kind(p.Name) == "nats" {
			continue // the services wait for it
		}
		err := p.waitReady(ctx, client, func(why error) {
			if time.Since(said) > 5*time.Second {
				said = time.Now()
				_, _ = fmt.Fprintf(out, "waiting for %s: %s\n", p.Name, strings.ReplaceAll(why.Error(), "\n", "; "))
			}
		})
		if err != nil {
			return fmt.Errorf("%w; see %s", err, d.path("logs", p.Name+".log"))
		}
	}
	if err := d.waitSentinels(ctx); err != nil {
		return err
	}
	return d.reachIssuer(ctx)
}

func ready(ctx context.Context, client *http.Client, admin string) error {
	return healthy(ctx, client, admin+"/readyz")
}

func healthy(ctx context.Context, client *http.Client, url string) error {
	return get(ctx, client, url, func(io.Reader) error { return nil })
}

// get reads what stands under a URL. Whoever answers otherwise than with 200 says why, in
// the error.
func get(ctx context.Context, client *http.Client, url string, read func(io.Reader) error) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		return errors.New(cmp.Or(strings.TrimSpace(string(text)), resp.Status))
	}
	return read(resp.Body)
}

// reachIssuer waits until the issuer answers under its own URL.
func (d *deployment) reachIssuer(ctx context.Context) error {
	client, err := trusting(d.path("tls", authority.CAFile))
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.issuer()+"/.well-known/oauth-authorization-server", nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
			err = errors.New("status " + strconv.Itoa(resp.StatusCode))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the issuer does not answer at %s: %w", d.issuer(), err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// trusting returns a client that trusts one authority.
func trusting(file string) (*http.Client, error) {
	secure, err := trusted(file)
	if err != nil {
		return nil, err
	}
	return &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{TLSClientConfig: secure}}, nil
}

// trusted trusts an authority alone.
func trusted(file string) (*tls.Config, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	return &tls.Config{RootCAs: roots}, nil
}

// environment is the text of up.env.
func (d *deployment) environment() string {
	ca := d.path("tls", authority.CAFile)
	var b strings.Builder
	for _, v := range [][2]string{
		{"QUASH_URL", d.issuer()},
		{"QUASH_DEMO_URL", "https://" + d.addr("demo-1 https")},
		{"QUASH_KEY_FILE", d.operatorKey()},
		{"QUASH_NATS_URL", d.natsURL("")},
		{"QUASH_NATS_CREDS", d.ids.Creds(ownGuard)},
		{"QUASH_REDIS_URL", d.redisURL("", "quash-reader", d.settings.RedisReader)},
		{"QUASH_TRUST", d.trust},
		{"SSL_CERT_FILE", ca},
		{"CURL_CA_BUNDLE", ca},
	} {
		fmt.Fprintf(&b, "%s='%s'\n", v[0], strings.ReplaceAll(v[1], "'", `'\''`))
	}
	return b.String()
}

func (d *deployment) tell(out io.Writer) {
	_, _ = fmt.Fprintf(out, "Quash is ready: %d processes.\n\n", len(d.running))
	for _, p := range d.running {
		_, _ = fmt.Fprintf(out, "  %-14s %7d  %s\n", p.Name, p.PID, strings.Join(p.Addresses, "  "))
	}
	_, _ = fmt.Fprintf(out, "\n  environment    set -a; . '%s'; set +a\n  command line   %s\n  logs           %s\n\nscripts/down ends it; what is in %s survives.\n",
		d.path(environmentFile), d.path("bin", "quash"), d.path("logs"), d.dir)
}
