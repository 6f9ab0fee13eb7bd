package wire

import "strings"

// TenantIssuer returns the issuer URL, the claim iss, of a tenant that has no issuer URL of
// its own: it stands below the URL of the installation's own issuer.
func TenantIssuer(installation, tenant string) string {
	return strings.TrimSuffix(installation, "/") + "/t/" + tenant
}

// TenantOf is the inverse of TenantIssuer; false for any other URL.
func TenantOf(installation, issuer string) (string, bool) {
	return strings.CutPrefix(issuer, TenantIssuer(installation, ""))
}
