package chaos

import (
	"strings"
	"testing"
	"time"

	"github.com/quash-project/quash/shared/guard/revoke"
)

// second is a moment of a planted history.
func second(n float64) time.Duration { return time.Duration(n * float64(time.Second)) }

// planted is a history of one token, made at second 1 of a key that was made then.
func planted(change func(h *History)) *History {
	h := &History{Tokens: []*Token{{
		ID: 1, KeyAsked: second(0.5), KeyMade: second(1), Made: second(1.2), Stamp: revoke.Stamp{Epoch: 1, Seq: 5},
		Principal: "principal:a", Key: "key:k", ItsToken: "token:t",
	}}}
	change(h)
	return h
}

// add adds a change that was asked for at one second and acknowledged at another.
func (h *History) add(op, target string, asked, acked float64, told ...Told) *Change {
	x := &Change{
		ID: len(h.Changes) + 1, Op: op, Target: target, Asked: second(asked), Answered: second(acked), Outcome: Done, Told: told,
		Answers: []Answer{{At: second(acked), Entry: "e" + op + target, Where: revoke.Stamp{Epoch: 1, Seq: uint64(asked * 10)}}},
	}
	h.Changes = append(h.Changes, x)
	return x
}

// looked adds a decision within a tenth of a second.
func (h *History) looked(v Verdict, asked, stale float64, more ...func(*Look)) {
	l := Look{
		By: "g", Guard: Who{"g", "i"}, Token: 1, Asked: second(asked), Answered: second(asked + 0.1), Verdict: v,
		Stale: second(stale), Epoch: 1, Target: "principal:a",
	}
	for _, m := range more {
		m(&l)
	}
	h.Looks = append(h.Looks, l)
}

func final(l *Look) { l.Final = true }
func probe(l *Look) { l.Probe = true }

func by(name string) func(*Look) { return func(l *Look) { l.By, l.Guard = name, Who{name, ""} } }

var g = Who{"g", "i"}

// Each kind of violation is found, and by its own promise.
func TestCheckFindsWhatIsPlanted(t *testing.T) {
	for _, c := range []struct {
		name, want string
		plant      func(h *History)
	}{
		{"a receipt that was complete is so no more", promiseProved, func(h *History) {
			x := h.add(opRevoke, "principal:b", 2, 3)
			x.Proved = []Proved{{Asked: second(3), At: second(3.1), Complete: true}, {Asked: second(3.2), At: second(3.3)}}
		}},
		{"a receipt takes back who has confirmed", promiseProved, func(h *History) {
			x := h.add(opRevoke, "principal:b", 2, 3)
			x.Proved = []Proved{{Asked: second(4), At: second(4.1)}, {Asked: second(3), At: second(3.1), Confirmed: []Who{g}}}
		}},
		{"accepted before a hold has ended by itself", promiseKept, func(h *History) {
			x := h.add(opHold, "principal:a", 2, 3)
			x.For = second(10)
			h.Changes = append(h.Changes, &Change{ID: 2, Op: opRelease, Target: x.Target, Asked: second(12), Outcome: Maybe, ends: x})
			h.looked(Allowed, 5, 0, final)
		}},
		{"accepted because another hold has ended", promiseKept, func(h *History) {
			x := h.add(opHold, "principal:a", 2, 3)
			x.For = second(1)
			h.Changes = append(h.Changes, &Change{ID: 2, Op: opRelease, Target: x.Target, Asked: second(3), Outcome: Maybe, ends: x})
			h.add(opHold, "principal:a", 3, 4)
			h.looked(Allowed, 5, 0, final)
		}},
		{"a hold does not end", promiseAnew, func(h *History) {
			x := h.add(opHold, "principal:a", 2, 3)
			x.For, h.Tokens[0].AfterCut = second(1), true
			h.Changes = append(h.Changes, &Change{ID: 2, Op: opRelease, Target: x.Target, Asked: second(3), Outcome: Maybe, ends: x})
			h.looked(Held, 30, 0, final)
		}},
		{"accepted by a view that covers the cut", promiseClaim, func(h *History) {
			h.add(opRevoke, "principal:a", 2, 3)
			h.looked(Allowed, 5, 1.9)
		}},
		{"accepted by a view that covers the end of its key", promiseClaim, func(h *History) {
			h.add(opRevoke, "key:k", 2, 3)
			h.looked(Allowed, 5, 1.9)
		}},
		{"accepted by a view that covers its own end", promiseClaim, func(h *History) {
			h.add(opRevoke, "token:t", 2, 3)
			h.looked(Allowed, 5, 1.9)
		}},
		{"accepted by a view that covers the hold", promiseClaim, func(h *History) {
			h.add(opRelease, "principal:a", 1.5, 1.8) // before the hold: of another one
			h.add(opHold, "principal:a", 2, 3)
			h.add(opRelease, "principal:a", 6, 7) // after the decision
			h.looked(Allowed, 5, 1.9)
		}},
		{"accepted after it was confirmed there", promiseConfirmed, func(h *History) {
			h.add(opRevoke, "principal:a", 2, 3, Told{At: second(4), Confirmed: []Who{g}})
			h.looked(Allowed, 5, 10)
		}},
		{"accepted after it was confirmed at a process, whatever its instance", promiseConfirmed, func(h *History) {
			h.add(opRevoke, "principal:a", 2, 3, Told{At: second(4), Confirmed: []Who{{"demo-1", "x"}}})
			h.looked(Allowed, 5, 10, by("demo-1"))
		}},
		{"accepted past its fence", promiseFenced, func(h *History) {
			h.add(opRevoke, "principal:a", 2, 3, Told{At: second(4), Fenced: map[Who]time.Duration{g: second(6)}})
			h.looked(Allowed, 7, 10)
		}},
		{"accepted past the fence of the Redis view", promiseFenced, func(h *History) {
			h.add(opRevoke, "principal:a", 2, 3, Told{At: second(4), Redis: second(6)})
			h.looked(Allowed, 7, 10, func(l *Look) { l.Redis = true })
		}},
		{"accepted by a third after it was complete", promiseComplete, func(h *History) {
			h.add(opRevoke, "principal:a", 2, 3, Told{At: second(4), Confirmed: []Who{{"other", "i"}}, Complete: true})
			h.looked(Allowed, 5, 10)
		}},
		{"accepted in the end", promiseKept, func(h *History) {
			h.add(opRevoke, "principal:a", 2, 3)
			h.looked(Allowed, 50, 60, final)
		}},
		{"acknowledged and not in the log", promiseKept, func(h *History) {
			h.add(opRevoke, "principal:a", 2, 3)
			h.Stored = map[int]int{}
		}},
		{"two answers of one key", promiseOnce, func(h *History) {
			x := h.add(opRevoke, "principal:a", 2, 3)
			x.Answers = append(x.Answers, Answer{At: second(4), Entry: x.Answers[0].Entry, Where: revoke.Stamp{Epoch: 1, Seq: 99}})
		}},
		{"two entries of one key", promiseOnce, func(h *History) {
			h.add(opRevoke, "principal:a", 2, 3)
			h.Stored = map[int]int{1: 2}
		}},
		{"done although answered that it was not", promiseNothing, func(h *History) {
			x := h.add(opRevoke, "principal:a", 2, 3)
			x.Outcome, x.Answers = Nothing, nil
			h.Stored = map[int]int{1: 1}
		}},
		{"acknowledged and not in the log, before it went back", promiseKept, func(h *History) {
			h.add(opRevoke, "principal:a", 2, 3)
			h.Backs = []Back{{Copied: second(4), Back: second(5)}}
			h.Stored = map[int]int{}
		}},
		{"lost when the log went back, and still the same epoch", promiseEpoch, func(h *History) {
			h.add(opRevoke, "principal:a", 2, 3)
			h.Backs = []Back{{Copied: second(1.9), Back: second(4)}}
			h.Stored = map[int]int{}
			h.looked(Dead, 50, 1, final)
		}},
		{"accepted by a view that covers the cut, long after the log went back", promiseClaim, func(h *History) {
			h.Backs = []Back{{Copied: second(0.1), Back: second(0.2)}}
			h.add(opRevoke, "principal:a", 2, 3)
			h.looked(Allowed, 5, 1.9)
		}},
		{"made anew and refused", promiseAnew, func(h *History) {
			h.add(opRevoke, "principal:a", 0.1, 0.2)
			h.Tokens[0].AfterCut = true
			h.looked(Dead, 50, 1, final)
		}},
		{"two views in the end", promiseEqual, func(h *History) {
			x := h.add(opRevoke, "principal:a", 2, 3)
			x.Outcome, x.Answers = Maybe, nil
			h.looked(Dead, 50, 1, final)
			h.looked(Allowed, 50, 1, final, by("demo-1"))
		}},
		{"another view than the log's in the end", promiseEqual, func(h *History) {
			x := h.add(opRevoke, "principal:a", 2, 3)
			x.Outcome, x.Answers = Maybe, nil
			h.looked(Allowed, 50, 1, final)
			h.Fold = map[int]Verdict{1: Dead}
		}},
		{"can't tell in the end", promiseStuck, func(h *History) { h.looked(Unable, 50, 1, final) }},
		{"a probe that saw the past", promiseOrder, func(h *History) {
			h.add(opHold, "principal:a", 2, 3)
			h.looked(Allowed, 5, 10, probe)
		}},
		{"a release that released nothing", promiseOrder, func(h *History) {
			h.add(opHold, "principal:a", 2, 3)
			h.add(opRelease, "principal:a", 4, 5)
			h.looked(Held, 50, 1, final)
		}},
		{"nothing to release although held", promiseOrder, func(h *History) {
			h.add(opHold, "principal:a", 2, 3)
			x := h.add(opRelease, "principal:a", 4, 5)
			x.Outcome, x.Answers = Conflict, nil
		}},
		{"refused by a cut that was before", promiseOrder, func(h *History) {
			h.add(opRevoke, "principal:a", 0.1, 0.2)
			h.looked(Dead, 50, 1, final)
		}},
		{"refused by a hold that nobody asked for", promiseOrder, func(h *History) {
			h.add(opRevoke, "principal:a", 0.1, 0.2)
			h.looked(Held, 50, 1, final)
		}},
		{"lost when the log went back, and the guard has noticed that", promiseClaim, func(h *History) {
			h.add(opRevoke, "principal:a", 2, 3)
			h.Backs = []Back{{Copied: second(1.9), Back: second(4)}}
			h.looked(Allowed, 6, 1, func(l *Look) { l.Epoch = 2 })
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			found, _ := Check(planted(c.plant))
			for _, v := range found {
				if v.Promise == c.want {
					return
				}
			}
			t.Errorf("found %q, want: %s", found, c.want)
		})
	}
}

// What is allowed is not called a violation.
func TestCheckFindsNothingWhereNothingIs(t *testing.T) {
	for name, plant := range map[string]func(h *History){
		"within the staleness that is claimed": func(h *History) {
			h.add(opRevoke, "principal:a", 2, 3)
			h.looked(Allowed, 4, 1.1)
		},
		"a key that is made after the cut": func(h *History) {
			h.add(opRevoke, "principal:a", 0.6, 0.9)
			h.looked(Allowed, 5, 0.1)
		},
		"a hold that may be released": func(h *History) {
			h.add(opHold, "principal:a", 2, 3)
			x := h.add(opRelease, "principal:a", 3.5, 4)
			x.Outcome, x.Answers = Maybe, nil
			h.looked(Allowed, 5, 0.1, probe)
			h.looked(Allowed, 50, 0.1, final)
		},
		"a change without an answer, of two minds": func(h *History) {
			x := h.add(opRevoke, "principal:a", 2, 3)
			x.Outcome, x.Answers = Maybe, nil
			h.looked(Allowed, 5, 0, probe)
			h.looked(Dead, 50, 0, final)
		},
		"before the fence and the confirmation": func(h *History) {
			h.add(opRevoke, "principal:a", 2, 3, Told{At: second(6), Confirmed: []Who{g}}, Told{At: second(4), Fenced: map[Who]time.Duration{g: second(6)}})
			h.looked(Allowed, 5, 10)
		},
		"lost when the log went back, which nobody has noticed": func(h *History) {
			h.add(opRevoke, "principal:a", 2, 3)
			h.Backs = []Back{{Copied: second(1.9), Back: second(4)}}
			h.looked(Allowed, 6, 1)
		},
		"a receipt begins again with the log": func(h *History) {
			x := h.add(opRevoke, "principal:b", 2, 3)
			x.Proved = []Proved{{Asked: second(3), At: second(3.1), Confirmed: []Who{g}, Complete: true}, {Asked: second(5), At: second(5.1)}}
			h.Backs = []Back{{Copied: second(1.9), Back: second(4)}}
		},
		"the same answer twice": func(h *History) {
			x := h.add(opRevoke, "principal:a", 2, 3)
			x.Answers = append(x.Answers, x.Answers[0])
			h.Stored = map[int]int{1: 1}
			h.looked(Dead, 50, 0, final)
			h.Fold = map[int]Verdict{1: Dead}
		},
	} {
		if found, _ := Check(planted(plant)); len(found) > 0 {
			t.Errorf("%s: %q", name, found)
		}
	}
}

// The shortest comes first: it is what is printed.
func TestCheckTellsTheShortestFirst(t *testing.T) {
	found, _ := Check(planted(func(h *History) {
		h.add(opRevoke, "principal:a", 2, 3)
		h.looked(Allowed, 50, 0, final)
		h.looked(Allowed, 50, 0, probe)
	}))
	if len(found) < 2 {
		t.Fatalf("%q", found)
	}
	for _, v := range found[1:] {
		if len(v.Text) < len(found[0].Text) {
			t.Errorf("%q stands before %q", found[0], v)
		}
	}
	if !strings.Contains(found[0].String(), "principal:a") {
		t.Errorf("%q does not say of what", found[0])
	}
}

// A run in which the order of more than a few targets could not be told has not tried
// what it is for.
func TestLongRunTellsWhatItCouldNotDecide(t *testing.T) {
	run := &Run{Played: longRun, Counts: map[string]int{}}
	for _, what := range wanted {
		run.Counts[what] = 1
	}
	run.Counts[sawUndecided] = longRun / fewUndecided
	if never := run.Missing(); len(never) > 0 {
		t.Errorf("with a few: %q", never)
	}
	run.Counts[sawUndecided]++
	if never := run.Missing(); len(never) != 1 {
		t.Errorf("with more: %q", never)
	}
}

// What is printed to play a round again has all that the round was played with.
func TestRoundIsPlayedAgainAsItWas(t *testing.T) {
	o := Options{Short: true, Only: []string{"kill", "cut"}, Copies: 1}
	if got, want := o.flags(), " --short --only kill,cut --log-copies 1"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
