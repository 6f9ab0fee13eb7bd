package app

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/nats-io/nats.go"

	"github.com/quash-project/quash/services/revocation"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/hits"
	"github.com/quash-project/quash/shared/idempotency"
	"github.com/quash-project/quash/shared/natsapi"
	"github.com/quash-project/quash/shared/problem"
)

// plans keeps what previews have shown among the requests of the last day: all replicas
// read there, from the leader.
type plans struct{ in *idempotency.Bucket }

func planName(tenant, id string) string { return tenant + ".plan." + id }

// Keep implements revocation.Plans.
func (p plans) Keep(ctx context.Context, id string, plan revocation.Plan) error {
	data, err := json.Marshal(plan)
	if err != nil {
		return err
	}
	_, _, err = p.in.Begin(ctx, planName(plan.Tenant, id), idempotency.Note{Digest: plan.Targets, Status: http.StatusOK, Answer: data})
	return err
}

// Plan implements revocation.Plans.
func (p plans) Plan(ctx context.Context, tenant, id string) (revocation.Plan, error) {
	var plan revocation.Plan
	n, _, err := p.in.Find(ctx, planName(tenant, id))
	if err != nil {
		return plan, err
	}
	return plan, json.Unmarshal(n.Answer, &plan)
}

// records asks the issuer, as the reader of its buckets: the broker lets nobody else.
type records struct{ control *nats.Conn }

// Hits implements revocation.Records.
func (r records) Hits(ctx context.Context, ask hits.Request) (hits.Answer, error) {
	if r.control == nil {
		return hits.Answer{}, problem.New(problem.Unavailable, "this service has no connection to the issuer's records, so that it can't tell what would be hit")
	}
	return natsapi.Call[hits.Answer](ctx, r.control, wire.RecordsIssuer+hits.Operation, "", ask)
}
