package chaos

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"
)

const faultPackets = "packets"

// packets loses packets of links in the kernel: unlike a proxy that holds them back,
// so that neither end hears even of what has arrived, and both send again by TCP's own
// rules. The kernel draws which ones are lost, not the seed.
type packets struct {
	mu   sync.Mutex
	lost map[string]map[string]int // by the name of a set, the ports, and how many faults want each
}

// The sets of ports: of the one everything is lost, of the other a quarter.
const (
	silentSet = "silent"
	lossySet  = "lossy"
)

const packetRules = `table inet quash {
	set silent { type inet_service; }
	set lossy { type inet_service; }
	chain lose {
		type filter hook input priority 0; policy accept;
		tcp dport @silent drop
		tcp sport @silent drop
		tcp dport @lossy numgen random mod 4 0 drop
		tcp sport @lossy numgen random mod 4 0 drop
	}
}
`

// newPackets returns nil outside of a network of one's own: others use that one too.
func newPackets(ctx context.Context) (*packets, error) {
	if !enclosed() {
		return nil, nil //nolint:nilnil // it can't be had here
	}
	p := &packets{lost: map[string]map[string]int{silentSet: {}, lossySet: {}}}
	return p, nft(ctx, packetRules)
}

func nft(ctx context.Context, script string) error {
	cmd := exec.CommandContext(ctx, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("nft: %w: %s", err, out)
	}
	return nil
}

// change has one fault more, or one less, want that packets of ports are lost.
func (p *packets) change(ctx context.Context, set string, ports []string, by int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, port := range ports {
		if p.lost[set][port] += by; p.lost[set][port] <= 0 {
			delete(p.lost[set], port)
		}
	}
	script := "flush set inet quash " + set + "\n"
	if all := slices.Sorted(maps.Keys(p.lost[set])); len(all) > 0 {
		script += "add element inet quash " + set + " { " + strings.Join(all, ", ") + " }\n"
	}
	return nft(ctx, script)
}

// losePackets loses packets between one process, or all guards, and NATS or Redis.
func (r *round) losePackets(ctx context.Context, rng *rand.Rand) error {
	still := r.lasts(rng, time.Second, 5*time.Second)
	from, to := ways(rng, r.w)
	set, much := silentSet, "all"
	if rng.IntN(2) == 0 {
		set, much = lossySet, "a quarter of the"
	}
	r.did("lose %s packets between %s and %s* for %s", much, strings.Join(from, ", "), to, still.Round(time.Millisecond))
	ports, err := r.w.links.ports(clientLinks(from, to))
	if err != nil {
		return err
	}
	if err := r.w.packets.change(ctx, set, ports, 1); err != nil {
		return err
	}
	sleep(ctx, still)
	return r.w.packets.change(context.WithoutCancel(ctx), set, ports, -1)
}

// ports are those of the links that match.
func (l *links) ports(match func(*link) bool) (ports []string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, x := range l.all {
		if !match(x) {
			continue
		}
		_, port, err := net.SplitHostPort(x.addr)
		if err != nil {
			return nil, err
		}
		ports = append(ports, port)
	}
	return ports, nil
}
