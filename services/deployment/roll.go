package deployment

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// Roll ends a process as an operator does, with SIGTERM, starts it again as it was
// started, and returns when it is ready. Whoever rolls one process after the other
// upgrades a Quash without a moment in which it does not answer.
func Roll(ctx context.Context, dir, name string) error {
	p, err := find(dir, name)
	if err != nil {
		return err
	}
	end(ctx, []Process{p})
	if p.Runs() {
		return fmt.Errorf("%s does not end", name)
	}
	if err := Restart(dir, name); err != nil {
		return err
	}
	if p, err = find(dir, name); err != nil {
		return err
	}
	if err := p.WaitReady(ctx); err != nil || kind(name) != "nats" {
		return err
	}
	return settled(ctx, dir)
}

func find(dir, name string) (Process, error) {
	list, err := Processes(dir)
	if err != nil {
		return Process{}, err
	}
	for _, p := range list {
		if p.Name == name {
			return p, nil
		}
	}
	return Process{}, fmt.Errorf("there is no process %q in %s", name, dir)
}

// health is where a process says whether it may be asked; empty: it does not say.
func (p Process) health() string {
	switch kind(p.Name) {
	case "issuer", "rotator", "revocation", "demo":
		return p.Addresses[1] + "/readyz"
	case "nats":
		return p.Addresses[2] + "/healthz"
	}
	return ""
}

// settled waits until every stream has a leader to which all of its copies are
// current. A node that is healthy again knows of itself alone: with the next one ended
// at that moment, and the one after it, commits stood still for so long that guards
// were past their limit.
func settled(ctx context.Context, dir string) error {
	list, err := Processes(dir)
	if err != nil {
		return err
	}
	client := &http.Client{Timeout: 2 * time.Second}
	defer client.CloseIdleConnections()
	for {
		err := unsettled(ctx, client, list)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the cluster of NATS is not whole again: %w", err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// copies is what a node says of a group of copies: of a stream, or of what they
// all share.
type copies struct {
	Leader   string `json:"leader"`
	Replicas []struct {
		Name    string `json:"name"`
		Current bool   `json:"current"`
		Offline bool   `json:"offline"`
	} `json:"replicas"`
}

// whole returns nil if this is what its leader says, and all others are current.
func (c *copies) whole() error {
	if c.Leader == "" || len(c.Replicas) != natsNodes-1 {
		return fmt.Errorf("leader %q, %d copies beside it", c.Leader, len(c.Replicas))
	}
	for _, r := range c.Replicas {
		if !r.Current || r.Offline {
			return fmt.Errorf("%s is behind", r.Name)
		}
	}
	return nil
}

// unsettled returns what is missing, by what the leaders say.
func unsettled(ctx context.Context, client *http.Client, list []Process) error {
	led := map[string]error{} // by stream, as its leader says
	for _, p := range list {
		if kind(p.Name) != "nats" {
			continue
		}
		var node struct {
			Meta     copies `json:"meta_cluster"`
			Accounts []struct {
				Name    string `json:"name"`
				Streams []struct {
					Name    string  `json:"name"`
					Cluster *copies `json:"cluster"`
				} `json:"stream_detail"`
			} `json:"account_details"`
		}
		if err := getJSON(ctx, client, p.Addresses[2]+"/jsz?accounts=true&streams=true", &node); err != nil {
			return fmt.Errorf("%s: %w", p.Name, err)
		}
		if node.Meta.Leader == "" {
			return fmt.Errorf("%s knows of no leader", p.Name)
		}
		for _, account := range node.Accounts {
			for _, stream := range account.Streams {
				name := account.Name + "/" + stream.Name
				switch c := stream.Cluster; {
				case c != nil && c.Leader == p.Name:
					led[name] = c.whole()
				case led[name] == nil:
					if _, ok := led[name]; !ok {
						led[name] = errNoLeader
					}
				}
			}
		}
	}
	for name, err := range led {
		if err != nil {
			return fmt.Errorf("stream %s: %w", name, err)
		}
	}
	return nil
}

var errNoLeader = errors.New("no leader")

func getJSON(ctx context.Context, client *http.Client, url string, into any) error {
	return get(ctx, client, url, func(body io.Reader) error {
		return json.NewDecoder(io.LimitReader(body, 16<<20)).Decode(into)
	})
}

// WaitReady waits until the process says that it is ready, if it is one that does.
func (p Process) WaitReady(ctx context.Context) error {
	client := &http.Client{Timeout: 2 * time.Second}
	defer client.CloseIdleConnections()
	return p.waitReady(ctx, client, func(error) {})
}

// waitReady is WaitReady that tells at each look what the process waits for.
func (p Process) waitReady(ctx context.Context, client *http.Client, waits func(error)) error {
	url := p.health()
	if url == "" {
		return nil
	}
	for {
		err := healthy(ctx, client, url)
		if err == nil {
			return nil
		}
		if !p.Runs() {
			return fmt.Errorf("%s has ended", p.Name)
		}
		waits(err)
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w", p.Name, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
