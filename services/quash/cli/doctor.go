package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"

	"github.com/quash-project/quash/services/quash/api"
	"github.com/quash-project/quash/shared/guard/denylist"
	"github.com/quash-project/quash/shared/guard/wire"
)

// finding is one thing that doctor looked at.
type finding struct {
	Check  string `json:"check"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
	Mend   string `json:"mend,omitempty"`
}

func (a *app) doctorCmd() *cobra.Command {
	return &cobra.Command{
		Use: "doctor", Short: "Look for what is wrong, from here", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := a.api()
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), 30*time.Second)
			defer cancel()
			found := a.examine(ctx, cl)
			healthy := true
			for _, f := range found {
				healthy = healthy && f.OK
			}
			if a.output == "json" {
				if err := a.value(map[string]any{"ok": healthy, "findings": found}); err != nil {
					return err
				}
			} else {
				var rows [][]string
				for _, f := range found {
					mark := "ok"
					if !f.OK {
						mark = "WRONG"
					}
					rows = append(rows, []string{mark, f.Check, f.Detail})
				}
				a.table([]string{"", "CHECK", "FOUND"}, rows)
				for _, f := range found {
					if !f.OK && f.Mend != "" {
						a.note("%s: %s", f.Check, f.Mend)
					}
				}
			}
			if !healthy {
				return &exit{Failed, nil}
			}
			return nil
		},
	}
}

func look(check, mend string, detail string, err error) finding {
	if err != nil {
		return finding{Check: check, Detail: err.Error(), Mend: mend}
	}
	return finding{Check: check, OK: true, Detail: detail}
}

func (a *app) examine(ctx context.Context, cl *api.Client) []finding {
	m, err := cl.Metadata(ctx)
	found := []finding{look("metadata", "start Quash, or set QUASH_URL to the issuer's URL", m.Issuer, err)}
	if err != nil {
		return found
	}
	found = append(found, a.examineClock(ctx, m), a.examineKeys(ctx, m))
	_, err = cl.Token(ctx)
	found = append(found, look("sign-in", "set QUASH_KEY_FILE to a file with a valid API key", "the API key is exchanged for a token", err))
	if err == nil {
		found = append(found, a.examineFleet(ctx)...)
	}
	return append(found, a.examineNATS(), a.examineRedis(ctx))
}

func (a *app) examineClock(ctx context.Context, m api.Metadata) finding {
	const mend = "set the clocks: both sides by NTP"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.JWKSURI, nil)
	if err != nil {
		return look("clock", mend, "", err)
	}
	resp, err := a.env.HTTP.Do(req)
	if err != nil {
		return look("clock", mend, "", err)
	}
	resp.Body.Close()
	then, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil {
		return look("clock", mend, "", fmt.Errorf("the issuer's answer has no Date: %w", err))
	}
	off := a.env.Now().Sub(then).Round(time.Second)
	if off.Abs() > wire.Slack/3 {
		return look("clock", mend, "", fmt.Errorf("this machine differs from the issuer by %s", off))
	}
	return look("clock", mend, fmt.Sprintf("differs from the issuer's by less than %s", max(off.Abs(), time.Second)+time.Second), nil)
}

func (a *app) examineKeys(ctx context.Context, m api.Metadata) finding {
	const mend = "look at the rotator's log: it makes and publishes the signing keys"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.JWKSURI, nil)
	if err != nil {
		return look("signing keys", mend, "", err)
	}
	resp, err := a.env.HTTP.Do(req)
	if err != nil {
		return look("signing keys", mend, "", err)
	}
	defer resp.Body.Close()
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(nil, resp.Body, api.MaxAnswer)).Decode(&set); err != nil {
		return look("signing keys", mend, "", err)
	}
	if len(set.Keys) < 2 {
		return look("signing keys", mend, "", fmt.Errorf("%d published: want at least two, one that signs and the next", len(set.Keys)))
	}
	return look("signing keys", mend, fmt.Sprintf("%d published", len(set.Keys)), nil)
}

func (a *app) examineFleet(ctx context.Context) []finding {
	const mend = "look at that guard's log; quash fleet shows all"
	raw, err := a.call(ctx, api.Call{Method: http.MethodGet, Path: "/v1/fleet"})
	if err != nil {
		return []finding{look("fleet", mend, "", err)}
	}
	var f fleetAnswer
	if err := json.Unmarshal(raw, &f); err != nil {
		return []finding{look("fleet", mend, "", err)}
	}
	var found []finding
	joined := 0
	for _, g := range f.Items {
		if g.State == "joined" {
			joined++
		}
		if g.State == "fenced" {
			found = append(found, look("guard "+g.Name, mend, "", fmt.Errorf("%s is past its limit of %s, last seen %s", g.Instance, g.Limit, cmp.Or(g.LastSeen, "before this replica of the service started"))))
		}
	}
	return append(found, look("fleet", mend, fmt.Sprintf("%d guards, %d within their limit", len(f.Items), joined), nil))
}

func (a *app) examineNATS() finding {
	const mend = "set QUASH_NATS_URL and QUASH_NATS_CREDS to what a guard here would use"
	url, creds := a.env.Getenv("QUASH_NATS_URL"), a.env.Getenv("QUASH_NATS_CREDS")
	if url == "" {
		return look("nats", mend, "not looked at: QUASH_NATS_URL is not set", nil)
	}
	nc, err := connectNATS(url, creds, func(error) {})
	if err != nil {
		return look("nats", mend, "", err)
	}
	defer nc.Close()
	rtt, err := nc.RTT()
	return look("nats", mend, fmt.Sprintf("%s answers in %s", nc.ConnectedUrlRedacted(), rtt.Round(10*time.Microsecond)), err)
}

func (a *app) examineRedis(ctx context.Context) finding {
	const mend = "set QUASH_REDIS_URL to what a reader here would use, and look at the revocation service's log"
	url := a.env.Getenv("QUASH_REDIS_URL")
	if url == "" {
		return look("redis", mend, "not looked at: QUASH_REDIS_URL is not set", nil)
	}
	opts, err := denylist.ParseURL(url)
	if err != nil {
		return look("redis", mend, "", fmt.Errorf("QUASH_REDIS_URL: %w", err))
	}
	opts.DisableIdentity, opts.ContextTimeoutEnabled, opts.MaxRetries = true, true, -1
	c := redis.NewUniversalClient(&opts)
	defer c.Close()
	t0 := time.Now()
	err = c.Ping(ctx).Err()
	return look("redis", mend, fmt.Sprintf("answers in %s", time.Since(t0).Round(10*time.Microsecond)), err)
}
