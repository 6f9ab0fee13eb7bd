// Package httpapi is the issuer's management API: API keys, clients and their
// secrets, roles, bindings, and what a pasted secret is.
package httpapi

import (
	"context"
	"encoding/base64"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/quash-project/quash/services/issuer"
	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/guard/revoke"
	frame "github.com/quash-project/quash/shared/httpapi"
	"github.com/quash-project/quash/shared/problem"
)

// Register adds the operations to an API.
func Register(a *frame.API, s *issuer.Service, now func() time.Time) {
	h := &handlers{s: s, now: now}
	h.keys(a)
	h.clients(a)
	h.roles(a)
	h.bindings(a)
}

type handlers struct {
	s   *issuer.Service
	now func() time.Time
}

func op(id, method, path, summary, tag string) huma.Operation {
	o := huma.Operation{OperationID: id, Method: method, Path: path, Summary: summary, Tags: []string{tag}}
	if strings.HasPrefix(id, "create") {
		o.DefaultStatus = http.StatusCreated
	}
	if method != http.MethodGet && id != "lookup" {
		o.Errors = append(o.Errors, http.StatusConflict) // somebody else changes it
	}
	if strings.Contains(path, "{") || strings.HasSuffix(id, "Binding") {
		o.Errors = append(o.Errors, http.StatusNotFound)
	}
	return o
}

func caller(ctx context.Context) issuer.Caller {
	c := frame.CallerOf(ctx)
	return issuer.Caller{Actor: c.Actor(), Tenant: c.Tenant, Scopes: c.Scopes}
}

// reason is why something is done, for the audit; it goes into records and the
// log, so that it is checked here.
func reason(text string) (string, error) {
	if text == "" {
		return "no reason given", nil
	}
	if err := revoke.CheckID("reason", text); err != nil {
		return "", problem.FieldError("reason", "%v", err)
	}
	return text, problem.NoSecret("reason", text)
}

// life reads a duration as "720h". Empty: 0.
func life(field, text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return 0, problem.FieldError(field, "want a positive duration as in 720h or 90m")
	}
	return d, nil
}

// Page are the query parameters of a list.
type Page struct {
	Page  string `query:"page" maxLength:"1000" doc:"next_page of the answer before"`
	Limit int    `query:"limit" minimum:"1" maximum:"1000" default:"100"`
}

// paginate returns one page of a sorted list. A page begins after the record
// that the one before ended with, so that nothing is shown twice or left out
// because of what was added or removed meanwhile. key must sort as the list does.
func paginate[T any](items []T, p Page, key func(*T) string) ([]T, string, error) {
	if p.Page != "" {
		after, err := base64.RawURLEncoding.Strict().DecodeString(p.Page)
		if err != nil {
			return nil, "", problem.FieldError("page", "want next_page of an answer")
		}
		i := 0
		for i < len(items) && key(&items[i]) <= string(after) {
			i++
		}
		items = items[i:]
	}
	if len(items) <= p.Limit {
		return items, "", nil
	}
	items = items[:p.Limit]
	return items, base64.RawURLEncoding.EncodeToString([]byte(key(&items[len(items)-1]))), nil
}

// sortable writes a time and an id so that texts sort as the pairs do.
func sortable(t time.Time, id string) string { return t.UTC().Format("20060102150405.000") + id }

// Ended tells where what was taken away stands in the log.
type Ended struct {
	Target      string     `json:"target"`
	ID          string     `json:"id" doc:"names the entry: GET /v1/revocations/{id} tells who has it"`
	Epoch       uint64     `json:"epoch"`
	Sequence    uint64     `json:"sequence"`
	CommittedAt frame.Time `json:"committed_at"`
}

type endedOutput struct{ Body Ended }

func ended(e issuer.Ended) Ended { return endedOf(e.Target, e.Answer) }

func endedOf(target string, a commit.Answer) Ended {
	return Ended{Target: target, ID: a.ID, Epoch: a.Epoch, Sequence: a.Sequence, CommittedAt: frame.Millis(a.CommittedAt)}
}

// state says in a word what a record is good for, and by what it is hit.
func (h *handlers) state(marked bool, expires time.Time, hits []issuer.Hit) (string, []string) {
	var by []string
	held := true
	for _, hit := range hits {
		by = append(by, hit.Target)
		held = held && hit.Held
	}
	switch {
	case marked:
		return "ending", by
	case !expires.IsZero() && !h.now().Before(expires):
		return "expired", by
	case len(hits) > 0 && held:
		return "held", by
	case len(hits) > 0:
		return "revoked", by
	}
	return "active", by
}

func orEmpty(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}
