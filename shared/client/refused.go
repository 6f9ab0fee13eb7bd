package client

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/quash-project/quash/shared/problem"
)

// NotSent is an error of a request that never reached the service, so that nothing can
// have come of it.
type NotSent struct{ Err error }

func (e *NotSent) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *NotSent) Unwrap() error { return e.Err }

// Lost is an error of a request that was sent and whose answer did not come.
type Lost struct{ Err error }

func (e *Lost) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *Lost) Unwrap() error { return e.Err }

// Refused is an answer that says no.
type Refused struct {
	Status int
	// Doc is the problem (RFC 9457); of another answer its title alone.
	Doc problem.Document
	// OAuth is the error code of an OAuth endpoint, empty for others.
	OAuth string
}

// Kind is the problem's; Internal where the answer names none of ours.
func (e *Refused) Kind() problem.Kind {
	name, ours := strings.CutPrefix(e.Doc.Type, problem.TypeBase)
	if !ours {
		return problem.Internal
	}
	return problem.ByName(name)
}

func (e *Refused) Error() string {
	s := e.Doc.Detail
	if s == "" {
		s = e.Doc.Title
	}
	if e.Doc.Field != "" {
		s = e.Doc.Field + ": " + s
	}
	if e.OAuth != "" {
		s = e.OAuth + ": " + s
	}
	if s == "" {
		s = fmt.Sprintf("HTTP status %d", e.Status)
	}
	if e.Doc.RequestID != "" {
		s += " (request " + e.Doc.RequestID + ")"
	}
	return s
}

func refusal(resp *http.Response, data []byte) error {
	r := &Refused{Status: resp.StatusCode}
	if json.Unmarshal(data, &r.Doc) != nil {
		r.Doc = problem.Document{}
	}
	var o struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}
	if json.Unmarshal(data, &o) == nil && o.Error != "" {
		r.OAuth, r.Doc.Detail = o.Error, o.Description
	}
	if r.Doc.Title == "" {
		r.Doc.Title = http.StatusText(resp.StatusCode)
	}
	return r
}
