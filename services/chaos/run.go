package chaos

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Options are what a run can be told.
type Options struct {
	Dir    string        // of the deployment, new
	Source string        // the root of the repository
	Seeds  []uint64      // one after the other, the last one until the time is over
	For    time.Duration // how long rounds are begun
	Rounds int           // how many at most of each seed; 0: as many as time allows
	First  int           // the number of the first one; 0: 1
	Only   []string      // these faults only
	Short  bool          // see short
	Copies int           // of the log: 3, or 1, which is grouped into batches; 0: 3
	Out    io.Writer
}

// Run is one run of rounds over one deployment.
type Run struct {
	o       Options
	changes int // how many there were
	rec     *Recorder
	pace    pace
	ahead   []*Token             // of the next round
	behind  map[string]time.Time // who was not ready at the end of the last round, and since when

	// What came of it.
	Played  int
	Broken  []Violation
	BrokeIn string // the round, and its seed
	Again   string // how to play that round again
	Counts  map[string]int
}

// Play starts a deployment, plays rounds until the time is over or a promise is
// broken, and ends the deployment. An error says that it could not be played.
func Play(ctx context.Context, o Options) (run *Run, err error) {
	for _, name := range o.Only {
		if !slices.Contains(Faults(), name) {
			return nil, fmt.Errorf("no fault %q: want some of %s", name, strings.Join(Faults(), ", "))
		}
	}
	o.Copies = cmp.Or(o.Copies, 3)
	run = &Run{o: o, rec: NewRecorder(), pace: long, behind: map[string]time.Time{}}
	if o.Short {
		run.pace = short
	}
	w, err := newWorld(ctx, o, run.pace, run.rec)
	defer func() {
		err = errors.Join(err, w.close(len(run.Broken) > 0))
		if len(run.Broken) > 0 {
			err = errors.Join(err, run.keep())
		}
		run.Counts = maps.Clone(run.rec.counts)
	}()
	if err != nil {
		return run, err
	}
	for name, needs := range map[string]string{faultDisk: "the right to mount", faultPackets: "root, ip and nft"} {
		if w.can(name) {
			continue
		}
		_, _ = fmt.Fprintf(o.Out, "%s can't be had here: it takes %s\n", name, needs)
		if len(o.Only) == 1 && o.Only[0] == name {
			return run, errors.New("so there is nothing to play")
		}
	}
	begin := time.Now()
	for i := 0; o.For == 0 || time.Since(begin) < o.For; i++ {
		r := run.round(w, i)
		if r == nil {
			break
		}
		found, err := r.play(ctx)
		w.said.scan(w)
		if err != nil {
			return run, fmt.Errorf("round %d of seed %d (%s): %w", r.n, r.seed, strings.Join(r.faults, "; "), err)
		}
		run.Played++
		run.tell(r)
		if len(found) > 0 {
			run.Broken, run.BrokeIn = found, fmt.Sprintf("round %d of seed %d", r.n, r.seed)
			run.Again = fmt.Sprintf("--seed %d --first %d --rounds 1", r.seed, r.n)
			run.Again += o.flags()
			return run, nil
		}
		run.rec.with(func(h *History) { run.rec.h = h.next() })
	}
	if err := w.fsck(ctx); err != nil && ctx.Err() == nil {
		run.Broken, run.BrokeIn = []Violation{{promiseAgree, err.Error()}}, "what is left of all rounds"
		run.Again = run.allRounds()
	}
	return run, nil
}

// allRounds is how to play everything again that was played.
func (run *Run) allRounds() string {
	each := run.Played
	if run.o.Rounds > 0 {
		each = run.o.Rounds
	}
	var all []string
	for i := 0; i*each < run.Played; i++ {
		all = append(all, fmt.Sprintf("--seed %d --first %d --rounds %d", run.o.Seeds[i], max(run.o.First, 1), min(each, run.Played-i*each))+run.o.flags())
	}
	return strings.Join(all, "; scripts/chaos ")
}

// flags are those that the same rounds need.
func (o *Options) flags() (text string) {
	if o.Short {
		text += " --short"
	}
	if len(o.Only) > 0 {
		text += " --only " + strings.Join(o.Only, ",")
	}
	if o.Copies != 3 {
		text += fmt.Sprintf(" --log-copies %d", o.Copies)
	}
	return text
}

// round is the one that is played as number i, from 0; nil: there is none.
func (run *Run) round(w *world, i int) *round {
	r := &round{run: run, w: w, i: i, seed: run.o.Seeds[0], n: max(run.o.First, 1) + i, last: time.Now()}
	if all := run.o.Rounds; all > 0 {
		if i >= all*len(run.o.Seeds) {
			return nil
		}
		r.seed, r.n = run.o.Seeds[i/all], max(run.o.First, 1)+i%all
		r.final = i+1 == all*len(run.o.Seeds)
	}
	r.rng = rand.New(rand.NewPCG(r.seed, uint64(r.n)))
	return r
}

// tell prints a line about a round.
func (run *Run) tell(r *round) {
	var done, maybe, looks, allowed, refused, unable int
	run.rec.with(func(h *History) {
		for _, x := range h.Changes {
			switch x.Outcome {
			case Done:
				done++
			case Maybe:
				maybe++
			}
		}
		looks = len(h.Looks)
		for _, l := range h.Looks {
			switch l.Verdict {
			case Allowed:
				allowed++
			case Unable:
				unable++
			default:
				refused++
			}
		}
		run.rec.counts[sawLooks] += looks
		run.rec.counts[sawChanges] += done
	})
	_, _ = fmt.Fprintf(run.o.Out, "round %d: %s: %d changes done, %d unknown; %d decisions: %d accepted, %d refused, %d can't tell; %s\n",
		r.n, strings.Join(r.faults, "; "), done, maybe, looks, allowed, refused, unable, strings.Join(r.laps, ", "))
}

// keep writes the history that breaks a promise beside the logs.
func (run *Run) keep() error {
	data, err := json.MarshalIndent(run.rec.h, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(run.o.Dir, "history.json"), data, 0o600)
}

// Report prints what came of it: the counts, and the shortest violation.
func (run *Run) Report(out io.Writer) {
	for _, what := range slices.Sorted(maps.Keys(run.Counts)) {
		_, _ = fmt.Fprintf(out, "  %7d  %s\n", run.Counts[what], what)
	}
	if len(run.Broken) > 0 {
		_, _ = fmt.Fprintf(out, "BROKEN in %s (%d violations; the shortest):\n  %s\n  again: scripts/chaos %s\n",
			run.BrokeIn, len(run.Broken), run.Broken[0], run.Again)
		return
	}
	for _, what := range run.Missing() {
		_, _ = fmt.Fprintf(out, "never: %s\n", what)
	}
	_, _ = fmt.Fprintf(out, "seeds %d: %d rounds, nothing broken\n", run.o.Seeds, run.Played)
}

// mend undoes every fault.
func (w *world) mend(ctx context.Context) error {
	w.links.mend()
	if err := w.rightClocks(); err != nil {
		return err
	}
	for _, name := range w.names(allKinds...) {
		p, err := w.process(name)
		if err != nil {
			return err
		}
		signal(p, syscall.SIGCONT)
		if err := w.restart(name); err != nil {
			return err
		}
	}
	w.keepAll(ctx)
	w.follow(ctx, 1-int(w.redis.primary.Load()))
	return empty(w.disks)
}

// fetch returns status and body, or 0 and the error.
func (w *world) fetch(req *http.Request) (int, string) {
	resp, err := w.http.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, strings.TrimSpace(string(body))
}
