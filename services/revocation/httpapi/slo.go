package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/quash-project/quash/services/revocation/slo"
	frame "github.com/quash-project/quash/shared/httpapi"
	"github.com/quash-project/quash/shared/rights"
)

// Spread is how a number of times are spread.
type Spread struct {
	Runs   int    `json:"runs" doc:"canaries that were measured"`
	Missed int    `json:"missed" doc:"those of them that were not heard to be refused within 20 s; they count as slower than all others"`
	P50    string `json:"p50,omitempty" doc:"half of them took no longer, as in 4ms; missing where that is a missed one"`
	P99    string `json:"p99,omitempty"`
	Max    string `json:"max,omitempty"`
}

// SLOWindow is what was measured within a time.
type SLOWindow struct {
	Window string `json:"window" doc:"as in 1h0m0s"`
	Spread
	Good int  `json:"good" doc:"those that every guard refused, and the Redis view had, within the objective"`
	Met  bool `json:"met" doc:"there were some, the last within 5 minutes, and enough of them were good"`
}

// SLOGuard is what was measured of the instances of one resource server.
type SLOGuard struct {
	Name string `json:"name" doc:"of the resource server, or (redis view)"`
	Spread
	LastAt frame.Time `json:"last_at"`
}

// SLO is how fast revocation is here.
type SLO struct {
	Within  string      `json:"within" doc:"the objective: refused everywhere within this time"`
	Share   float64     `json:"share" doc:"of so many canaries at least"`
	Windows []SLOWindow `json:"windows"`
	Guards  []SLOGuard  `json:"guards" doc:"by name, of their last 512 canaries; of several instances the slowest"`
}

type sloOutput struct{ Body SLO }

// RegisterSLO adds what a meter has measured.
func RegisterSLO(a *frame.API, m *slo.Meter) {
	frame.Register(a, huma.Operation{
		OperationID: "getSLO", Method: http.MethodGet, Path: "/v1/slo", Tags: []string{"fleet"},
		Summary:     "How fast revocations take effect here",
		Description: "Measured by canaries: tokens that the issuers issue and cut every few seconds. Of those that the replica that answers has committed; the metrics of all replicas together have all.",
	}, rights.FleetRead, func(context.Context, *struct{}) (*sloOutput, error) {
		return &sloOutput{sloOf(m.Report())}, nil
	})
}

func sloOf(r slo.Report) SLO {
	out := SLO{Within: r.Within.String(), Share: r.Share, Windows: []SLOWindow{}, Guards: []SLOGuard{}}
	for _, w := range r.Windows {
		out.Windows = append(out.Windows, SLOWindow{Window: w.Length.String(), Spread: spreadOf(w.Spread), Good: w.Good, Met: w.Met})
	}
	for _, g := range r.Guards {
		out.Guards = append(out.Guards, SLOGuard{Name: g.Name, Spread: spreadOf(g.Spread), LastAt: frame.Time(g.Last)})
	}
	return out
}

func spreadOf(s slo.Spread) Spread {
	text := func(d time.Duration) string {
		if d == 0 {
			return ""
		}
		return d.Round(100 * time.Microsecond).String()
	}
	return Spread{Runs: s.Runs, Missed: s.Missed, P50: text(s.P50), P99: text(s.P99), Max: text(s.Max)}
}
