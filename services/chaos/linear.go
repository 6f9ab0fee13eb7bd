package chaos

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// linearTime is how long the search for an order may take for one target.
const linearTime = 5 * time.Second

// target is what the sequential specification knows of one target.
type target struct {
	held, ended bool
	alive       uint64 // bit by API key: made, and not cut since
}

// step is what was done with a target.
type step struct {
	what string // an operation, or one of those below
	bit  uint64
	// maybe: it may have had no effect until after everything else.
	maybe, conflict, final bool
}

const (
	stepBirth = "a key is made"
	stepRead  = "a token is accepted"
	stepHeld  = "a token is refused as held"
	stepDead  = "a token is refused as revoked"
)

var specification = porcupine.Model{
	Init: func() any { return target{} },
	Step: func(state, input, _ any) (bool, any) {
		next, in := state.(target), input.(step)
		ok := true
		switch in.what {
		case opRevoke:
			next.alive, next.ended = 0, next.ended || in.final
		case opHold:
			next.held = true
		case opRelease:
			if in.conflict {
				ok = !next.held
			}
			next.held = false
		case stepBirth:
			next.alive |= in.bit
		case stepRead:
			ok = !next.held && !next.ended && next.alive&in.bit != 0
		case stepHeld:
			ok = next.held
		case stepDead:
			ok = next.ended || next.alive&in.bit == 0
		}
		return ok, next
	},
	DescribeOperation: func(input, _ any) string { return input.(step).what },
}

// linearizable looks for an order of all that was done with each target that
// explains every answer.
func (c *checker) linearizable() {
	for name, changes := range c.byTarget {
		ops := c.operations(name, changes)
		switch porcupine.CheckOperationsTimeout(specification, ops, linearTime) {
		case porcupine.Illegal:
			c.broke(promiseOrder, "%s: no order explains: %s", name, describe(ops))
		case porcupine.Unknown:
			c.undecided = append(c.undecided, name)
		}
	}
}

func (c *checker) operations(name string, changes []*Change) (ops []porcupine.Operation) {
	final := !strings.HasPrefix(name, "principal:")
	for _, x := range changes {
		if op, ok := operation(x, final); ok {
			ops = append(ops, op)
		}
	}
	bits := map[string]uint64{} // by API key: tokens of one key live and die together
	for _, t := range c.h.Tokens {
		if !slices.Contains(t.targets(), name) || bits[t.Key] != 0 || len(bits) == 64 {
			continue
		}
		bit := uint64(1) << len(bits)
		bits[t.Key] = bit
		ops = append(ops, porcupine.Operation{Input: step{what: stepBirth, bit: bit}, Call: int64(t.KeyAsked), Return: int64(t.KeyMade)})
	}
	for i := range c.h.Looks {
		l := &c.h.Looks[i]
		t := c.tokens[l.Token]
		if bits[t.Key] == 0 || !slices.Contains(t.targets(), name) {
			continue
		}
		if what := c.read(l, name); what != "" {
			ops = append(ops, porcupine.Operation{Input: step{what: what, bit: bits[t.Key]}, Call: int64(l.Asked), Return: int64(l.Answered)})
		}
	}
	return ops
}

func operation(x *Change, final bool) (porcupine.Operation, bool) {
	op := porcupine.Operation{Call: int64(x.Asked), Return: math.MaxInt64}
	in := step{what: x.Op, final: final}
	switch x.Outcome {
	case Nothing:
		return op, false
	case Maybe:
		in.maybe = true
	case Conflict:
		in.conflict, op.Return = true, int64(x.Answered)
	case Done:
		op.Return = int64(x.Answers[0].At) // it was committed by then; what came later is repetition
	}
	op.Input = in
	return op, true
}

// read returns what a decision tells of a target, if anything. Without a probe a
// view may be of the past. In a log that has gone back a cut hits more than it
// did, and until that is noticed there are two truths.
func (c *checker) read(l *Look, name string) string {
	t := c.tokens[l.Token]
	after := slices.ContainsFunc(c.h.Backs, func(b Back) bool { return l.Answered >= b.Back && t.Stamp.Epoch <= b.Epoch })
	switch {
	case l.Verdict == Allowed && (l.Final || l.Probe && !after):
		return stepRead
	case l.Verdict == Held && l.Final && l.Target == name:
		return stepHeld
	case l.Verdict == Dead && l.Final && l.Target == name && !after:
		return stepDead
	}
	return ""
}

// describe tells operations in the order in which they were asked for; of equal
// reads in a row only the first.
func describe(ops []porcupine.Operation) string {
	slices.SortStableFunc(ops, func(a, b porcupine.Operation) int { return int(a.Call - b.Call) })
	var parts []string
	last := step{}
	for _, op := range ops {
		in := op.Input.(step)
		if in == last && in.what == stepRead {
			continue
		}
		last = in
		until := "?"
		if op.Return != math.MaxInt64 {
			until = at(time.Duration(op.Return))
		}
		text := fmt.Sprintf("%s [%s, %s]", in.what, at(time.Duration(op.Call)), until)
		switch {
		case in.conflict:
			text += " answered that nothing is held"
		case in.maybe:
			text += " maybe"
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, "; ")
}
