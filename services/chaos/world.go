package chaos

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/quash-project/quash/services/deployment"
	"github.com/quash-project/quash/shared/authority"
	"github.com/quash-project/quash/shared/client"
)

// world is a deployment, and everybody here who uses it.
type world struct {
	dir    string
	out    io.Writer
	pace   pace
	copies int
	rec    *Recorder
	links  *links
	env    map[string]string
	roots  *x509.CertPool

	http    *http.Client
	clients [2]*client.Client // the second asks the other replica first
	redis   redisPair
	guards  []watcher
	log     logReader
	said    logScanner
	disks   []string // those of the nodes, where they can be full
	packets *packets // where they can be lost

	processes sync.Mutex // one restart at a time
}

// newWorld starts the deployment in dir, which it does not end when it fails:
// close does.
func newWorld(ctx context.Context, o Options, p pace, rec *Recorder) (*world, error) {
	w := &world{dir: o.Dir, out: o.Out, pace: p, copies: o.Copies, rec: rec, links: &links{seed: o.Seeds[0]}, env: map[string]string{}}
	password := rand.Text()
	sum := sha256.Sum256([]byte(password))
	began := time.Now()
	if err := os.MkdirAll(filepath.Join(w.dir, "clocks"), 0o700); err != nil {
		return w, err
	}
	overlay, err := withClocks(o.Source, w.dir)
	if err != nil {
		return w, err
	}
	if err := w.mountDisks(); err != nil {
		return w, err
	}
	if w.packets, err = newPackets(ctx); err != nil {
		return w, err
	}
	err = deployment.Up(ctx, o.Dir, deployment.Options{
		Source:  o.Source,
		Node:    p.node,
		Overlay: overlay,
		Spare:   true,
		Route:   w.route,
		Settings: map[string]map[string]string{
			"demo":       {"LIMIT": p.demo.String()},
			"revocation": {"REPLICAS": strconv.Itoa(o.Copies)},
		},
		RedisLines: []string{"user chaos on ~* &* +@all #" + hex.EncodeToString(sum[:])},
	}, io.Discard)
	if err = errors.Join(err, errors.Join(w.links.errs...)); err != nil {
		return w, err
	}
	if err := w.readEnvironment(); err != nil {
		return w, err
	}
	if err := w.connect(password); err != nil {
		return w, err
	}
	_, _ = fmt.Fprintf(w.out, "%d processes and %d links between them, in %s, after %s\n",
		len(w.names(allKinds...)), len(w.links.all), w.dir, time.Since(began).Round(time.Millisecond))
	return w, w.startGuards()
}

// route has a link for each pair of processes; none for who goes to itself.
func (w *world) route(from, to, addr string) string {
	if strings.HasPrefix(to, from+" ") {
		return addr
	}
	return w.links.route(from, to, addr)
}

func (w *world) readEnvironment() error {
	text, err := os.ReadFile(filepath.Join(w.dir, "up.env"))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		w.env[name] = strings.Trim(value, "'")
	}
	pem, err := os.ReadFile(w.caFile())
	if err != nil {
		return err
	}
	w.roots = x509.NewCertPool()
	w.roots.AppendCertsFromPEM(pem)
	return nil
}

func (w *world) caFile() string { return filepath.Join(w.dir, "tls", authority.CAFile) }

func (w *world) tls() *tls.Config { return &tls.Config{RootCAs: w.roots} }

// connect makes the clients of the HTTP APIs and of Redis.
func (w *world) connect(password string) error {
	list, err := deployment.Processes(w.dir)
	if err != nil {
		return err
	}
	hosts := map[string]string{}
	for _, p := range list {
		hosts[p.Name] = strings.TrimPrefix(p.Addresses[0], "https://")
	}
	swap := map[string]string{hosts["revocation-1"]: hosts["revocation-2"], hosts["revocation-2"]: hosts["revocation-1"]}
	key := func() (string, error) {
		secret, err := os.ReadFile(w.env["QUASH_KEY_FILE"])
		return strings.TrimSpace(string(secret)), err
	}
	w.http = w.httpClient(nil)
	for i, swapped := range []map[string]string{nil, swap} {
		if w.clients[i], err = client.New(w.env["QUASH_URL"], client.Options{Key: key, HTTP: w.httpClient(swapped)}); err != nil {
			return err
		}
	}
	return w.connectRedis(password)
}

// httpClient returns one that goes to other hosts instead of some. Of idle
// connections it keeps few: those to who was killed are of no use.
func (w *world) httpClient(instead map[string]string) *http.Client {
	d := net.Dialer{Timeout: time.Second}
	return &http.Client{Timeout: w.pace.patience, Transport: &http.Transport{
		TLSClientConfig: w.tls(), MaxIdleConnsPerHost: 4, IdleConnTimeout: 5 * time.Second,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			if other := instead[addr]; other != "" {
				addr = other
			}
			return d.DialContext(ctx, network, addr)
		},
	}}
}

func (w *world) startGuards() error {
	for _, name := range []string{"near", "short", "asks", "redis"} {
		g := &embedded{w: w, name: name}
		if err := g.start(); err != nil {
			return fmt.Errorf("guard %s: %w", name, err)
		}
		w.guards = append(w.guards, g)
	}
	for _, name := range []string{"demo-1", "demo-2"} {
		p, err := w.process(name)
		if err != nil {
			return err
		}
		w.guards = append(w.guards, &demo{w: w, name: name, url: p.Addresses[0] + "/orders"})
	}
	return nil
}

func (w *world) process(name string) (deployment.Process, error) {
	list, err := deployment.Processes(w.dir)
	if err != nil {
		return deployment.Process{}, err
	}
	for _, p := range list {
		if p.Name == name {
			return p, nil
		}
	}
	return deployment.Process{}, fmt.Errorf("there is no process %q", name)
}

// names are the processes of some kinds, in the order of their start.
func (w *world) names(kinds ...string) (names []string) {
	list, _ := deployment.Processes(w.dir) // it was read before
	for _, p := range list {
		for _, kind := range kinds {
			if strings.HasPrefix(p.Name, kind+"-") {
				names = append(names, p.Name)
			}
		}
	}
	return names
}

// close ends everything, whatever state it is in.
func (w *world) close(broken bool) error {
	for _, g := range w.guards {
		if e, ok := g.(*embedded); ok {
			e.stop()
		}
	}
	w.links.mend() // so that what ends in order can say so
	err := deployment.Down(context.Background(), w.dir)
	w.links.close()
	w.log.close()
	return errors.Join(err, w.redis.close(), w.unmountDisks(broken))
}
