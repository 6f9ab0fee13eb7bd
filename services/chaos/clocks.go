package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/quash-project/quash/services/chaos/skewed"
)

// withClocks returns an overlay for the build by which the services have a clock
// that can be set wrong: they are told one by their mains' wiring, which is all that
// is replaced. See package skewed.
func withClocks(source, dir string) (overlay string, err error) {
	if source, err = filepath.Abs(source); err != nil {
		return "", err
	}
	replace := map[string]string{}
	for _, service := range []string{"revocation", "rotator", "issuer"} {
		file := filepath.Join(source, "services", service, "app", "app.go")
		data, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		text := string(data)
		for _, change := range [][2]string{
			{"d.Now = time.Now\n", "d.Now = skewed.Now\n"},
			{"import (\n", "import (\n\t\"github.com/quash-project/quash/services/chaos/skewed\"\n"},
		} {
			if strings.Count(text, change[0]) != 1 {
				return "", fmt.Errorf("%s has not one %q", file, change[0])
			}
			text = strings.Replace(text, change[0], change[1], 1)
		}
		replace[file] = filepath.Join(dir, "clocks", service+".go")
		if err := os.WriteFile(replace[file], []byte(text+"\nvar _ time.Time // what the import may be left for\n"), 0o600); err != nil {
			return "", err
		}
	}
	data, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	overlay = filepath.Join(dir, "clocks", "overlay.json")
	return overlay, os.WriteFile(overlay, data, 0o600)
}

// setClock sets the clock of a service by so much wrong; 0: right.
func (w *world) setClock(name string, by time.Duration) error {
	p, err := w.process(name)
	if err != nil {
		return err
	}
	file := filepath.Join(w.dir, skewed.File(p.PID))
	if by == 0 {
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	// Renamed into place: half a number would be another.
	if err := os.WriteFile(file+".new", []byte(strconv.FormatInt(int64(by), 10)), 0o600); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

// rightClocks sets all of them right.
func (w *world) rightClocks() error {
	var errs []error
	for _, name := range w.names("revocation", "rotator", "issuer") {
		errs = append(errs, w.setClock(name, 0))
	}
	for _, g := range w.guards {
		if e, ok := g.(*embedded); ok {
			e.skew.Store(0)
		}
	}
	return errors.Join(errs...)
}

// wrongGuardClock steps the clock of a guard, or lets it drift.
func (r *round) wrongGuardClock(ctx context.Context, rng *rand.Rand) error {
	e := r.anyEmbedded(rng)
	return r.wrongClock(ctx, rng, "guard "+e.name, func(by time.Duration) error { e.skew.Store(int64(by)); return nil })
}

// wrongServiceClock does so with that of a service: by minutes, which it has to
// notice, or by what it must bear without.
func (r *round) wrongServiceClock(ctx context.Context, rng *rand.Rand) error {
	name := one(rng, r.w.names("revocation", "revocation", "rotator", "issuer"))
	// What such a clock says is no time of ours.
	r.w.rec.with(func(h *History) { h.WrongClock = true })
	return r.wrongClock(ctx, rng, name, func(by time.Duration) error { return r.w.setClock(name, by) })
}

// wrongClock steps a clock by up to ten minutes, half the time by up to three, or
// lets it drift as far. It is set right at the end of the fault.
func (r *round) wrongClock(ctx context.Context, rng *rand.Rand, whose string, set func(time.Duration) error) error {
	still, most := r.lasts(rng, time.Second, 4*time.Second), 10*time.Minute
	if rng.IntN(2) == 0 {
		most = 3 * time.Minute
	}
	by, steps := between(rng, -most, most), 1
	if rng.IntN(2) == 0 {
		steps = 50 // a drift that is seen within a round
	}
	r.did("set the clock of %s wrong by %s in %d steps, for %s", whose, by.Round(time.Millisecond), steps, still.Round(time.Millisecond))
	for i := range steps {
		if err := set(by * time.Duration(i+1) / time.Duration(steps)); err != nil {
			return err
		}
		sleep(ctx, still/time.Duration(steps))
	}
	return set(0)
}
