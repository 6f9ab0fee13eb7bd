package chaos

import (
	"sync"
	"time"

	"github.com/quash-project/quash/shared/guard/revoke"
)

// Outcome is how a request to change something ended, as its asker knows it.
type Outcome uint8

// The outcomes. The zero Outcome is the one from which nothing follows.
const (
	Maybe    Outcome = iota // no answer, or one that says that nobody knows
	Done                    // committed
	Nothing                 // answered that nothing was done, and that it could not be now
	Conflict                // of a release: answered that nothing is held
)

// The operations.
const (
	opRevoke  = "revoke"
	opHold    = "hold"
	opRelease = "release"
)

// Change is one revocation, hold or release of one target, under one idempotency
// key, however often it was sent. Times are those of the recorder.
type Change struct {
	ID              int
	Op, Target      string
	Asked, Answered time.Duration // Answered is the last answer; meaningless for Maybe
	Outcome         Outcome
	Answers         []Answer
	Told            []Told
	Proved          []Proved
	// For is how long a hold lasts by itself; 0: until it is released.
	For time.Duration
	// Beside are other targets of the same entry, which nobody has.
	Beside     []string
	ends       *Change // of the release with which a hold ends by itself
	tries      int
	wrongClock bool // that of a service was in its round
}

// Answer is one answer that the change was committed.
type Answer struct {
	At    time.Duration
	Entry string
	Where revoke.Stamp
}

// Told is what a service has told of how far a change had come.
type Told struct {
	At        time.Duration
	Confirmed []Who
	Fenced    map[Who]time.Duration // from when it refuses by itself
	Redis     time.Duration         // from when no older Redis view is taken for complete; 0: not told
	Complete  bool
}

// Who is one guard of the fleet.
type Who struct{ Name, Instance string }

// MarshalText is for a history that is written down.
func (w Who) MarshalText() ([]byte, error) { return []byte(w.Name + "/" + w.Instance), nil }

// Token is one access token. What it was made of is as old as its key.
type Token struct {
	ID              int
	Text            string
	Owner           string
	KeyAsked        time.Duration // when its API key was asked for
	KeyMade         time.Duration // and answered
	Made            time.Duration // when the token itself was answered
	Stamp           revoke.Stamp
	Principal, Key  string // its targets, as kind:id
	ItsToken        string
	Targets         map[string]revoke.Key // by kind:id, those above
	AfterCut, Alive bool                  // AfterCut: must be accepted in the end
}

func (t *Token) targets() []string { return []string{t.Principal, t.Key, t.ItsToken} }

// Verdict is what a guard said of a token.
type Verdict uint8

// The verdicts.
const (
	Unable  Verdict = iota // no answer, or that it can't tell
	Allowed                // accepted
	Held                   // refused by a hold
	Dead                   // refused by a cut or an end
	Other                  // refused for another reason
)

func (v Verdict) String() string {
	return [...]string{"no answer", "accepted", "refused as held", "refused as revoked", "refused"}[v]
}

// Look is one decision.
type Look struct {
	By              string // its name here, for people
	Guard           Who    // as the fleet knows it
	Redis           bool   // by the Redis view alone: no confirmation by an instance
	Token           int
	Asked, Answered time.Duration
	Verdict         Verdict
	Target          string        // what hit, where it is known
	Stale           time.Duration // how old the view was at most, as the guard claims
	Epoch           uint64        // of that view; 0: not known
	Probe           bool          // the view was proved after the question
	Final           bool          // after all was quiet
	Why             string
}

// Back is one time that the log went back: what was answered between Copied and
// Back may be lost to whoever has not noticed. Epoch is the newest one that had been
// seen by then: what has a later stamp is of after that.
type Back struct {
	Copied, Back time.Duration
	Epoch        uint64
}

// epoch is the newest one that anybody has been told.
func (h *History) epoch() (newest uint64) {
	for _, t := range h.Tokens {
		newest = max(newest, t.Stamp.Epoch)
	}
	for _, x := range h.Changes {
		for _, a := range x.Answers {
			newest = max(newest, a.Where.Epoch)
		}
	}
	return newest
}

// History is what one round has recorded.
type History struct {
	Changes []*Change
	Tokens  []*Token
	Looks   []Look
	Backs   []Back
	// WrongClock: that of a service was, so that the times that were told are not
	// those of the recorder.
	WrongClock bool
	// Stored is how often the log has an entry of a change, by its ID, when all was
	// quiet; nil: not read.
	Stored map[int]int
	// Fold is what the log itself says of each token when all was quiet.
	Fold map[int]Verdict
}

// Recorder keeps a History, and has the one clock of it.
type Recorder struct {
	begin time.Time // its monotonic reading counts

	mu     sync.Mutex
	h      *History
	counts map[string]int
}

// NewRecorder begins one.
func NewRecorder() *Recorder {
	return &Recorder{begin: time.Now(), h: &History{}, counts: map[string]int{}}
}

// Now is the time of the history, by the monotonic clock.
func (r *Recorder) Now() time.Duration { return time.Since(r.begin) }

// Wall turns a moment of the machine's wall clock into one of the history.
func (r *Recorder) Wall(t time.Time) time.Duration {
	now := time.Now()
	return now.Sub(r.begin) + t.Round(0).Sub(now.Round(0))
}

// Count counts something that should happen sometimes.
func (r *Recorder) Count(what string, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counts[what] += n
}

// with changes the history.
func (r *Recorder) with(do func(*History)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	do(r.h)
}

// look records a decision.
func (r *Recorder) look(l Look) { r.with(func(h *History) { h.Looks = append(h.Looks, l) }) }
