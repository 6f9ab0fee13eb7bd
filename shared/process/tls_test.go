package process

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/authority"
)

// TestCertificateIsReadAgainWhenItChanges, and a broken one leaves the former.
func TestCertificateIsReadAgainWhenItChanges(t *testing.T) {
	dir := t.TempDir()
	made := time.Now().Add(-time.Hour)
	renew := func() *x509.CertPool {
		t.Helper()
		if err := authority.Create(dir, made); err != nil {
			t.Fatal(err)
		}
		made = made.Add(time.Minute)
		for _, name := range []string{authority.CertFile, authority.KeyFile} {
			if err := os.Chtimes(filepath.Join(dir, name), made, made); err != nil {
				t.Fatal(err)
			}
		}
		pem, err := os.ReadFile(filepath.Join(dir, authority.CAFile))
		if err != nil {
			t.Fatal(err)
		}
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(pem)
		return pool
	}
	pool := renew()
	l := Listen{Addr: freeAddr(t), Cert: filepath.Join(dir, authority.CertFile), Key: filepath.Join(dir, authority.KeyFile)}
	f := &fake{entered: make(chan struct{}), release: make(chan struct{}), ended: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, f, zap.NewNop()) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	dial := func(pool *x509.CertPool) error {
		c, err := tls.Dial("tcp", l.Addr, &tls.Config{RootCAs: pool, ServerName: "localhost"})
		if err == nil {
			_ = c.Close()
		}
		return err
	}
	eventually := func(what string, pool *x509.CertPool) {
		t.Helper()
		var err error
		for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
			if err = dial(pool); err == nil {
				return
			}
		}
		t.Fatalf("%s: %v", what, err)
	}
	eventually("the first certificate", pool)
	second := renew()
	eventually("the renewed certificate", second)
	if err := os.WriteFile(l.Key, []byte("half a key"), 0o600); err != nil {
		t.Fatal(err)
	}
	time.Sleep(lookEvery) // until it may look again: then it must not take the broken one
	if err := dial(second); err != nil {
		t.Errorf("with a broken file the former certificate is gone: %v", err)
	}
	l.Addr = freeAddr(t)
	if err := Serve(ctx, l, f, zap.NewNop()); err == nil || errors.Is(err, context.Canceled) {
		t.Errorf("started with a broken certificate: %v", err)
	}
}
