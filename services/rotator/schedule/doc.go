// Package schedule says when something is rotated by itself, and sees to it that each
// firing happens once.
//
// The one idea needed to read it: the record decides. It holds what fires next, and what was
// claimed and is not marked as done yet; a replica claims a firing by compare-and-set on the
// record, begins a rotation whose id is made of tenant, schedule and the time for which it
// was due, and marks the record. Each of the three can be repeated: whoever comes after a
// kill -9 between any two of them does the same rotation, and never makes another. Timers,
// and whatever wakes a replica, only make it look.
//
// When a firing is due is computed by Plan, a pure function of the record and the time:
// every replica computes the same. Times by the clock on the wall are worked on as such and
// then put into their zone, so that what a change of daylight saving does to them is said in
// one place (moment).
package schedule
