package commit

import (
	"fmt"
	"slices"
	"strings"
)

// codes are the words in which programs are told why something is taken away, beside the
// text for people.
var codes = []string{
	// RFC 5280, 5.3.1: CRLReason, those that fit what is no certificate.
	"unspecified", "keyCompromise", "affiliationChanged", "superseded", "cessationOfOperation", "privilegeWithdrawn",
	// OpenID RISC Profile 1.0, 2: event types, and the reason of account-disabled.
	"credential-compromise", "account-disabled", "account-purged", "hijacking",
	// OpenID CAEP 1.0, 3: event types.
	"session-revoked", "credential-change", "device-compliance-change", "assurance-level-change", "risk-level-change",
}

// Codes returns every reason code.
func Codes() []string { return slices.Clone(codes) }

// CheckCode tells whether a text is a reason code, or none.
func CheckCode(code string) error {
	if code == "" || slices.Contains(codes, code) {
		return nil
	}
	return fmt.Errorf("%.60q: want one of %s", code, strings.Join(codes, ", "))
}
