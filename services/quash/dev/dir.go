package dev

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/quash-project/quash/shared/strictjson"
)

// What is in the directory, beside JetStream's files in jetstream/ and the NATS
// identities in nats/.
const (
	lockName     = "quash-dev.lock" // also the mark of such a directory; holds the process id
	settingsName = "dev.json"
	envName      = "dev.env"
	operatorName = "operator.key"
	kekName      = "kek.json"
	proofKEKName = "proof-kek.json"
	identityName = "rotator.pem"
	logName      = "quash.log"
)

// maxLog is how large the log may be at a start without being begun anew.
const maxLog = 16 << 20

// dataDir is an open, locked directory.
type dataDir struct {
	path     string // absolute
	lock     *os.File
	settings settings
}

// settings are what is chosen once.
type settings struct {
	Listen      string `json:"listen"` // of all APIs; the issuer's URL is made of it
	Demo        string `json:"demo"`
	NATSPort    int    `json:"nats_port"`
	RedisPort   int    `json:"redis_port"`
	RedisWriter string `json:"redis_writer"` // passwords
	RedisReader string `json:"redis_reader"`
}

// open makes the directory if need be, and locks it.
func open(dir string) (*dataDir, error) {
	path, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if strings.ContainsAny(path, "\n\r\x00") {
		return nil, fmt.Errorf("--data %q: a path with a line break can't be used", dir)
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("--data: %w", err)
	}
	if err := ours(path, true); err != nil {
		return nil, err
	}
	d := &dataDir{path: path}
	if d.lock, err = lockDir(path); err != nil {
		return nil, err
	}
	if err := d.prepare(); err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

// ours reports an error for a directory that holds other things than quash
// dev's: whoever names their home by mistake must not lose it at a reset.
func ours(path string, emptyToo bool) error {
	if _, err := os.Lstat(filepath.Join(path, lockName)); err == nil {
		return nil
	}
	entries, err := os.ReadDir(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s does not exist: there is no quash dev to reset", path)
	case err != nil:
		return err
	case len(entries) > 0:
		return fmt.Errorf("%s is not a directory of quash dev: it holds other things; name an empty or a new one with --data", path)
	case !emptyToo:
		return fmt.Errorf("%s is not a directory of quash dev: it has no %s", path, lockName)
	}
	return nil
}

// ErrLocked is the error of TryLock where another process has the lock.
var ErrLocked = errors.New("it is locked")

func lockDir(path string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(path, lockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := TryLock(f); err != nil {
		pid, _ := io.ReadAll(io.LimitReader(f, 20))
		_ = f.Close()
		if !errors.Is(err, ErrLocked) {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		return nil, fmt.Errorf("another quash dev (process %s) runs in %s: stop it, or name another directory with --data",
			strings.TrimSpace(string(pid)), path)
	}
	if err := errors.Join(f.Truncate(0), writeAt(f, fmt.Sprintf("%d\n", os.Getpid()))); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

func writeAt(f *os.File, text string) error {
	_, err := f.WriteAt([]byte(text), 0)
	return err
}

// prepare takes away what a former process has left to be taken for ready, and
// reads the settings.
func (d *dataDir) prepare() error {
	if err := os.Remove(d.file(envName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Chmod(d.path, 0o700); err != nil {
		return err
	}
	data, err := os.ReadFile(d.file(settingsName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := strictjson.Decode(data, &d.settings); err != nil {
		return fmt.Errorf("%s: %w", d.file(settingsName), err)
	}
	return nil
}

func (d *dataDir) file(name string) string { return filepath.Join(d.path, name) }

// close gives the lock back.
func (d *dataDir) close() { _ = d.lock.Close() }

// write replaces a file of mode 0600 whole: it is complete before it appears,
// and on the disk.
func (d *dataDir) write(name, text string) error {
	f, err := os.CreateTemp(d.path, ".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("%s: %w", d.file(name), err)
	}
	if err := os.Rename(f.Name(), d.file(name)); err != nil {
		return err
	}
	return syncDir(d.path)
}

// syncDirs has the names of all files that were made reach the disk: a synced
// file without a name is lost in a power cut all the same.
func (d *dataDir) syncDirs(below ...string) error {
	errs := []error{syncDir(filepath.Dir(d.path)), syncDir(d.path)}
	for _, name := range below {
		errs = append(errs, filepath.WalkDir(d.file(name), func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.IsDir() {
				return err
			}
			return syncDir(path)
		}))
	}
	return errors.Join(errs...)
}

func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// openLog appends to the log, and begins it anew when it has grown large; one
// former log is kept.
func (d *dataDir) openLog() (*os.File, error) {
	path := d.file(logName)
	if st, err := os.Stat(path); err == nil && st.Size() > maxLog {
		if err := os.Rename(path, path+".1"); err != nil {
			return nil, err
		}
	}
	return os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
}

func reset(dir string) error {
	path, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if err := ours(path, false); err != nil {
		return err
	}
	lock, err := lockDir(path)
	if err != nil {
		return err
	}
	defer lock.Close()
	entries, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		// The lock's file stays: who waits for it must wait for the same file.
		if e.Name() != lockName {
			errs = append(errs, os.RemoveAll(filepath.Join(path, e.Name())))
		}
	}
	return errors.Join(errs...)
}
