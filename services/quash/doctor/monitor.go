package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/quash-project/quash/services/revocation/ledger"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/identity"
)

// How long answers of servers are waited for: there is no list of who is to answer.
const (
	firstAnswer = 2 * time.Second
	nextAnswer  = 500 * time.Millisecond
)

// server is what one says of itself (JSZ).
type server struct {
	Server struct {
		Name      string    `json:"name"`
		Version   string    `json:"ver"`
		JetStream bool      `json:"jetstream"`
		Time      time.Time `json:"time"`
	} `json:"server"`
	Error *struct {
		Description string `json:"description"`
	} `json:"error"`
	Data struct {
		Disabled bool `json:"disabled"`
		Config   struct {
			SyncAlways bool `json:"sync_always"`
		} `json:"config"`
		Meta *struct {
			Size     int    `json:"cluster_size"`
			Leader   string `json:"leader"`
			Replicas []peer `json:"replicas"`
		} `json:"meta_cluster"`
		Accounts []struct {
			Name    string `json:"name"`
			Streams []struct {
				Name    string                  `json:"name"`
				Config  *jetstream.StreamConfig `json:"config"`
				Cluster *group                  `json:"cluster"`
			} `json:"stream_detail"`
		} `json:"account_details"`
	} `json:"data"`
	heard time.Time
}

// leads reports whether it leads a stream: each replica tells of it, and its leader
// knows of the others.
func (s *server) leads(g *group) bool { return g == nil || g.Leader == s.Server.Name }

type peer struct {
	Name    string `json:"name"`
	Current bool   `json:"current"`
	Offline bool   `json:"offline"`
}

type group struct {
	Leader   string `json:"leader"`
	Replicas []peer `json:"replicas"`
}

// monitor asks every server of the cluster at once.
func (d *doctor) monitor(ctx context.Context, at string) ([]server, []Finding) {
	const check, mend = "NATS servers", "use creds/monitor.creds of quash nats init as QUASH_NATS_MONITOR_CREDS"
	if d.MonitorCreds == "" {
		return nil, []Finding{unseen("NATS sync mode", "set QUASH_NATS_MONITOR_CREDS to creds/monitor.creds of quash nats init")}
	}
	nc, user, err := dial(at, d.MonitorCreds)
	if err != nil {
		return nil, []Finding{wrong(check, mend, err)}
	}
	defer nc.Close()
	if user != identity.Monitor {
		return nil, []Finding{unseen("NATS sync mode", fmt.Sprintf("QUASH_NATS_MONITOR_CREDS are those of %s; %s", user, mend))}
	}
	servers, err := d.ask(ctx, nc)
	if err != nil {
		return nil, []Finding{wrong(check, mend, err)}
	}
	var found []Finding
	size := 1
	for _, s := range servers {
		found = append(found, d.oneServer(s)...)
		if s.Data.Meta != nil {
			size = max(size, s.Data.Meta.Size)
		}
	}
	if len(servers) < size {
		return servers, append(found, wrong(check, "start the others: one more that fails can stop the log", fmt.Errorf("%d of %d answer", len(servers), size)))
	}
	return servers, append(found, good(check, "%d of %d answer", len(servers), size))
}

// ask collects the answers of all servers.
func (d *doctor) ask(ctx context.Context, nc *nats.Conn) ([]server, error) {
	inbox := nc.NewInbox()
	sub, err := nc.SubscribeSync(inbox)
	if err != nil {
		return nil, err
	}
	if err := nc.PublishRequest("$SYS.REQ.SERVER.PING.JSZ", inbox, []byte(`{"accounts":true,"streams":true,"config":true}`)); err != nil {
		return nil, err
	}
	var servers []server
	for wait := firstAnswer; ; wait = nextAnswer {
		each, cancel := context.WithTimeout(ctx, wait)
		m, err := sub.NextMsgWithContext(each)
		cancel()
		if err != nil && len(servers) > 0 && ctx.Err() == nil {
			slices.SortFunc(servers, func(a, b server) int { return strings.Compare(a.Server.Name, b.Server.Name) })
			return servers, nil
		}
		if err != nil {
			return nil, fmt.Errorf("no server tells of itself: %w", err)
		}
		s := server{heard: d.Now()}
		if err := json.Unmarshal(m.Data, &s); err != nil {
			return nil, fmt.Errorf("what a server tells of itself can't be read: %w", err)
		}
		servers = append(servers, s)
	}
}

// oneServer judges a server by what it says of itself.
func (d *doctor) oneServer(s server) []Finding {
	name := s.Server.Name
	found := []Finding{difference("NATS "+name, s.Server.Time, s.heard, time.Second)}
	check := "sync mode of " + name
	switch {
	case s.Error != nil:
		return append(found, wrong(check, "look at that nats-server's log", errors.New(s.Error.Description)))
	case s.Data.Disabled || !s.Server.JetStream:
		return append(found, unseen(check, "it has no JetStream, and so no part of the log"))
	case !s.Data.Config.SyncAlways:
		found = append(found, wrong(check, "set jetstream { sync_interval: always } as in deploy/nats/jetstream.conf, and start it again, one server after the other",
			errors.New("it acknowledges before it has synced: a power cut can lose an acknowledged revocation")))
	default:
		found = append(found, good(check, "syncs before it acknowledges"))
	}
	if meta := s.Data.Meta; meta != nil {
		if meta.Leader == "" {
			found = append(found, wrong("NATS cluster as "+name+" sees it", "a majority of the servers must be there", errors.New("no leader")))
		}
		// Only a leader hears how far the others are.
		if behind := behindOf(meta.Replicas); meta.Leader == name && len(behind) > 0 {
			found = append(found, wrong("NATS cluster", "look at those servers and at the network between them", fmt.Errorf("not there, or behind: %s", strings.Join(behind, " "))))
		}
	}
	return found
}

func behindOf(peers []peer) (names []string) {
	for _, p := range peers {
		if p.Offline || !p.Current {
			names = append(names, p.Name)
		}
	}
	return names
}

// stream looks at the settings of the log's stream, by whoever can see them.
func (d *doctor) stream(ctx context.Context, at string, servers []server) []Finding {
	const check = "stream " + wire.Stream
	const hint = "it needs QUASH_NATS_MONITOR_CREDS (creds/monitor.creds of quash nats init), or QUASH_NATS_REVOCATION_CREDS"
	if d.RevocationCreds != "" {
		return []Finding{d.asRevocation(ctx, at, len(servers))}
	}
	if len(servers) == 0 {
		return []Finding{unseen(check, hint)}
	}
	for _, s := range servers {
		for _, a := range s.Data.Accounts {
			for _, one := range a.Streams {
				if a.Name == identity.Log && one.Name == wire.Stream && one.Config != nil && s.leads(one.Cluster) {
					return []Finding{judgeStream(*one.Config, one.Cluster, len(servers))}
				}
			}
		}
	}
	return []Finding{wrong(check, "start the revocation service: it makes the stream; if it runs, a majority of the replicas must be there",
		errors.New("no server leads it"))}
}

// asRevocation reads the settings as the revocation service does.
func (d *doctor) asRevocation(ctx context.Context, at string, servers int) Finding {
	const check = "stream " + wire.Stream
	nc, user, err := dial(at, d.RevocationCreds)
	if err != nil {
		return wrong(check, "use creds/revocation.creds of quash nats init as QUASH_NATS_REVOCATION_CREDS", err)
	}
	defer nc.Close()
	if user != identity.Revocation {
		return unseen(check, fmt.Sprintf("QUASH_NATS_REVOCATION_CREDS are those of %s", user))
	}
	js, err := jetstream.New(nc)
	if err != nil {
		return wrong(check, "have the command line and the services of one version", err)
	}
	ctx, cancel := context.WithTimeout(ctx, natsTime)
	defer cancel()
	s, err := js.Stream(ctx, wire.Stream)
	if err != nil {
		return wrong(check, "start the revocation service: it makes the stream; if it runs, a majority of the NATS servers must be there", err)
	}
	info := s.CachedInfo()
	var g *group
	if c := info.Cluster; c != nil && len(c.Replicas) > 0 {
		g = &group{Leader: c.Leader}
		for _, p := range c.Replicas {
			g.Replicas = append(g.Replicas, peer{p.Name, p.Current, p.Offline})
		}
	}
	return judgeStream(info.Config, g, servers)
}

func judgeStream(c jetstream.StreamConfig, g *group, servers int) Finding {
	const check = "stream " + wire.Stream
	bad := ledger.HazardsOf(c, c.Replicas)
	const mend = "start the revocation service again, with replicas: 3 on three nodes: it sets what can be set, and says in its log what it can't; a replica that is new needs time to catch up"
	bad = append(bad, replicasOf(c.Replicas, g, servers)...)
	if len(bad) > 0 {
		return wrong(check, mend, errors.New(strings.Join(bad, "; ")))
	}
	return good(check, "%d replicas; nothing leaves it but by its own end", c.Replicas)
}
