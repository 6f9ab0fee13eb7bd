package httpapi

import (
	"context"
	"net/http"

	"github.com/quash-project/quash/services/issuer"
	frame "github.com/quash-project/quash/shared/httpapi"
	"github.com/quash-project/quash/shared/rights"
)

// Delivery is the secret of a key, sealed to whoever owns it.
type Delivery struct {
	ID          string     `json:"id" doc:"the key whose secret it is"`
	Previous    string     `json:"previous" doc:"the key whose place it takes"`
	Recipient   string     `json:"recipient" doc:"to whom it is sealed, as age1…"`
	Sealed      string     `json:"sealed" doc:"age, armored (age-encryption.org/v1). Inside is JSON with tenant, id, secret, previous and until: hold the first two and previous against what you asked for"`
	Until       frame.Time `json:"until" doc:"when the old key ends"`
	CollectedAt frame.Time `json:"collected_at"`
	CollectedBy string     `json:"collected_by"`
}

type (
	setRecipientInput struct {
		frame.Idempotent
		frame.IfMatch
		ID   string `path:"id" maxLength:"100"`
		Body struct {
			Recipient string `json:"recipient" maxLength:"200" doc:"an age X25519 recipient, age1…; empty: nobody any more"`
			Current   string `json:"current,omitempty" doc:"the key's own secret, of whoever asks with a token that came from it"`
			Reason    string `json:"reason,omitempty" doc:"why, for the audit"`
		}
	}
	collectInput struct {
		frame.Idempotent
		frame.IfMatch
		ID   string `path:"id" maxLength:"100" doc:"the old key"`
		Body struct {
			Current string `json:"current,omitempty" doc:"the old key's own secret, of whoever asks with a token that came from it"`
			Reason  string `json:"reason,omitempty" doc:"why, for the audit"`
		}
	}
	collectOutput struct{ Body Delivery }
)

func (h *handlers) keyDelivery(a *frame.API) {
	needs := "Of an API key it needs the scope `" + rights.KeysWrite + "`, of a client secret `" + rights.ClientsWrite + "`; or a token that came from the key itself, with its secret as current"
	set := op("setKeyRecipient", http.MethodPut, "/v1/keys/{id}/recipient", "Register to whom the secret is sealed that takes the place of a key's by a schedule", "keys")
	set.Description = needs + ", where policy allows that keys rotate themselves. Whoever opens what is sealed has the next secret."
	frame.Register(a, set, frame.Authenticated, h.setRecipient)
	collect := op("collectKey", http.MethodPost, "/v1/keys/{id}/delivery", "Collect the sealed secret of the key that takes the place of one", "keys")
	collect.Description = needs + ". It is given out once, and again to the same request with its Idempotency-Key. Not collected until the overlap ends, the rotation is taken back."
	frame.Register(a, collect, frame.Authenticated, h.collect)
}

func (h *handlers) setRecipient(ctx context.Context, in *setRecipientInput) (*keyOutput, error) {
	why, err := reason(in.Body.Reason)
	if err != nil {
		return nil, err
	}
	k, err := h.in(ctx).SetRecipient(ctx, caller(ctx), in.ID, issuer.SetRecipient{
		Recipient: in.Body.Recipient, Current: in.Body.Current, Reason: why, Scope: ScopeToMake,
	}, only(in.IfMatch, h.shownKey))
	if err != nil {
		return nil, err
	}
	return frame.TaggedOf(h.key(&k))
}

func (h *handlers) collect(ctx context.Context, in *collectInput) (*collectOutput, error) {
	why, err := reason(in.Body.Reason)
	if err != nil {
		return nil, err
	}
	d, err := h.in(ctx).Collect(ctx, caller(ctx), in.ID, issuer.Collect{Current: in.Body.Current, Reason: why, Scope: ScopeToMake}, only(in.IfMatch, h.shownKey))
	if err != nil {
		return nil, err
	}
	r := d.Old.Rotation
	return &collectOutput{Delivery{
		ID: d.ID, Previous: d.Previous, Recipient: d.Recipient, Sealed: d.Sealed, Until: frame.Time(r.Until),
		CollectedAt: frame.Time(r.CollectedAt), CollectedBy: r.CollectedBy,
	}}, nil
}
