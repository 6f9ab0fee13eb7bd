package bench

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/quash-project/quash/services/deployment"
	"github.com/quash-project/quash/shared/authority"
	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/guard/natsfeed"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/identity"
)

// programsVariable names the directory in which the report has built what a
// deployment runs. Without it each benchmark builds it for itself.
const programsVariable = "QUASH_BENCH_PROGRAMS"

// deployed is a Quash as scripts/up starts it: every replica a process of its own,
// three synced nodes of NATS with three copies of each stream, TLS everywhere.
type deployed struct {
	dir       string
	env       map[string]string
	processes map[string]deployment.Process
	roots     *x509.CertPool
	ids       *identity.Set
	http      *http.Client
	operator  string // a token
}

// deploy starts one, which ends with the benchmark.
func deploy(b *testing.B) *deployed {
	b.Helper()
	d := &deployed{dir: b.TempDir(), env: map[string]string{}, processes: map[string]deployment.Process{}}
	b.Cleanup(func() {
		if err := deployment.Down(context.Background(), d.dir); err != nil {
			b.Error(err)
		}
	})
	d.endWithProcess(b)
	ctx, cancel := context.WithTimeout(b.Context(), 5*time.Minute)
	defer cancel()
	err := deployment.Up(ctx, d.dir, deployment.Options{Source: filepath.Join("..", ".."), Programs: os.Getenv(programsVariable)}, io.Discard)
	if err != nil {
		b.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(d.dir, "up.env"))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		d.env[name] = strings.Trim(value, "'")
	}
	list, err := deployment.Processes(d.dir)
	if err != nil {
		b.Fatal(err)
	}
	for _, p := range list {
		d.processes[p.Name] = p
	}
	if d.ids, err = identity.Load(filepath.Join(d.dir, "identities")); err != nil {
		b.Fatal(err)
	}
	pem, err := os.ReadFile(d.caFile())
	if err != nil {
		b.Fatal(err)
	}
	d.roots = x509.NewCertPool()
	d.roots.AppendCertsFromPEM(pem)
	d.http = &http.Client{Timeout: time.Minute, Transport: &http.Transport{TLSClientConfig: d.tls(), MaxIdleConnsPerHost: 256}}
	b.Cleanup(d.http.CloseIdleConnections)
	secret, err := os.ReadFile(d.env["QUASH_KEY_FILE"])
	if err != nil {
		b.Fatal(err)
	}
	d.operator = d.exchange(b, strings.TrimSpace(string(secret)))
	return d
}

// endWithProcess ends the deployment when this process is told to end: it would go
// on without it.
func (d *deployed) endWithProcess(b *testing.B) {
	told := make(chan os.Signal, 1)
	signal.Notify(told, os.Interrupt, syscall.SIGTERM)
	over := b.Context().Done()
	go func() {
		defer signal.Stop(told)
		select {
		case <-told:
			if err := deployment.Down(context.Background(), d.dir); err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
			_ = os.RemoveAll(filepath.Dir(d.dir)) // all of b.TempDir
			os.Exit(1)
		case <-over:
		}
	}()
}

func (d *deployed) caFile() string { return filepath.Join(d.dir, "tls", authority.CAFile) }

func (d *deployed) tls() *tls.Config { return &tls.Config{RootCAs: d.roots} }

// address is where a process is reached: a service by https, a node by its clients.
func (d *deployed) address(name string) string { return d.processes[name].Addresses[0] }

// send sends a request and decodes the answer, which must have the status.
func (d *deployed) send(req *http.Request, status int, into any) error {
	return send(d.http, req, status, into)
}

func send(client *http.Client, req *http.Request, status int, into any) error {
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != status {
		return fmt.Errorf("%s: status %d: %.300s", req.URL.Path, resp.StatusCode, body)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(body, into)
}

func exchangeRequest(address, secret string) (*http.Request, error) {
	return formRequest(address+"/oauth/token", exchangeForm(secret).Encode())
}

func exchangeForm(secret string) url.Values {
	return url.Values{
		"grant_type":         {"urn:ietf:params:oauth:grant-type:token-exchange"},
		"subject_token_type": {"urn:quash:token-type:api-key"}, "subject_token": {secret},
	}
}

func formRequest(url, form string) (*http.Request, error) {
	req, err := http.NewRequest(http.MethodPost, url, strings.NewReader(form))
	if err == nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	return req, err
}

// exchange asks for a token of an API key. Leaders may just be chosen.
func (d *deployed) exchange(b *testing.B, secret string) string {
	b.Helper()
	var out struct {
		AccessToken string `json:"access_token"`
	}
	enginetest.Eventually(b, "the key is exchanged", func() error {
		req, err := exchangeRequest(d.env["QUASH_URL"], secret)
		if err != nil {
			return err
		}
		return d.send(req, http.StatusOK, &out)
	})
	return out.AccessToken
}

// key makes an API key that may read orders, and returns its secret.
func (d *deployed) key(b *testing.B, owner string) string {
	b.Helper()
	var out struct{ Secret string }
	enginetest.Eventually(b, "a key is made", func() error {
		req, err := d.post(d.env["QUASH_URL"]+"/v1/keys", map[string]any{"owner": owner, "scopes": []string{"orders:read"}})
		if err != nil {
			return err
		}
		return d.send(req, http.StatusCreated, &out)
	})
	return out.Secret
}

// post is a request of the operator.
func (d *deployed) post(url string, body any) (*http.Request, error) {
	return apiRequest(http.MethodPost, url, d.operator, body)
}

// apiRequest is a request of whoever has the token; body nil: none.
func apiRequest(method, url, token string, body any) (*http.Request, error) {
	data, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	if body == nil {
		data = nil
	}
	req, err := http.NewRequest(method, url, bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("Authorization", "Bearer "+token)
	return req, nil
}

// revocation asks a replica to revoke a target.
func (d *deployed) revocation(replica int, query, target string) (*http.Request, error) {
	return d.post(fmt.Sprintf("%s/v1/revocations%s", d.address(fmt.Sprintf("revocation-%d", replica)), query),
		map[string]any{"op": "revoke", "targets": []string{target}, "reason": "a measurement"})
}

// connect connects to a node ("": any) with a file of credentials.
func (d *deployed) connect(b *testing.B, node, creds string) *nats.Conn {
	b.Helper()
	at := d.env["QUASH_NATS_URL"]
	opts := []nats.Option{nats.RootCAs(d.caFile()), nats.RetryOnFailedConnect(false)}
	if node != "" {
		at = d.address(node)
		opts = append(opts, nats.IgnoreDiscoveredServers())
	}
	nc, _, err := natsfeed.Connect(at, creds, "bench", nil, opts...)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(nc.Close)
	return nc
}

// admin connects with every right in an account.
func (d *deployed) admin(b *testing.B, node, account string) *nats.Conn {
	b.Helper()
	path := filepath.Join(d.dir, "admin-"+account+".creds")
	if _, err := os.Stat(path); err != nil {
		if err := d.ids.Admin(path, account); err != nil {
			b.Fatal(err)
		}
	}
	return d.connect(b, node, path)
}

// nodes are the nodes of NATS.
var nodes = []string{"nats-1", "nats-2", "nats-3"}

// bareStream makes a stream with the durability of the log, which nobody follows,
// on the same three nodes, led by the one that leads the log.
func (d *deployed) bareStream(b *testing.B, js jetstream.JetStream, name string) {
	b.Helper()
	_, err := js.CreateStream(b.Context(), jetstream.StreamConfig{Name: name, Subjects: []string{"bench." + name + ".>"}, Replicas: len(nodes)})
	if err != nil {
		b.Fatal(err)
	}
	d.lead(b, js, name, d.leader(b, js, wire.Stream))
}

// leader waits until the stream is whole, and returns the node that leads it.
func (d *deployed) leader(b *testing.B, js jetstream.JetStream, stream string) (node string) {
	b.Helper()
	enginetest.Eventually(b, "the stream "+stream+" is whole", func() error {
		ctx, cancel := context.WithTimeout(b.Context(), 2*time.Second)
		defer cancel()
		s, err := js.Stream(ctx, stream)
		if err != nil {
			return err
		}
		c := s.CachedInfo().Cluster
		if c == nil || c.Leader == "" || len(c.Replicas) != len(nodes)-1 {
			return fmt.Errorf("%+v", c)
		}
		for _, r := range c.Replicas {
			if !r.Current || r.Offline {
				return fmt.Errorf("%s is behind", r.Name)
			}
		}
		node = c.Leader
		return nil
	})
	return node
}

// lead has a node lead the stream.
func (d *deployed) lead(b *testing.B, js jetstream.JetStream, stream, node string) {
	b.Helper()
	enginetest.Eventually(b, node+" leads "+stream, func() error {
		if now := d.leader(b, js, stream); now == node {
			return nil
		}
		_, err := js.Conn().Request("$JS.API.STREAM.LEADER.STEPDOWN."+stream, fmt.Appendf(nil, `{"placement":{"preferred":%q}}`, node), 2*time.Second)
		time.Sleep(100 * time.Millisecond) // it answers before the other one leads
		if err != nil {
			return err
		}
		return fmt.Errorf("another one does")
	})
}
