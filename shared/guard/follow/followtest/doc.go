// Package followtest is a small simulation of what a reader of the log sees: a
// Log in memory, which commits, ticks, answers and goes back, and a Link to it
// for each reader, with the faults of a network.
//
// It has no clock of its own: run it within testing/synctest.
//
//	log := followtest.NewLog(followtest.Config{})
//	link := log.Link()
//	r, _ := follow.New(follow.Config{Source: link, Feed: link})
//	link.SetFaults(followtest.Faults{Lose: 0.1, Repeat: 0.1})
//	log.End(key)
//
// What it promises to a reader is what the design promises of the real one, and
// no more: a tick is committed after the probe has come, the feed may lose,
// delay, repeat and reorder, sync answers are true.
package followtest
