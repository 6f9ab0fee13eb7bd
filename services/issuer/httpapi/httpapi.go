// Package httpapi is the issuer's management API: principals, API keys, clients and their
// secrets, roles, bindings, and what a pasted secret is.
package httpapi

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/quash-project/quash/services/issuer"
	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/guard/revoke"
	frame "github.com/quash-project/quash/shared/httpapi"
	"github.com/quash-project/quash/shared/problem"
)

// Register adds the operations to an API. aead seals the tokens of pages: all replicas
// need the same.
func Register(a *frame.API, s *issuer.Service, aead tink.AEAD) {
	h := &handlers{s: s, pages: frame.NewPages(aead)}
	h.principals(a)
	h.keys(a)
	h.clients(a)
	h.roles(a)
	h.bindings(a)
	h.can(a)
	h.tenants(a)
	h.targets(a)
}

type handlers struct {
	s     *issuer.Service // of the installation's own tenant
	pages frame.Pages
}

// in returns the issuer of the caller's tenant, which is the only one that they are told of.
func (h *handlers) in(ctx context.Context) *issuer.Service { return h.s.In(frame.CallerOf(ctx).Tenant) }

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
	out := issuer.Caller{Actor: c.Actor(), Tenant: c.Tenant, Scopes: c.Scopes, Client: c.Client, Targets: c.Targets, Request: frame.RequestID(ctx)}
	if a := frame.AttemptOf(ctx); a != nil {
		out.Try = a
	}
	return out
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

// only is the condition that a record is still what the caller has seen of it.
func only[T, V any](in frame.IfMatch, shown func(*T) (V, error)) issuer.If[T] {
	return func(v T) error {
		if in.Wanted == "" {
			return nil
		}
		s, err := shown(&v)
		if err != nil {
			return err
		}
		return in.Check(s)
	}
}

// life reads a duration as "720h" or "30d". Empty: 0.
func life(field, text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, dayErr := strconv.ParseUint(days, 10, 16) // 65,535 days are no overflow
		d, err = time.Duration(n)*24*time.Hour, dayErr
	}
	if err != nil || d <= 0 {
		return 0, problem.FieldError(field, "want a positive duration as in 30d, 720h or 90m")
	}
	return d, nil
}

// Ended tells where what was taken away stands in the log.
type Ended struct {
	Target      string     `json:"target"`
	ID          string     `json:"id" doc:"names the entry: GET /v1/revocations/{id} tells who has it"`
	Epoch       uint64     `json:"epoch"`
	Sequence    uint64     `json:"sequence"`
	CommittedAt frame.Time `json:"committed_at"`
	Next        string     `json:"next,omitempty" doc:"of a key that was rotated: the key that has taken its place, and lives on"`
}

type endedOutput struct{ Body Ended }

func ended(e issuer.Ended) Ended {
	out := endedOf(e.Target, e.Answer)
	out.Next = e.Next
	return out
}

func endedOf(target string, a commit.Answer) Ended {
	return Ended{Target: target, ID: a.ID, Epoch: a.Epoch, Sequence: a.Sequence, CommittedAt: frame.Millis(a.CommittedAt)}
}

// state says in a word what a record is good for, and by what it is hit.
func (h *handlers) state(marked bool, expires time.Time, hits []issuer.Hit) (string, []string) {
	state, by := h.s.Standing(marked, expires, hits)
	return string(state), by
}

// showAll shows each of some records.
func showAll[T, U any](records []T, show func(*T) U) []U {
	out := make([]U, 0, len(records))
	for i := range records {
		out = append(out, show(&records[i]))
	}
	return out
}

func orEmpty(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}
