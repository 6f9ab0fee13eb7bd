package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// diskSize is that of a node's disk, which is one of memory.
const diskSize = "256m"

// mountDisks gives each node a disk of its own that can be full, if it may: that
// takes the right to mount. Without, nothing is ever full.
func (w *world) mountDisks() error {
	for n := range 3 {
		dir := filepath.Join(w.dir, fmt.Sprintf("nats-%d", n+1))
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		err := syscall.Mount("quash-chaos", dir, "tmpfs", syscall.MS_NOSUID|syscall.MS_NODEV|syscall.MS_NOEXEC, "mode=0700,size="+diskSize)
		if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES) {
			return w.unmountDisks(false)
		}
		if err != nil {
			return fmt.Errorf("mount a disk for a node: %w", err)
		}
		w.disks = append(w.disks, dir)
	}
	return nil
}

// unmountDisks takes them away again, and keeps what is on them if that is wanted.
func (w *world) unmountDisks(keep bool) (err error) {
	for _, dir := range w.disks {
		if keep {
			err = errors.Join(err, os.CopyFS(dir+"-disk", os.DirFS(dir)))
		}
		err = errors.Join(err, syscall.Unmount(dir, 0))
	}
	w.disks = nil
	return err
}

// filler is what fills a disk.
const filler = "filler"

// fillDisks leaves one node, or two, or all no room for a while. A node that has
// once failed to write stores nothing more until it is started again: so that is
// what its operator does when there is room.
func (r *round) fillDisks(ctx context.Context, rng *rand.Rand) error {
	still, full := r.lasts(rng, time.Second, 5*time.Second), []string{}
	for _, n := range rng.Perm(len(r.w.disks))[:1+rng.IntN(len(r.w.disks))] {
		full = append(full, r.w.disks[n])
	}
	r.did("fill the disks of %s for %s", strings.Join(bases(full), ", "), still.Round(time.Millisecond))
	for _, dir := range full {
		if err := fill(dir, rng.Int64N(64<<10)); err != nil {
			return err
		}
	}
	sleep(ctx, still)
	if err := empty(full); err != nil {
		return err
	}
	for _, name := range bases(full) {
		if err := r.w.kill(name); err != nil {
			return err
		}
		if err := r.w.restart(name); err != nil {
			return err
		}
	}
	return nil
}

func bases(dirs []string) (names []string) {
	for _, dir := range dirs {
		names = append(names, filepath.Base(dir))
	}
	return names
}

// fill leaves so many bytes.
func fill(dir string, leave int64) error {
	var disk syscall.Statfs_t
	if err := syscall.Statfs(dir, &disk); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(dir, filler), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil //nolint:nilerr // another fault has filled it
	}
	defer f.Close()
	for take := int64(disk.Bavail)*disk.Bsize - leave; take > 0; take -= 64 << 10 {
		if err = syscall.Fallocate(int(f.Fd()), 0, 0, take); !errors.Is(err, syscall.ENOSPC) {
			return err
		}
	}
	return nil
}

func empty(dirs []string) (err error) {
	for _, dir := range dirs {
		if e := os.Remove(filepath.Join(dir, filler)); !errors.Is(e, os.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return err
}
