package doctor

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/quash-project/quash/services/revocation/audit"
	"github.com/quash-project/quash/shared/identity"
)

// bucketPrefix begins the name of a bucket's stream.
const bucketPrefix = "KV_"

// records looks at the streams beside the log, by what the servers say: the buckets of
// records and the audit trail.
func records(servers []server) (found []Finding) {
	var fine []string
	led := map[string]bool{} // by name, and whether any server leads it
	for _, s := range servers {
		for _, a := range s.Data.Accounts {
			for _, one := range a.Streams {
				ours := a.Name == identity.Log && one.Name == audit.Stream || a.Name == identity.Control && strings.HasPrefix(one.Name, bucketPrefix)
				if !ours || one.Config == nil {
					continue
				}
				leads := s.leads(one.Cluster)
				led[one.Name] = led[one.Name] || leads
				if !leads {
					continue
				}
				bad := slices.Concat(lossOf(*one.Config), replicasOf(one.Config.Replicas, one.Cluster, len(servers)))
				if len(bad) == 0 {
					fine = append(fine, one.Name)
					continue
				}
				found = append(found, wrong("stream "+one.Name, "set it as the service that made it does (replicas: 3 on three nodes) with nats stream edit; a replica that is new needs time to catch up",
					errors.New(strings.Join(bad, "; "))))
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(led)) {
		if !led[name] {
			found = append(found, wrong("stream "+name, "a majority of its replicas must be there: look at the NATS servers", errors.New("no server leads it")))
		}
	}
	if len(fine) > 0 {
		slices.Sort(fine)
		found = append(found, good("streams of records", "%s: nothing leaves them but by their own ends", strings.Join(fine, " ")))
	}
	return found
}

// lossOf says how records or audit events can be lost by the settings of their stream.
func lossOf(c jetstream.StreamConfig) (bad []string) {
	limited := c.MaxMsgs > 0 || c.MaxBytes > 0
	for _, x := range []struct {
		is   bool
		text string
	}{
		{c.Storage != jetstream.FileStorage, "it is in memory: a restart loses all"},
		{c.PersistMode != jetstream.DefaultPersistMode, "persist_mode is async, which switches syncing off"},
		{c.Retention != jetstream.LimitsPolicy, "what was read is removed"},
		{limited && c.Discard == jetstream.DiscardOld, "when it is full, what is old is removed"},
		{c.Name == audit.Stream && (c.MaxAge != 0 || limited), "the audit trail has a limit of age, number or size"},
		{c.Name == audit.Stream && (!c.DenyDelete || !c.DenyPurge), "audit events can be deleted or purged by hand"},
		{c.NoAck, "it acknowledges nothing"},
		{c.Mirror != nil || len(c.Sources) > 0, "it copies another one"},
	} {
		if x.is {
			bad = append(bad, x.text)
		}
	}
	return bad
}

// replicasOf says what is wrong with a stream's replicas on so many servers.
func replicasOf(n int, g *group, servers int) (bad []string) {
	if servers >= 3 && n < 3 {
		bad = append(bad, fmt.Sprintf("it has %d replicas on a cluster of %d: a lost disk loses it", n, servers))
	}
	if g != nil {
		if behind := behindOf(g.Replicas); len(behind) > 0 {
			bad = append(bad, "replicas not there, or behind: "+strings.Join(behind, " "))
		}
	}
	return bad
}
