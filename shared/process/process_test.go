package process

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
)

type fake struct {
	entered chan struct{}
	release chan struct{}
	ended   chan struct{}
}

func (f *fake) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(f.entered)
		<-f.release
		_, _ = io.WriteString(w, "done")
	})
}

func (f *fake) Run(ctx context.Context) error {
	<-ctx.Done()
	close(f.ended)
	return ctx.Err()
}

func (f *fake) Ready() error { return errors.New("waiting for NATS") }

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func get(url string) (string, error) {
	var err error
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		var res *http.Response
		if res, err = http.Get(url); err == nil {
			defer res.Body.Close()
			b, err := io.ReadAll(res.Body)
			return res.Status + " " + string(b), err
		}
	}
	return "", err
}

func TestSignalLosesNoAcceptedRequest(t *testing.T) {
	f := &fake{make(chan struct{}), make(chan struct{}), make(chan struct{})}
	l := Listen{Addr: freeAddr(t), Admin: freeAddr(t)}
	ctx, signal := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() { result <- Serve(ctx, l, f, zap.NewNop()) }()

	answer := make(chan string, 1)
	go func() {
		s, err := get("http://" + l.Addr)
		if err != nil {
			s = err.Error()
		}
		answer <- s
	}()
	<-f.entered
	if got, _ := get("http://" + l.Admin + "/livez"); got != "200 OK ok\n" {
		t.Errorf("livez: %q", got)
	}
	if got, _ := get("http://" + l.Admin + "/readyz"); !strings.HasPrefix(got, "503 ") || !strings.Contains(got, "waiting for NATS") {
		t.Errorf("readyz: %q", got)
	}
	signal()
	select {
	case <-f.ended:
		t.Error("the service ended before its request was answered")
	case err := <-result:
		t.Errorf("ended with a request open: %v", err)
	case <-time.After(50 * time.Millisecond): // nothing should come; a fault may need a moment to show
	}
	close(f.release)
	if got := <-answer; got != "200 OK done" {
		t.Errorf("the accepted request got %q", got)
	}
	if err := <-result; err != nil {
		t.Error(err)
	}
}

func TestClearTextLeavesTheMachineNowhere(t *testing.T) {
	for addr, ok := range map[string]bool{
		"127.0.0.1:80": true, "[::1]:80": true, "localhost:80": true,
		":80": false, "0.0.0.0:80": false, "10.0.0.1:80": false, "[::]:80": false, "x": false,
	} {
		if err := (Listen{Addr: addr}).Validate(); (err == nil) != ok {
			t.Errorf("%s: %v", addr, err)
		}
	}
	if err := (Listen{Addr: ":443", Cert: "c", Key: "k"}).Validate(); err != nil {
		t.Error(err)
	}
}

func TestExitCodes(t *testing.T) {
	var b strings.Builder
	if report(&b, "quash", nil) != 0 || report(&b, "quash", context.Canceled) != 0 || b.Len() > 0 {
		t.Errorf("an ordinary end printed %q", b.String())
	}
	if report(&b, "quash", errors.New("no disk")) != 1 || b.String() != "quash: no disk\n" {
		t.Errorf("printed %q", b.String())
	}
}

// TestBalancersNoticeBeforeTheListenerCloses: /readyz says no first; whoever comes
// meanwhile is answered, and told to keep no connection.
func TestBalancersNoticeBeforeTheListenerCloses(t *testing.T) {
	s := &slow{fake: fake{ended: make(chan struct{})}}
	const grace = time.Second
	l := Listen{Addr: freeAddr(t), Admin: freeAddr(t), Grace: grace}
	ctx, signal := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, s, zap.NewNop()) }()
	if got, err := get("http://" + l.Admin + "/readyz"); err != nil || !strings.HasPrefix(got, "200") {
		t.Fatalf("readyz: %q, %v", got, err)
	}
	begun := time.Now()
	signal()
	for ready := true; ready; {
		got, err := get("http://" + l.Admin + "/readyz")
		if err != nil {
			t.Fatal(err)
		}
		ready = strings.HasPrefix(got, "200")
	}
	resp, err := http.Get("http://" + l.Addr)
	if err != nil {
		if time.Since(begun) < grace {
			t.Errorf("after %s, within the grace: %v", time.Since(begun), err)
		}
	} else {
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusTeapot || !resp.Close {
			t.Errorf("status %d, closing: %t; want an answer, and the connection ended with it", resp.StatusCode, resp.Close)
		}
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if took := time.Since(begun); took < grace {
		t.Errorf("the listener was closed after %s", took)
	}
	if _, err := http.Get("http://" + l.Addr); err == nil {
		t.Error("it listens after its end")
	}
}
