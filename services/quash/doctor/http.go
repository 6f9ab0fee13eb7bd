package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/quash-project/quash/shared/client"
	"github.com/quash-project/quash/shared/client/api"
	"github.com/quash-project/quash/shared/guard/wire"
)

const setClocks = "set both clocks by NTP"

// endpoints looks at each address of a service that the metadata names.
func (d *doctor) endpoints(ctx context.Context, m client.Metadata) (found []Finding) {
	seen := map[string]bool{}
	for _, at := range append(append([]string{m.JWKSURI}, m.Revocation...), m.Rotation...) {
		u, err := url.Parse(at)
		if err != nil || u.Host == "" {
			found = append(found, wrong("metadata", "mend revocation_urls and rotation_urls of the issuer's configuration", fmt.Errorf("%.100q is no URL", at)))
			continue
		}
		if seen[u.Host] {
			continue
		}
		seen[u.Host] = true
		found = append(found, d.endpoint(ctx, u)...)
	}
	return found
}

func (d *doctor) endpoint(ctx context.Context, u *url.URL) []Finding {
	began := d.Now()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return []Finding{wrong("service at "+u.Host, "mend the issuer's configuration", err)}
	}
	resp, err := d.HTTP.Do(req)
	if err != nil {
		if f, is := untrusted(u.Host, err); is {
			return []Finding{f}
		}
		return []Finding{wrong("service at "+u.Host, "start it, or take it out of revocation_urls and rotation_urls of the issuer's configuration", err)}
	}
	_ = resp.Body.Close() // any answer will do: without a token most are 401
	// A time in a header is cut down to the second.
	return []Finding{
		clock(u.Host, resp.Header.Get("Date"), began.Add(d.Now().Sub(began)/2)), certificate(u.Host, resp.TLS, d.Now()),
	}
}

func clock(where, date string, now time.Time) Finding {
	there, err := http.ParseTime(date)
	if err != nil {
		return wrong("clock of "+where, "look at what stands before the service and takes the header Date away", errors.New("its answer has no Date that can be read"))
	}
	return difference(where, there, now, time.Second)
}

// difference judges a clock that was read with an error of exact at most. Services
// and guards that are further off than a third of the slack are not ready.
func difference(where string, there, now time.Time, exact time.Duration) Finding {
	off := now.Sub(there)
	if off.Abs() > wire.Slack/3 {
		return wrong("clock of "+where, setClocks, fmt.Errorf("differs from the clock here by %s: %s at most is allowed", off.Abs().Round(time.Second), wire.Slack/3))
	}
	return good("clock of "+where, "differs from the clock here by less than %s", (off.Abs()+exact).Truncate(time.Second)+time.Second)
}

// keys looks at what guards of other languages fetch.
func (d *doctor) keys(ctx context.Context, m client.Metadata) Finding {
	const check, mend = "signing keys", "look at the rotator's log: it makes and publishes the signing keys"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.JWKSURI, nil)
	if err != nil {
		return wrong(check, mend, err)
	}
	resp, err := d.HTTP.Do(req)
	if err != nil {
		return wrong(check, mend, err)
	}
	defer resp.Body.Close()
	var set struct {
		Keys []struct {
			ID      string          `json:"kid"`
			Private json.RawMessage `json:"d"`
		} `json:"keys"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(nil, resp.Body, client.MaxAnswer)).Decode(&set); err != nil {
		return wrong(check, mend, fmt.Errorf("%s can't be read: %w", m.JWKSURI, err))
	}
	ids := map[string]bool{}
	for _, k := range set.Keys {
		if k.Private != nil {
			return wrong(check, "revoke it: quash rotate signing-key --emergency; then find what stands before the issuer", fmt.Errorf("the private half of %.64q is published", k.ID))
		}
		ids[k.ID] = true
	}
	if len(ids) < 2 || ids[""] {
		return wrong(check, mend, fmt.Errorf("%d with an id published: want at least two, one that signs and the next", len(ids)))
	}
	return good(check, "%d published", len(ids))
}

// guards looks at how stale each guard may be.
func (d *doctor) guards(ctx context.Context) (found []Finding) {
	const check = "fleet"
	answer, err := d.API.Fleet(ctx)
	var refused *client.Refused
	if errors.As(err, &refused) && refused.Status == http.StatusForbidden {
		return []Finding{unseen(check, "it needs an API key with the scope fleet:read, as the role auditor gives it")}
	}
	if err != nil {
		return []Finding{wrong(check, "look at the revocation service's log", err)}
	}
	f := answer.Value
	d.view = f.Redis
	joined, open, stalest, where := 0, []string{}, time.Duration(0), ""
	for _, g := range f.Items {
		switch g.State {
		case api.GuardStateFenced:
			found = append(found, wrong("guard "+g.Name, "look at that guard's log and its way to NATS; if it is gone for good: quash fleet out "+g.Instance,
				fmt.Errorf("%s is past its limit of %s (and %s), last seen %s", g.Instance, g.Limit, pastWord(string(g.Past)), lastSeen(g.LastSeen))))
		case api.GuardStateJoined:
			joined++
			if string(g.Past) == wire.PastAllow {
				open = append(open, g.Name)
			}
			if s, err := time.ParseDuration(g.Staleness); err == nil && s >= stalest {
				stalest, where = s, g.Name
			}
		}
	}
	text := fmt.Sprintf("%d guards, %d within their limit", len(f.Items), joined)
	if where != "" {
		text += fmt.Sprintf("; the one not heard of for longest is %s, %s", where, stalest.Round(time.Millisecond))
	}
	if len(open) > 0 {
		text += "; past their limit these go on and allow: " + strings.Join(open, " ")
	}
	return append(found, good(check, "%s", text))
}

func lastSeen(last time.Time) string {
	if last.IsZero() {
		return "before this replica of the service started"
	}
	return last.UTC().Format(time.RFC3339)
}

func pastWord(past string) string {
	switch past {
	case wire.PastAllow:
		return "allows all the same"
	case wire.PastRedis:
		return "asks Redis"
	}
	return "denies"
}
