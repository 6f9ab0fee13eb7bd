package app

import (
	"context"

	"github.com/quash-project/quash/services/revocation"
	"github.com/quash-project/quash/services/revocation/holds"
	"github.com/quash-project/quash/services/revocation/httpapi"
	"github.com/quash-project/quash/shared/breakglass"
	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/guard/revoke"
	frame "github.com/quash-project/quash/shared/httpapi"
	"github.com/quash-project/quash/shared/natsapi"
)

// maxHolds is how many holds one answer lists.
const maxHolds = 1000

// releasing is a release by break-glass.
type releasing struct {
	breakglass.Request
	Targets []string `json:"targets"`
	Issuer  string   `json:"issuer,omitempty"`
	Tenant  string   `json:"tenant,omitempty"` // default: the service's own
	Key     string   `json:"idempotency_key,omitempty"`
}

// Held is a hold in effect, as break-glass is told of it.
type Held struct {
	Tenant string      `json:"tenant"`
	Issuer string      `json:"issuer,omitempty"`
	Target string      `json:"target"`
	At     frame.Time  `json:"at"`
	Actor  string      `json:"actor"`
	Reason string      `json:"reason"`
	End    *frame.Time `json:"end,omitempty"`
	Then   string      `json:"then,omitempty"`
}

// breakGlass is what the break-glass identity may ask for. It goes by the same
// code as everybody's, but for the question who asks.
func (s *Service) breakGlass() []natsapi.Endpoint {
	return []natsapi.Endpoint{
		breakglass.On(s.door, "release", func(ctx context.Context, in releasing) (httpapi.Entry, error) {
			if in.Tenant == "" {
				in.Tenant = s.cfg.Tenant
			}
			who := revocation.Caller{Actor: breakglass.Actor, ID: "\x1f" + breakglass.Actor, Tenant: in.Tenant}
			e, err := s.domain.Commit(ctx, who, revocation.Request{
				Op: commit.Release, Targets: in.Targets, Issuer: in.Issuer, Reason: in.Reason, Key: in.Key, BreakGlass: true,
			}, 0)
			if err != nil {
				return httpapi.Entry{}, err
			}
			return httpapi.EntryOf(e), nil
		}),
		breakglass.On(s.door, "holds", func(ctx context.Context, _ breakglass.Request) (frame.List[Held], error) {
			if err := s.ledger.Ready(); err != nil {
				return frame.List[Held]{}, err
			}
			list, err := s.holds.List(ctx, maxHolds)
			items := make([]Held, 0, len(list))
			for _, h := range list {
				items = append(items, heldOf(h))
			}
			return frame.ListOf(items, ""), err
		}),
	}
}

func heldOf(h holds.Held) Held {
	out := Held{Tenant: h.Tenant, Target: h.Target, At: frame.Time(h.At), Actor: h.Actor, Reason: h.Reason, Then: h.Then}
	if h.Issuer != revoke.Own {
		out.Issuer = h.Issuer
	}
	if !h.End.IsZero() {
		end := frame.Time(h.End)
		out.End = &end
	}
	return out
}
