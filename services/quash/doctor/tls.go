package doctor

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// soonest is when, at the latest, a certificate is expected to be renewed; of one
// with a short life it is a fifth of that.
const soonest = 14 * 24 * time.Hour

const renew = "renew it: the services, nats-server (by a reload) and Redis read the files again; then look at what renews it by itself"

// certificate judges the connection to where, whose certificate has been verified.
func certificate(where string, s *tls.ConnectionState, now time.Time) Finding {
	check := "certificate of " + where
	if s == nil || len(s.PeerCertificates) == 0 {
		if loopback(where) {
			return good("TLS of "+where, "none, on this machine only")
		}
		return wrong("TLS of "+where, "give it a certificate, and clients https://, tls:// or rediss://", errors.New("there is none: tokens and what is asked pass in the clear"))
	}
	// The first of the chain that ends. The authority's own is not sent.
	first := s.PeerCertificates[0]
	for _, c := range s.PeerCertificates[1:] {
		if c.NotAfter.Before(first.NotAfter) {
			first = c
		}
	}
	left := first.NotAfter.Sub(now)
	life := first.NotAfter.Sub(first.NotBefore)
	until := first.NotAfter.UTC().Format(time.RFC3339)
	switch {
	case left <= 0:
		return wrong(check, renew, fmt.Errorf("expired at %s", until))
	case left < min(soonest, life/5):
		return wrong(check, renew, fmt.Errorf("ends in %s, at %s", left.Round(time.Minute), until))
	}
	return good(check, "good until %s", until)
}

// untrusted turns a failed connection into a finding about its certificate, if it
// is that.
func untrusted(where string, err error) (Finding, bool) {
	check := "certificate of " + where
	var (
		unknown x509.UnknownAuthorityError
		name    x509.HostnameError
		invalid x509.CertificateInvalidError
		verify  *tls.CertificateVerificationError
	)
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return wrong(check, renew+"; if it is good, the clock here is wrong", err), true
	case errors.As(err, &name):
		return wrong(check, "reach it by a name that stands in its certificate, or have this one put into it", err), true
	case errors.As(err, &unknown):
		return wrong(check, "set SSL_CERT_FILE to the certificate of its authority; if you don't know that, somebody stands between", err), true
	case errors.As(err, &verify):
		return wrong(check, renew, err), true
	}
	return Finding{}, false
}
