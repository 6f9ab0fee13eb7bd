package problem

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/quash-project/quash/shared/apikey"
)

// TypeBase is the prefix of every problem type URI.
const TypeBase = "https://quash.dev/problems/"

type row struct {
	name   string // the last part of the type URI, and the code over NATS
	title  string
	status int
	oauth  string // the RFC 6749 error code
}

var table = [...]row{
	Internal:       {"internal", "Internal error", http.StatusInternalServerError, "server_error"},
	Invalid:        {"invalid-request", "The request is not valid", http.StatusUnprocessableEntity, "invalid_request"},
	Unauthorized:   {"unauthorized", "Not signed in", http.StatusUnauthorized, "invalid_client"},
	Forbidden:      {"forbidden", "Not allowed", http.StatusForbidden, "access_denied"},
	NotFound:       {"not-found", "No such thing", http.StatusNotFound, "invalid_request"},
	Conflict:       {"conflict", "Conflict", http.StatusConflict, "invalid_request"},
	TooLarge:       {"too-large", "The body is too large", http.StatusRequestEntityTooLarge, "invalid_request"},
	MediaType:      {"unsupported-media-type", "Unsupported media type", http.StatusUnsupportedMediaType, "invalid_request"},
	Method:         {"method-not-allowed", "Method not allowed", http.StatusMethodNotAllowed, "invalid_request"},
	RateLimited:    {"rate-limited", "Too many requests", http.StatusTooManyRequests, "temporarily_unavailable"},
	Unavailable:    {"unavailable", "Not available now", http.StatusServiceUnavailable, "temporarily_unavailable"},
	UnknownOutcome: {"unknown-outcome", "The outcome is unknown", http.StatusServiceUnavailable, "temporarily_unavailable"},
	Precondition:   {"precondition-failed", "The record has changed", http.StatusPreconditionFailed, "invalid_request"},
}

func (k Kind) row() row {
	if int(k) >= len(table) {
		return table[Internal]
	}
	return table[k]
}

// Name returns the last part of the type URI, which is also the code over NATS.
func (k Kind) Name() string { return k.row().name }

// Status returns the HTTP status.
func (k Kind) Status() int { return k.row().status }

// OAuth returns the RFC 6749 error code for a kind that has no more exact one.
func (k Kind) OAuth() string { return k.row().oauth }

// Kinds returns all kinds, for tests that hold the table against schemas/.
func Kinds() []Kind {
	ks := make([]Kind, len(table))
	for i := range ks {
		ks[i] = Kind(i)
	}
	return ks
}

// ByName is the inverse of Name; Internal for an unknown one.
func ByName(name string) Kind {
	for k, r := range table {
		if r.name == name {
			return Kind(k)
		}
	}
	return Internal
}

// Document is the RFC 9457 problem document; it is also the error answer over NATS.
type Document struct {
	Type           string `json:"type"`
	Title          string `json:"title"`
	Status         int    `json:"status"`
	Detail         string `json:"detail,omitempty"`
	Field          string `json:"field,omitempty"`
	IdempotencyKey string `json:"idempotency_key,omitempty"`
	Existing       string `json:"existing,omitempty" doc:"kind:id of what the same request has made before"`
	RequestID      string `json:"request_id,omitempty"`
}

// DocumentOf returns what a caller may see of err.
func DocumentOf(err error, requestID string) Document {
	e := From(err)
	r := e.Kind.row()
	return Document{
		Type: TypeBase + r.name, Title: r.title, Status: r.status,
		Detail: apikey.Redact(e.Detail), Field: apikey.Redact(e.Field), IdempotencyKey: e.Key, Existing: e.Existing, RequestID: requestID,
	}
}

// RetryAfterSeconds returns the value for Retry-After, 0 for none.
func (e *Error) RetryAfterSeconds() int {
	switch e.Kind {
	case RateLimited, Unavailable, UnknownOutcome:
		return max(1, int((e.RetryAfter+time.Second-1)/time.Second))
	}
	return 0
}

// Write answers with the problem document of err. It is the one place that
// turns an error into an HTTP status.
func Write(w http.ResponseWriter, err error, requestID string) {
	e := From(err)
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	if s := e.RetryAfterSeconds(); s > 0 {
		h.Set("Retry-After", strconv.Itoa(s))
	}
	doc := DocumentOf(err, requestID)
	w.WriteHeader(doc.Status)
	_ = json.NewEncoder(w).Encode(doc) // the caller has gone; nothing is left to do
}
