// Package httpapi is the rotator's API: rotations, and the signing keys as they
// are. The same operation serves HTTP and NATS.
package httpapi

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/quash-project/quash/services/rotator"
	"github.com/quash-project/quash/shared/breakglass"
	frame "github.com/quash-project/quash/shared/httpapi"
	"github.com/quash-project/quash/shared/natsapi"
	"github.com/quash-project/quash/shared/problem"
	"github.com/quash-project/quash/shared/rights"
	"github.com/quash-project/quash/shared/signing"
)

// maxWait is how long a request may wait for its rotation.
const maxWait = 60 * time.Second

// Rotation is one, as it is shown.
type Rotation struct {
	ID        string      `json:"id"`
	Kind      string      `json:"kind" enum:"signing-key"`
	KeyID     string      `json:"kid" doc:"the key that signs; empty while that is not decided"`
	Previous  string      `json:"previous" doc:"the key that signed before; empty if there was none"`
	State     string      `json:"state" enum:"waiting,signing"`
	SignsAt   *frame.Time `json:"signs_at,omitempty" doc:"no token by the previous key is issued after it; while it waits for the lead time, the earliest moment"`
	Lacking   []string    `json:"lacking" doc:"guards that it waits for, as NAME/INSTANCE, or as INSTANCE to a tenant other than the installation's own; of an emergency those that did not have the key when it began to sign"`
	Emergency bool        `json:"emergency"`
	Alg       string      `json:"alg,omitempty" doc:"what was asked for"`
	Reason    string      `json:"reason"`
	Actor     string      `json:"actor"`
	CreatedAt frame.Time  `json:"created_at"`
}

// SigningKey is one, as it is shown.
type SigningKey struct {
	KeyID     string            `json:"kid"`
	Alg       string            `json:"alg"`
	State     string            `json:"state" enum:"planned,published,signing,retiring,gone,revoked"`
	Public    map[string]string `json:"jwk"`
	CreatedAt frame.Time        `json:"created_at"`
	Published *frame.Time       `json:"published_at,omitempty"`
	Signing   *frame.Time       `json:"signing_at,omitempty"`
	Stopped   *frame.Time       `json:"stopped_at,omitempty"`
	EndsAt    frame.Time        `json:"ends_at" doc:"fixed when it was made; no token by it is taken later"`
	Previous  string            `json:"previous,omitempty"`
	Rotation  string            `json:"rotation,omitempty" doc:"the rotation that made it sign"`
	ChangedBy string            `json:"changed_by"`
	ChangedAt frame.Time        `json:"changed_at"`
	Reason    string            `json:"reason"`
}

type createBody struct {
	Kind      string `json:"kind" doc:"signing-key"`
	Reason    string `json:"reason" doc:"why, for the audit"`
	Emergency bool   `json:"emergency,omitempty" doc:"the key that signs is stolen: revoke it, and let the next one sign at once"`
	Alg       string `json:"alg,omitempty" doc:"ES256 or EdDSA, of the key that will sign and those after it; as now by default"`
	Incident  string `json:"incident,omitempty" maxLength:"100" doc:"under which it is done: what is revoked stands in its report. Nobody looks here whether it is open"`
}

// overNATS is the body of a request over NATS, which has no headers or queries.
type overNATS struct {
	createBody
	Key  *string `json:"idempotency_key,omitempty"`
	Wait string  `json:"wait,omitempty"`
}

type (
	createInput struct {
		Key  string `header:"Idempotency-Key" maxLength:"512" doc:"the same key of the same caller, the same rotation, for as long as its record is kept; another request under it is refused (409)"`
		Wait string `query:"wait" doc:"how long to wait for the new key to sign, as in 30s"`
		Body createBody
	}
	showInput struct {
		frame.IfNoneMatch
		ID   string `path:"id" maxLength:"100"`
		Wait string `query:"wait" doc:"how long to wait for the new key to sign, as in 30s"`
	}
	rotationOutput = frame.Tagged[Rotation]
	keysInput      struct{ frame.Page }
	keysOutput     struct {
		Body frame.List[SigningKey]
	}
)

type handlers struct {
	r     *rotator.Rotator
	pages frame.Pages
}

// Register adds the operations to an API. aead seals the tokens of pages: all
// replicas need the same.
func Register(api *frame.API, r *rotator.Rotator, aead tink.AEAD) {
	h := &handlers{r, frame.NewPages(aead)}
	frame.Register(api, frame.Also(frame.Timeout(huma.Operation{
		OperationID: "createRotation", Method: http.MethodPost, Path: "/v1/rotations", DefaultStatus: http.StatusAccepted,
		Summary: "Let the next key sign", Tags: []string{"rotations"},
		Description: "200 when it signs, 202 while it waits.", Errors: []int{http.StatusConflict},
	}, maxWait+frame.Deadline), http.StatusOK), rights.Rotate, h.create)
	frame.Register(api, frame.Timeout(huma.Operation{
		OperationID: "showRotation", Method: http.MethodGet, Path: "/v1/rotations/{id}",
		Summary: "Show a rotation", Tags: []string{"rotations"}, Errors: []int{http.StatusNotFound},
	}, maxWait+frame.Deadline), rights.RotationsRead, h.show)
	frame.Register(api, huma.Operation{
		OperationID: "listSigningKeys", Method: http.MethodGet, Path: "/v1/signing-keys",
		Summary: "List the signing keys", Tags: []string{"signing keys"},
	}, rights.RotationsRead, h.keys)
}

// Endpoints are the operations over NATS, under wire.APIRotation.
func Endpoints(r *rotator.Rotator) []natsapi.Endpoint {
	h := &handlers{r: r}
	return []natsapi.Endpoint{
		natsapi.On("rotations", rights.Rotate, func(ctx context.Context, in overNATS) (Rotation, error) {
			key := ""
			if in.Key != nil {
				if key = *in.Key; key == "" {
					return Rotation{}, problem.FieldError("idempotency_key", "is empty: leave it out, or repeat with the same one")
				}
			}
			return h.start(ctx, in.createBody, key, in.Wait)
		}),
	}
}

// promoting is an emergency rotation by break-glass.
type promoting struct {
	breakglass.Request
	Alg    string `json:"alg,omitempty"`
	Tenant string `json:"tenant,omitempty"` // default: the service's own
	Key    string `json:"idempotency_key,omitempty"`
	Wait   string `json:"wait,omitempty"`
}

// BreakGlass are the operations of the break-glass identity, under
// wire.BreakGlassRotation.
func BreakGlass(r *rotator.Rotator, door *breakglass.Door, tenant string) []natsapi.Endpoint {
	h := &handlers{r: r}
	return []natsapi.Endpoint{
		breakglass.On(door, "promote", func(ctx context.Context, in promoting) (Rotation, error) {
			limit, err := parseWait(in.Wait)
			if err != nil {
				return Rotation{}, err
			}
			if in.Tenant == "" {
				in.Tenant = tenant
			}
			return h.begin(ctx, rotator.Request{
				Key: in.Key, Tenant: in.Tenant, Actor: breakglass.Actor, Kind: rotator.KindSigningKey,
				Reason: in.Reason, Emergency: true, Alg: in.Alg,
			}, limit)
		}),
	}
}

func (h *handlers) create(ctx context.Context, in *createInput) (*rotationOutput, error) {
	r, err := h.start(ctx, in.Body, in.Key, in.Wait)
	if err != nil {
		return nil, err
	}
	return output(r)
}

func (h *handlers) start(ctx context.Context, body createBody, key, wait string) (Rotation, error) {
	limit, err := parseWait(wait)
	if err != nil {
		return Rotation{}, err
	}
	who := frame.CallerOf(ctx)
	return h.begin(ctx, rotator.Request{
		Key: key, Tenant: who.Tenant, Actor: who.Actor(),
		Kind: body.Kind, Reason: body.Reason, Emergency: body.Emergency, Alg: body.Alg,
		Incident: body.Incident, Request: frame.RequestID(ctx),
	}, limit)
}

func (h *handlers) begin(ctx context.Context, q rotator.Request, wait time.Duration) (Rotation, error) {
	if q.Key == "" {
		q.Key = uuid.NewString()
	}
	r, err := h.r.Start(ctx, q)
	if err != nil {
		return Rotation{}, err
	}
	// It has been accepted: from here on there is an answer, if not a final one. A read may
	// come from a server that has not heard of it yet.
	for end := time.Now().Add(wait); ; {
		now, err := h.r.Wait(ctx, q.Tenant, r.ID, time.Until(end))
		if err == nil {
			r = now
		}
		if err == nil || !time.Now().Before(end) {
			return h.shown(ctx, r), nil
		}
		select {
		case <-ctx.Done():
			return h.shown(ctx, r), nil
		case <-time.After(readAgain):
		}
	}
}

// readAgain spaces the reads of a rotation that is not there yet.
const readAgain = 50 * time.Millisecond

func (h *handlers) show(ctx context.Context, in *showInput) (*rotationOutput, error) {
	limit, err := parseWait(in.Wait)
	if err != nil {
		return nil, err
	}
	r, err := h.r.Wait(ctx, frame.CallerOf(ctx).Tenant, in.ID, limit)
	if err != nil {
		return nil, err
	}
	return frame.Show(in.IfNoneMatch, h.shown(ctx, r))
}

func (h *handlers) keys(ctx context.Context, in *keysInput) (*keysOutput, error) {
	set, err := h.r.SigningKeys(ctx, frame.CallerOf(ctx).Tenant)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(set.Keys, func(a, b signing.Key) int { return strings.Compare(newestFirst(&a), newestFirst(&b)) })
	page, next, err := frame.Paginate(h.pages, frame.QuestionOf(ctx, "signing-keys", nil), set.Keys, in.Page, newestFirst)
	if err != nil {
		return nil, err
	}
	var items []SigningKey
	for i := range page {
		items = append(items, shownKey(&page[i]))
	}
	return &keysOutput{Body: frame.ListOf(items, next)}, nil
}

// newestFirst is a text by which keys sort so.
func newestFirst(k *signing.Key) string { return fmt.Sprintf("%019d", math.MaxInt64-k.BornAt) + k.ID }

func parseWait(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 || d > maxWait {
		return 0, problem.FieldError("wait", "want a duration from 0s to %s", maxWait)
	}
	return d, nil
}

func output(r Rotation) (*rotationOutput, error) {
	out, err := frame.TaggedOf(r)
	out.Status = http.StatusAccepted
	if r.State == rotator.Signs {
		out.Status = http.StatusOK
	}
	return out, err
}

// shown is a rotation as the caller may see it. Guards serve all tenants, so that their
// names are nothing that one tenant should learn: they can tell of others.
func (h *handlers) shown(ctx context.Context, r rotator.Rotation) Rotation {
	out := shown(r)
	if who := frame.CallerOf(ctx); who.Tenant != "" && who.Tenant != h.r.Home() {
		for i, name := range out.Lacking {
			out.Lacking[i] = name[strings.LastIndexByte(name, '/')+1:]
		}
	}
	return out
}

func shown(r rotator.Rotation) Rotation {
	out := Rotation{
		ID: r.ID, Kind: r.Kind, KeyID: r.KeyID, Previous: r.Previous, State: r.State, Lacking: slices.Clone(r.Lacking),
		Emergency: r.Emergency, Alg: r.Alg, Reason: r.Reason, Actor: r.Actor, CreatedAt: frame.Millis(r.CreatedAt),
		SignsAt: when(max(r.SignsAt, notBefore(r))),
	}
	if out.Lacking == nil {
		out.Lacking = []string{}
	}
	return out
}

func notBefore(r rotator.Rotation) int64 {
	if r.State == rotator.Waiting {
		return r.NotBefore
	}
	return 0
}

func when(ms int64) *frame.Time {
	if ms == 0 {
		return nil
	}
	t := frame.Millis(ms)
	return &t
}

func shownKey(k *signing.Key) SigningKey {
	return SigningKey{
		KeyID: k.ID, Alg: k.Alg, State: k.State, Public: k.JWK, CreatedAt: frame.Millis(k.BornAt),
		Published: when(k.PublishedAt), Signing: when(k.SigningAt), Stopped: when(k.StoppedAt),
		EndsAt: frame.Time(k.EndTime()), Previous: k.Previous, Rotation: k.Rotation,
		ChangedBy: k.Meta.Actor, ChangedAt: frame.Millis(k.Meta.At), Reason: k.Meta.Reason,
	}
}
