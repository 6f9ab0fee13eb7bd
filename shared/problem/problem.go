// Package problem is how every service says that something went wrong: an
// Error has a Kind that tells a caller what they can do, a Detail for the
// caller, and a cause for the operator's log. Only Kind, Code, Field and Detail
// cross a wire; one table maps them to HTTP (RFC 9457) and OAuth (RFC 6749).
package problem

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/quash-project/quash/shared/apikey"
)

// Kind says what a caller can do. The zero Kind is Internal: an error that
// nobody classified reveals nothing.
type Kind uint8

// The kinds. New ones go last: the names cross the wire.
const (
	Internal       Kind = iota
	Invalid             // the request can't be right: mend it
	Unauthorized        // not signed in: bring a (valid) credential
	Forbidden           // signed in, and not allowed
	NotFound            // no such thing
	Conflict            // it stands against what is there, or the idempotency key was used for something else
	TooLarge            // body too large
	MediaType           // wrong Content-Type or charset
	Method              // wrong method
	RateLimited         // too many: wait RetryAfter
	Unavailable         // can't be done now, and was not: wait RetryAfter
	UnknownOutcome      // may or may not have been done: repeat with the same idempotency key
	Precondition        // If-Match names another state of the record: read it again
)

// Error is one problem. Build it with New, Wrap or FieldError.
type Error struct {
	Kind       Kind
	Detail     string        // for the caller: what was wrong, with which value, and what to do
	Field      string        // the member of the request that was wrong, as a path; empty if none
	Key        string        // the idempotency key to repeat with, of UnknownOutcome
	Existing   string        // kind:id of what the same request has made before, of Conflict
	RetryAfter time.Duration // of RateLimited and Unavailable; 0: one second
	cause      error
}

// Error returns detail and cause, for the operator, without secrets that
// somebody put in the wrong place.
func (e *Error) Error() string {
	s := e.Detail
	if e.Field != "" {
		s = e.Field + ": " + s
	}
	if e.cause != nil {
		s += ": " + e.cause.Error()
	}
	return apikey.Redact(s)
}

// NoSecret refuses a text that is kept in the clear, in a record, the log or the
// audit, and has a secret in it: somebody pasted it there by mistake.
func NoSecret(field, text string) error {
	if !apikey.In(text) {
		return nil
	}
	return FieldError(field, "there is a secret in it, and it would be kept in the clear: write the id; POST /v1/lookups tells that of a key")
}

// MadeBefore is the error of a request that is repeated and has made something
// with a secret, named as kind:id.
func MadeBefore(what string) *Error {
	e := New(Conflict, "this request has made %s before, and its secret was shown in that answer alone; if that was lost, delete %s and make another, under a new idempotency key", what, what)
	e.Existing = what
	return e
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.cause }

// New returns an error whose detail the caller sees.
func New(kind Kind, format string, args ...any) *Error {
	return &Error{Kind: kind, Detail: fmt.Sprintf(format, args...)}
}

// FieldError says which member of the request was wrong.
func FieldError(field, format string, args ...any) *Error {
	return &Error{Kind: Invalid, Field: field, Detail: fmt.Sprintf(format, args...)}
}

// Wrap classifies cause, which the operator sees and the caller does not.
func Wrap(kind Kind, cause error, format string, args ...any) *Error {
	return &Error{Kind: kind, Detail: fmt.Sprintf(format, args...), cause: cause}
}

// From returns the first Error in err's chain; anything else is Internal, and a
// deadline that passed is Unavailable.
func From(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return Wrap(Unavailable, err, "the request took too long; nothing is known to be wrong with it, repeat it")
	}
	return Wrap(Internal, err, "internal error; the operator's log says more")
}

// KindOf is From(err).Kind.
func KindOf(err error) Kind { return From(err).Kind }
