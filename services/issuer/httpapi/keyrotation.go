package httpapi

import (
	"context"
	"math"
	"net/http"

	"github.com/quash-project/quash/services/issuer"
	"github.com/quash-project/quash/shared/guard/revoke"
	frame "github.com/quash-project/quash/shared/httpapi"
	"github.com/quash-project/quash/shared/rights"
)

// RotatedKey is a key that has taken the place of another: the only place where its secret
// stands.
type RotatedKey struct {
	NewKey
	Until frame.Time `json:"until" doc:"when the old key ends; of an emergency that was at once"`
	Ended *Ended     `json:"ended,omitempty" doc:"of an emergency: the end of the old key in the log"`
}

// KeyRotation is how another key takes the place of one, and who uses that still.
type KeyRotation struct {
	Next      string      `json:"next" doc:"the key that takes its place"`
	BegunAt   frame.Time  `json:"begun_at"`
	BegunBy   string      `json:"begun_by"`
	Until     frame.Time  `json:"until" doc:"from then on the old key, and every token that came from it, is refused"`
	Emergency bool        `json:"emergency,omitempty" doc:"the old key ended at once"`
	Back      bool        `json:"back,omitempty" doc:"it is being rolled back: the new key ends, and the old one stays"`
	Uses      int64       `json:"uses" doc:"how often the old key was used since; some minutes late"`
	UsedAt    *frame.Time `json:"used_at,omitempty" doc:"when the old key was used last since, to the minute; missing: it was not used"`
	UsedFrom  string      `json:"used_from,omitempty" doc:"the address from which it was used then"`
	UsedBy    string      `json:"used_by,omitempty" doc:"what the program that used it then calls itself"`
	// Of one whose secret nobody was shown:
	Sealed      bool        `json:"sealed,omitempty" doc:"the new secret is sealed to the key's recipient, who collects it by POST /v1/keys/{id}/delivery; what is not collected until then is taken back, and the old key stays"`
	CollectedAt *frame.Time `json:"collected_at,omitempty" doc:"when it was collected"`
	CollectedBy string      `json:"collected_by,omitempty"`
	NextUsedAt  *frame.Time `json:"next_used_at,omitempty" doc:"when the new key was used last, to the minute: once it was, the rotation is confirmed"`
}

func (h *handlers) rotation(k *issuer.Key) *KeyRotation {
	r := k.Rotation
	if r == nil {
		return nil
	}
	use := h.s.UsedSince(k)
	return &KeyRotation{
		Next: r.Next, BegunAt: frame.Time(r.Begun), BegunBy: r.By, Until: frame.Time(r.Until), Emergency: r.Emergency, Back: r.Back != nil,
		Uses: int64(min(use.Times, math.MaxInt64)), UsedAt: timeOf(use.At), UsedFrom: address(use.From), UsedBy: use.Agent,
		Sealed: r.Sealed, CollectedAt: timeOf(r.CollectedAt), CollectedBy: r.CollectedBy, NextUsedAt: timeOf(h.s.NextUse(k).At),
	}
}

type (
	rotateKeyInput struct {
		frame.Idempotent
		frame.IfMatch
		ID   string `path:"id" maxLength:"100"`
		Body struct {
			Overlap   string `json:"overlap,omitempty" doc:"how long the old key stays good, as in 90m, 24h or 7d: 1m to 30d, and not beyond its own end; by policy a day if nothing is asked"`
			Emergency bool   `json:"emergency,omitempty" doc:"no overlap: the old key, and every token that came from it, is dead before the answer"`
			ExpiresIn string `json:"expires_in,omitempty" doc:"the life of the new key, as in 720h or 30d; as long as that of the old one was if nothing is asked"`
			Current   string `json:"current,omitempty" doc:"the old key's own secret, of whoever rotates the key that they ask with"`
			Reason    string `json:"reason,omitempty" doc:"why, for the audit"`
		}
	}
	rotateKeyOutput struct {
		ETag string `header:"ETag" doc:"of the new key as GET shows it"`
		Body RotatedKey
	}
	setRotationInput struct {
		frame.Idempotent
		frame.IfMatch
		ID   string `path:"id" maxLength:"100"`
		Body struct {
			Overlap string `json:"overlap" doc:"how long the old key stays good from now on, as in 90m, 24h or 7d: 1m or more, and until 30 days after the rotation began at most"`
			Reason  string `json:"reason,omitempty" doc:"why, for the audit"`
		}
	}
	rollBackInput struct {
		frame.Idempotent
		frame.IfMatch
		ID   string `path:"id" maxLength:"100"`
		Body reasonBody
	}
)

// Made implements frame.Secretive.
func (o *rotateKeyOutput) Made() string {
	return revoke.Target{Kind: revoke.KindKey, ID: o.Body.ID}.String()
}

// ScopeToMake is the scope of whoever makes keys of a kind.
func ScopeToMake(kind issuer.KeyKind) string {
	if kind == issuer.ClientSecret {
		return rights.ClientsWrite
	}
	return rights.KeysWrite
}

func (h *handlers) keyRotation(a *frame.API) {
	rotate := op("rotateKey", http.MethodPost, "/v1/keys/{id}/rotate", "Make a key that takes the place of an API key or client secret", "keys")
	rotate.DefaultStatus = http.StatusCreated
	rotate.Description = "Of an API key it needs the scope `" + rights.KeysWrite + "`, of a client secret `" + rights.ClientsWrite +
		"`, which the fixed roles operator and admin have; or, where policy allows it, a token that came from the key itself, with its secret as current."
	frame.Register(a, rotate, frame.Authenticated, h.rotateKey)
	frame.Register(a, op("setKeyRotation", http.MethodPost, "/v1/keys/{id}/rotation", "Let a key that is rotated end sooner or later", "keys"), rights.KeysWrite,
		func(ctx context.Context, in *setRotationInput) (*keyOutput, error) {
			why, err := reason(in.Body.Reason)
			if err != nil {
				return nil, err
			}
			overlap, err := life("overlap", in.Body.Overlap)
			if err != nil {
				return nil, err
			}
			k, err := h.in(ctx).SetOverlap(ctx, caller(ctx), in.ID, overlap, why, only(in.IfMatch, h.shownKey))
			if err != nil {
				return nil, err
			}
			return frame.TaggedOf(h.key(&k))
		})
	frame.Register(a, op("rollBackKey", http.MethodPost, "/v1/keys/{id}/rollback", "Take a rotation back: the new key ends, and the old one stays", "keys"), rights.KeysWrite,
		func(ctx context.Context, in *rollBackInput) (*endedOutput, error) {
			why, err := reason(in.Body.Reason)
			if err != nil {
				return nil, err
			}
			e, err := h.in(ctx).RollBack(ctx, caller(ctx), in.ID, why, only(in.IfMatch, h.shownKey))
			if err != nil {
				return nil, err
			}
			return &endedOutput{ended(e)}, nil
		})
}

func (h *handlers) rotateKey(ctx context.Context, in *rotateKeyInput) (*rotateKeyOutput, error) {
	why, err := reason(in.Body.Reason)
	if err != nil {
		return nil, err
	}
	r := issuer.Rotate{
		Emergency: in.Body.Emergency, Reason: why, Current: in.Body.Current, Scope: ScopeToMake,
	}
	if r.Overlap, err = life("overlap", in.Body.Overlap); err != nil {
		return nil, err
	}
	if r.Life, err = life("expires_in", in.Body.ExpiresIn); err != nil {
		return nil, err
	}
	made, secret, err := h.in(ctx).RotateKey(ctx, caller(ctx), in.ID, r, only(in.IfMatch, h.shownKey))
	if err != nil {
		return nil, err
	}
	shown := h.key(&made.Key)
	tag, err := frame.Tag(shown)
	out := &rotateKeyOutput{ETag: tag, Body: RotatedKey{NewKey: NewKey{shown, secret.Reveal()}, Until: frame.Time(made.Old.Rotation.Until)}}
	if r.Emergency {
		e := ended(made.End)
		out.Body.Ended = &e
	}
	return out, err
}
