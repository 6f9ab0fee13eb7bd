package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/quash-project/quash/services/issuer"
	frame "github.com/quash-project/quash/shared/httpapi"
	"github.com/quash-project/quash/shared/problem"
	"github.com/quash-project/quash/shared/rights"
)

// ImportKey is an API key of another system.
type ImportKey struct {
	SHA256     string            `json:"sha256" doc:"of the whole secret, in 64 hexadecimal digits"`
	Owner      string            `json:"owner" doc:"the principal for whom the key speaks"`
	Name       string            `json:"name,omitempty" doc:"for people"`
	Labels     map[string]string `json:"labels,omitempty"`
	Scopes     []string          `json:"scopes,omitempty"`
	Roles      []string          `json:"roles,omitempty" doc:"by name"`
	OwnerRoles bool              `json:"owner_roles,omitempty" doc:"the roles bound to its owner count too"`
	Audiences  []string          `json:"audiences,omitempty"`
	Networks   []string          `json:"networks,omitempty"`
	RateLimit  int               `json:"rate_limit,omitempty"`
	Expires    string            `json:"expires,omitempty" doc:"a time as 2027-01-31T00:00:00Z; none: after the life of the policy, from its first import"`
}

// ImportOutcome is what became of one of them.
type ImportOutcome struct {
	ID      string `json:"id,omitempty" doc:"missing: the hash could not be read"`
	Outcome string `json:"outcome" enum:"imported,exists,refused" doc:"exists: an earlier import made it, and it is as it was asked for now"`
	Field   string `json:"field,omitempty" doc:"of a refused one: what was wrong"`
	Detail  string `json:"detail,omitempty" doc:"of a refused one: why"`
}

type (
	importKeysInput struct {
		frame.Idempotent
		Body struct {
			Keys   []ImportKey `json:"keys" minItems:"1" maxItems:"200"`
			Reason string      `json:"reason,omitempty" doc:"why, for the audit"`
		}
	}
	importKeysOutput struct {
		Body struct {
			Items []ImportOutcome `json:"items" doc:"one for each key, in their order"`
		}
	}
)

func (h *handlers) keyImport(a *frame.API) {
	o := op("importKeys", http.MethodPost, "/v1/keys/import", "Take API keys of another system by the hashes of their secrets", "keys")
	o.MaxBodyBytes = frame.MaxBulkBody
	o.Description = "The same hash is the same key: a request whose outcome is unknown is repeated as it is. What is wrong with one key stands in its outcome, and stops no other."
	frame.Register(a, o, rights.KeysWrite, h.importKeys)
}

func (h *handlers) importKeys(ctx context.Context, in *importKeysInput) (*importKeysOutput, error) {
	why, err := reason(in.Body.Reason)
	if err != nil {
		return nil, err
	}
	out := &importKeysOutput{}
	out.Body.Items = make([]ImportOutcome, len(in.Body.Keys))
	var asked []issuer.ImportedKey
	var at []int // where in the answer each of them stands
	for i := range in.Body.Keys {
		k, err := in.Body.Keys[i].read()
		if err != nil {
			out.Body.Items[i] = refusedImport("", err)
			continue
		}
		asked, at = append(asked, k), append(at, i)
	}
	if len(asked) == 0 {
		return out, nil
	}
	done, err := h.in(ctx).ImportKeys(ctx, caller(ctx), asked, why)
	if err != nil {
		return nil, err
	}
	for j, d := range done {
		if out.Body.Items[at[j]] = (ImportOutcome{ID: d.ID, Outcome: string(d.Outcome)}); d.Err != nil {
			out.Body.Items[at[j]] = refusedImport(d.ID, d.Err)
		}
	}
	return out, nil
}

func refusedImport(id string, err error) ImportOutcome {
	doc := problem.DocumentOf(err, "")
	return ImportOutcome{ID: id, Outcome: string(issuer.Refused), Field: doc.Field, Detail: doc.Detail}
}

func (k *ImportKey) read() (issuer.ImportedKey, error) {
	out := issuer.ImportedKey{SHA256: k.SHA256, NewKey: issuer.NewKey{
		Owner: k.Owner, Name: k.Name, Labels: k.Labels, Scopes: k.Scopes, Roles: k.Roles, OwnerRoles: k.OwnerRoles, Audiences: k.Audiences, RateLimit: k.RateLimit,
	}}
	var err error
	if out.Networks, err = networks(k.Networks); err != nil {
		return out, err
	}
	if k.Expires == "" {
		return out, nil
	}
	if out.Expires, err = time.Parse(time.RFC3339, k.Expires); err != nil {
		return out, problem.FieldError("expires", "want a time as 2027-01-31T00:00:00Z")
	}
	return out, nil
}
