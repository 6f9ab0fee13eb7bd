package issuer

import (
	"encoding/json"
	"fmt"
)

// The error codes of the OAuth endpoints.
const (
	CodeInvalidRequest       = "invalid_request"        // RFC 6749, 5.2; RFC 8693, 2.2.2: every invalid subject_token
	CodeInvalidClient        = "invalid_client"         // RFC 6749, 5.2
	CodeInvalidGrant         = "invalid_grant"          // RFC 6749, 5.2
	CodeUnauthorizedClient   = "unauthorized_client"    // RFC 6749, 5.2
	CodeUnsupportedGrantType = "unsupported_grant_type" // RFC 6749, 5.2
	CodeInvalidScope         = "invalid_scope"          // RFC 6749, 5.2
	CodeInvalidTarget        = "invalid_target"         // RFC 8707, 2; RFC 8693, 2.2.2
	CodeUnsupportedTokenType = "unsupported_token_type" // RFC 7009, 2.2.1
)

// Refusal is an OAuth error: a "no", not a "can't". Detail goes to the caller
// and has nothing secret in it.
type Refusal struct {
	Code   string
	Detail string
}

// Error implements error.
func (r *Refusal) Error() string { return r.Code + ": " + r.Detail }

func refuse(code, format string, args ...any) error {
	return &Refusal{Code: code, Detail: fmt.Sprintf(format, args...)}
}

func appendString(b []byte, s string) ([]byte, error) {
	text, err := json.Marshal(s)
	return append(b, text...), err
}
