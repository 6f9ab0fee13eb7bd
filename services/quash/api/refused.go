package api

import (
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/quash-project/quash/shared/problem"
)

// Refused is an answer that says no.
type Refused struct {
	Status int
	Doc    problem.Document
	// OAuth is the error code of an OAuth endpoint, empty for others.
	OAuth string
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
