package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/quash-project/quash/services/issuer/app"
	"github.com/quash-project/quash/shared/guard/natsfeed"
	"github.com/quash-project/quash/shared/kv"
)

// started is what a child says of its start.
type started struct {
	ReadyMS float64 `json:"ready_ms"` // from its first step to the last record
	RSS     int64   `json:"rss"`      // bytes of the process then
	Heap    int64   `json:"heap"`     // bytes after a collection
	URL     string  `json:"url,omitempty"`
}

// startFor is how long a child may take.
const startFor = 5 * time.Minute

// child starts an issuer, or a bare reader of its bucket of keys, in a process of its own,
// and waits until it has read what there is.
func (w *issuing) child(b *testing.B, name string) (s started, end func()) {
	b.Helper()
	told, err := json.Marshal(w.cfg)
	if err != nil {
		b.Fatal(err)
	}
	in, out := startChild(b, name, string(told))
	text, err := out.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(text, &s)
	}
	if err != nil {
		b.Fatalf("the child %s: %v", name, err)
	}
	return s, func() {
		_ = in.Close()
		_, _ = out.ReadByte() // its end
	}
}

// serveIssuer runs the issuer of a configuration.
func serveIssuer(told string, in *bufio.Reader) error {
	var cfg app.Config
	if err := json.Unmarshal([]byte(told), &cfg); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	began := time.Now()
	s, stopped, err := startIssuer(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { cancel(); stopped() }()
	for err := s.Ready(); err != nil; err = s.Ready() {
		if time.Since(began) > startFor {
			return fmt.Errorf("not ready after %s: %w", startFor, err)
		}
		time.Sleep(time.Millisecond)
	}
	out := now(began)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: s.Handler(), ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(l) }() // its end is that of this process
	out.URL = "http://" + l.Addr().String()
	if err := json.NewEncoder(os.Stdout).Encode(out); err != nil {
		return err
	}
	<-endOf(in)
	return server.Close()
}

// readBucket reads what the bucket of keys has into a Go map, as it is stored.
func readBucket(told string, in *bufio.Reader) error {
	var cfg app.Config
	if err := json.Unmarshal([]byte(told), &cfg); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), startFor)
	defer cancel()
	began := time.Now()
	nc, _, err := natsfeed.Connect(cfg.NATS.URL, cfg.NATS.Creds, "bench", nil)
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	bucket, err := js.KeyValue(ctx, "keys")
	if err != nil {
		return err
	}
	watch, err := kv.WatchAll(ctx, cancel, bucket)
	if err != nil {
		return err
	}
	records := map[string][]byte{}
	for e := range watch.Updates() {
		if e == nil {
			break
		}
		records[e.Key()] = e.Value()
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	out := now(began)
	if err := json.NewEncoder(os.Stdout).Encode(out); err != nil {
		return err
	}
	runtime.KeepAlive(records)
	<-endOf(in)
	return nil
}

// now measures this process.
func now(began time.Time) started {
	s := started{ReadyMS: millis(time.Since(began)), RSS: resident()}
	runtime.GC()
	runtime.GC() // what the first one has set free with finalizers
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	s.Heap = int64(m.HeapAlloc)
	return s
}

// resident is how much memory the process has, 0 where the system does not say.
func resident() int64 {
	data, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(data))
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}
