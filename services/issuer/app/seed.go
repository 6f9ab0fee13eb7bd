package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"go.uber.org/zap"
)

// seedEvery is how long a failed seeding rests.
const seedEvery = 500 * time.Millisecond

// seed makes what every installation has, as soon as that is possible.
func (s *Service) seed(ctx context.Context) error {
	for {
		err := s.until(ctx, s.canMake)
		if err == nil {
			err = s.seedOnce(ctx)
		}
		if ctx.Err() != nil {
			return nil
		}
		if err == nil {
			s.waits.Store(nil)
			s.seeded.Store(true)
			return nil
		}
		text := "seeding: " + err.Error()
		s.waits.Store(&text)
		s.log.Warn("could not seed the installation yet", zap.Error(err))
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(seedEvery):
		}
	}
}

func (s *Service) seedOnce(ctx context.Context) error {
	if err := s.domain.EnsureRoles(ctx); err != nil {
		return err
	}
	s.domain.EnsureTenants(ctx)
	if s.cfg.OperatorKeyFile == "" {
		return nil
	}
	created, err := s.domain.EnsureOperator(ctx, func(_, secret string) error {
		return writeSecret(s.cfg.OperatorKeyFile, secret)
	})
	if created {
		s.log.Info("made the first operator's API key", zap.String("file", s.cfg.OperatorKeyFile))
	}
	return err
}

// until waits until ok returns nil.
func (s *Service) until(ctx context.Context, ok func() error) error {
	t := time.NewTicker(10 * time.Millisecond)
	defer t.Stop()
	for {
		err := ok()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w (waiting for: %w)", context.Cause(ctx), err)
		case <-t.C:
		}
	}
}

// writeSecret puts a secret into a file of mode 0600 that is complete before it
// appears. A file that is there is kept under another name: it may be the key
// of another installation.
func writeSecret(path, secret string) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".operator-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name()) // what is left of a failed attempt
		}
	}()
	_, err = f.WriteString(secret + "\n")
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(path, path+".previous"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes a rename outlive a power cut.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
