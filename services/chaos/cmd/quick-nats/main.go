// Command quick-nats is a nats-server that notices within a second that a leader
// is gone, and not after four to nine: short rounds would else be spent waiting for
// elections. Nothing but these times differs; nats-server's own tests set the same
// ones.
package main

import (
	"flag"
	"fmt"
	"os"
	"time"
	_ "unsafe" // for the names below, which no setting reaches

	"github.com/nats-io/nats-server/v2/server"
)

//go:linkname minElectionTimeout github.com/nats-io/nats-server/v2/server.minElectionTimeout
var minElectionTimeout time.Duration

//go:linkname maxElectionTimeout github.com/nats-io/nats-server/v2/server.maxElectionTimeout
var maxElectionTimeout time.Duration

//go:linkname hbInterval github.com/nats-io/nats-server/v2/server.hbInterval
var hbInterval time.Duration

//go:linkname lostQuorumInterval github.com/nats-io/nats-server/v2/server.lostQuorumInterval
var lostQuorumInterval time.Duration

//go:linkname lostQuorumCheck github.com/nats-io/nats-server/v2/server.lostQuorumCheck
var lostQuorumCheck time.Duration

// The times. All have the relations that the server's own defaults have, but the
// last: who is cut off shall notice within a round.
const (
	heartbeat  = 100 * time.Millisecond
	shortest   = 4 * heartbeat
	longest    = 9 * heartbeat
	lostQuorum = 10 * heartbeat
)

func main() {
	if minElectionTimeout == 0 || hbInterval == 0 || lostQuorumCheck == 0 {
		server.PrintAndDie("quick-nats: this nats-server has other names for its times")
	}
	hbInterval, minElectionTimeout, maxElectionTimeout = heartbeat, shortest, longest
	lostQuorumInterval, lostQuorumCheck = lostQuorum, lostQuorum
	fs := flag.NewFlagSet("quick-nats", flag.ExitOnError)
	opts, err := server.ConfigureOptions(fs, os.Args[1:], server.PrintServerAndExit, fs.Usage, server.PrintTLSHelpAndDie)
	if err != nil {
		server.PrintAndDie(fmt.Sprintf("quick-nats: %s", err))
	}
	s, err := server.NewServer(opts)
	if err != nil {
		server.PrintAndDie(fmt.Sprintf("quick-nats: %s", err))
	}
	s.ConfigureLogger()
	if err := server.Run(s); err != nil {
		server.PrintAndDie(err.Error())
	}
	s.WaitForShutdown()
}
