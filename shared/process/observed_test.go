package process

import (
	"context"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
)

// slow is a service that becomes ready when told.
type slow struct {
	fake
	why atomic.Pointer[string]
}

func (s *slow) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
}

func (s *slow) Ready() error {
	if why := s.why.Load(); why != nil {
		return waiting(*why)
	}
	return nil
}

type waiting string

func (w waiting) Error() string { return string(w) }

// TestOperatorSeesWhatAServiceDoes: systemd is told what it waits for, when it is
// ready and when it stops, and Prometheus how often it answered what.
func TestOperatorSeesWhatAServiceDoes(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "notify")
	told, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer told.Close()
	t.Setenv("NOTIFY_SOCKET", socket)
	hear := func(want string) {
		t.Helper()
		if err := told.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 1000)
		n, err := told.Read(b)
		if err != nil || !strings.Contains(string(b[:n]), want) {
			t.Fatalf("systemd was told %q, %v; want %q", b[:n], err, want)
		}
	}

	s := &slow{fake: fake{ended: make(chan struct{})}}
	why := "the log\nand the keys"
	s.why.Store(&why)
	l := Listen{Addr: freeAddr(t), Admin: freeAddr(t)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, s, zap.NewNop()) }()
	hear("STATUS=the log; and the keys")
	for want, path := range map[string]string{"200 OK ok": "/livez", "503 Service Unavailable the log": "/readyz", "quash_ready 0": "/metrics"} {
		if got, err := get("http://" + l.Admin + path); err != nil || !strings.Contains(got, want) {
			t.Errorf("%s: %.300q, %v; want %q", path, got, err, want)
		}
	}
	s.why.Store(nil)
	hear("READY=1")
	if got, err := get("http://" + l.Addr + "/anything"); err != nil || !strings.HasPrefix(got, "418") {
		t.Fatalf("%q, %v", got, err)
	}
	got, err := get("http://" + l.Admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"quash_ready 1", `quash_http_request_duration_seconds_count{code="418",method="GET"} 1`, "go_goroutines", "process_resident_memory_bytes"} {
		if !strings.Contains(got, want) {
			t.Errorf("/metrics does not have %s", want)
		}
	}
	if strings.Contains(got, "anything") {
		t.Error("/metrics repeats a path")
	}
	cancel()
	hear("STOPPING=1")
	if err := <-done; err != nil {
		t.Error(err)
	}
}
