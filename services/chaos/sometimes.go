package chaos

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// What should happen sometimes: a run in which one of these never does has not
// tried what it is for.
const (
	sawStale      = "a denial by staleness"
	sawRedis      = "an acceptance by Redis"
	sawLostAnswer = "an answer that never came"
	sawNoToken    = "no token to be had"
	sawReceipt    = "a receipt"
	sawTimed      = "a hold that ended by itself"
	sawComplete   = "a revocation told to be complete"
	sawAnew       = "a token made after all, to be taken in the end"
	sawLooks      = "decisions"
	sawChanges    = "changes done"
	sawKill       = "a process that was killed"
	sawRebuild    = "a rebuild of the Redis view"
	sawGap        = "a gap in the feed"
	sawWhole      = "a whole sync"
	sawEpoch      = "a new epoch"
	sawSingly     = "a batch that was sent singly"
	sawNoAck      = "a lost acknowledgement of a tick"
	sawUndecided  = "a target of which no order was found in time"
)

// wanted are those that a long run has to have seen.
var wanted = []string{
	sawReceipt, sawTimed, sawStale, sawRedis, sawLostAnswer, sawComplete, sawAnew, sawKill, sawRebuild, sawGap, sawWhole, sawEpoch, sawNoAck,
}

// longRun is from how many rounds on a run has to have seen all.
const longRun = 200

// Missing is what a long run never saw.
func (run *Run) Missing() (never []string) {
	if run.Played < longRun || len(run.o.Only) > 0 {
		return nil
	}
	want := wanted
	if run.o.Copies == 1 { // only such a log is grouped into batches
		want = append(slices.Clone(want), sawSingly)
	}
	for _, what := range want {
		if run.Counts[what] == 0 {
			never = append(never, what)
		}
	}
	if n := run.Counts[sawUndecided]; n > run.Played/fewUndecided {
		never = append(never, fmt.Sprintf("an order for %d targets, in time to tell", n))
	}
	return never
}

// fewUndecided is in how many rounds one target may stay undecided.
const fewUndecided = 50

// sayings are what services and guards write when something happens, and its name.
var sayings = map[string]string{
	"the Redis view is rebuilt":                                           sawRebuild,
	"took the Redis view over from a writer that stands still":            "another writer of the Redis view",
	"the Redis view can't be used":                                        "an incomplete Redis view",
	"following the log again":                                             sawGap,
	"loaded the state of the log":                                         sawWhole,
	"the log went back; nothing is accepted until its new epoch":          "a proof that the log went back",
	"a new epoch stands":                                                  sawEpoch,
	"committed again what the log had lost":                               "lost entries committed again",
	"a tick was not acknowledged; whoever asked asks again":               sawNoAck,
	"a batch was not stored as one; its messages are sent singly":         sawSingly,
	"lost the connection to NATS; trying to get it back":                  "a lost connection",
	"this machine's clock differs from the broker's; nothing is accepted": "a refusal for a wrong clock",
}

// logScanner counts them in the logs as these grow.
type logScanner struct{ read map[string]int64 }

func (s *logScanner) scan(w *world) {
	if s.read == nil {
		s.read = map[string]int64{}
	}
	files, _ := filepath.Glob(filepath.Join(w.dir, "logs", "*.log")) // the pattern is good
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil || int64(len(data)) <= s.read[file] {
			continue
		}
		fresh := data[s.read[file]:]
		end := bytes.LastIndexByte(fresh, '\n') + 1
		s.read[file] += int64(end)
		for line := range bytes.Lines(fresh[:end]) {
			var said struct{ Msg string }
			if json.Unmarshal(line, &said) == nil && sayings[said.Msg] != "" {
				w.rec.Count(sayings[said.Msg], 1)
			}
		}
	}
}
