package process

import (
	"crypto/tls"
	"fmt"
	"os"
	"sync"
	"time"

	"go.uber.org/zap"
)

// lookEvery is how often, at most, the files of a certificate are looked at.
const lookEvery = time.Second

// certificate is one that is read again when its files change, so that a renewed
// one needs no restart. One that can't be read leaves the former in use.
type certificate struct {
	cert, key string
	log       *zap.Logger

	mu      sync.Mutex
	current *tls.Certificate
	looked  time.Time
	changed [2]time.Time // of the files that current is from
}

// loadCertificate reads the files for the first time.
func loadCertificate(cert, key string, log *zap.Logger) (*certificate, error) {
	c := &certificate{cert: cert, key: key, log: log}
	var err error
	if c.changed, err = c.times(); err != nil {
		return nil, err
	}
	return c, c.load()
}

func (c *certificate) load() error {
	pair, err := tls.LoadX509KeyPair(c.cert, c.key)
	if err != nil {
		return fmt.Errorf("listen.cert %s, listen.key %s: %w", c.cert, c.key, err)
	}
	c.current = &pair
	return nil
}

func (c *certificate) times() (t [2]time.Time, err error) {
	for i, path := range []string{c.cert, c.key} {
		info, err := os.Stat(path)
		if err != nil {
			return t, err
		}
		t[i] = info.ModTime()
	}
	return t, nil
}

// get implements tls.Config.GetCertificate.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.looked) < lookEvery {
		return c.current, nil
	}
	c.looked = time.Now()
	changed, err := c.times()
	if err == nil && changed == c.changed {
		return c.current, nil
	}
	if err == nil {
		err = c.load() // while the two are being replaced they may not fit together
	}
	if err != nil {
		c.log.Warn("the certificate could not be read again; the former one stays in use", zap.Error(err))
		return c.current, nil
	}
	c.changed = changed
	c.log.Info("the certificate was read again", zap.String("file", c.cert))
	return c.current, nil
}

func (c *certificate) config() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: c.get, NextProtos: []string{"h2", "http/1.1"}}
}
