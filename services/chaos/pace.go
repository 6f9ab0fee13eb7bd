package chaos

import "time"

// pace is how long the parts of a round take. Whatever it is, the end of a round
// waits for conditions and not for times.
type pace struct {
	node        string        // package of the nats-server; "": as shipped
	faults      float64       // how long faults last, as a share
	atOnce      int           // how many there are at most
	limit, demo time.Duration // staleness limits of the short guards, and of the demo servers
	patience    time.Duration // bounds one request
	last        time.Duration // how long what is on its way may take once nothing fails any more
	wait        time.Duration // how long to wait for a revocation to be complete
	settle      time.Duration // how long the end of a round waits for who recovers; see ready
}

// The paces. Guards of demo servers don't tell what they claim: their limit is what
// they are held to.
var (
	long = pace{faults: 1, atOnce: 2, limit: 3 * time.Second, demo: 5 * time.Second, patience: 4 * time.Second, last: 10 * time.Second, wait: time.Second, settle: quietTime}
	// short is for rounds of some two seconds: more faults together, that last a
	// quarter as long, guards that are past their limit as much sooner, and nodes
	// that notice as much sooner that a leader is gone.
	short = pace{node: "./services/chaos/cmd/quick-nats", faults: 0.25, atOnce: 3, limit: time.Second, demo: time.Second, patience: 2 * time.Second, last: 400 * time.Millisecond, wait: 200 * time.Millisecond, settle: 400 * time.Millisecond}
)
