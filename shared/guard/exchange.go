package guard

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/quash-project/quash/shared/guard/keyform"
	"github.com/quash-project/quash/shared/guard/keys"
	"github.com/quash-project/quash/shared/guard/wire"
)

// Exchange is the mode in which a guard takes API keys too, for an API whose
// clients send keys and are not to change. The guard exchanges a key at the issuer
// (RFC 8693), keeps the token in memory until shortly before it expires, and decides
// about the token as about any other: so a key that is revoked is refused as soon as
// the guard has read it in the log, and what a key may do is what its token says.
//
// The issuer is told from where a request came (Requirement.From; the peer of its
// connection by default), in X-Forwarded-For. It holds a key's networks against that if it
// believes the guard, which is then one of its trusted_proxies; a token of such a key is
// kept, and used, for that address alone. Where the issuer does not believe the guard, or
// the guard does not know who calls, keys that are bound to networks are refused. How often
// a key may be used is held against the guard's exchanges, not its clients' requests.
//
// A token that was refused is given up, and the next request with that key asks the
// issuer again. While the issuer can't be asked, a token is used up to its end, and
// then the answer is 503. The zero Exchange is that of the guard's only own issuer.
type Exchange struct {
	// Issuer is the URL of the guard's own issuer whose keys are taken. It may be
	// empty if there is only one.
	Issuer string
	// TokenURL is where keys are exchanged: /oauth/token below Issuer if empty. https,
	// or http to a loopback address. Keys that are found in a URL are told to "leaked"
	// beside it.
	TokenURL string
	// RootCAs are the roots by which the issuer's certificate is judged; those of the
	// system if nil.
	RootCAs *x509.CertPool
	// Client replaces the HTTP client; then RootCAs must be nil. By default that of
	// WithHTTPClient, or one that follows no redirection.
	Client *http.Client
	// Imported is the form, as a whole, of keys that were imported from another system.
	// Of Quash's own keys a mistyped one is refused without asking anybody; of these
	// each unknown one costs an exchange, so let it be narrow. It must match no JWT.
	Imported *regexp.Regexp
	// Cache is how many bytes tokens of keys may take in memory, about; 16 MiB if 0. A
	// quarter of it is for keys that are bound to networks, which have a token an address.
	Cache uint64
	// NoReport keeps keys and client secrets that were found in a URL from being told to
	// the issuer.
	NoReport bool
	// OnKeyInURL is called with the id of a key or client secret (key:ID) that was found
	// in a URL, in the goroutine of the request, at most once a minute for each.
	OnKeyInURL func(id string)
}

// WithExchange has the guard take API keys beside tokens; see Exchange.
func WithExchange(e Exchange) Option { return func(o *options) { o.exchange = &e } }

const (
	exchangeTime = 5 * time.Second // of a whole exchange
	refusedLife  = 2 * time.Second // how long an issuer's refusal is kept
	pause        = time.Second     // after an exchange that failed, at least
	maxPause     = 5 * time.Second // and at most, whatever the issuer wishes for
	maxRetry     = time.Minute     // what callers are told to wait at most
	maxKey       = 4 << 10         // bytes of a key
	maxFlights   = 256             // exchanges at once
	maxOfKey     = 32              // of them, for addresses of one key
	nearShare    = 4               // one part in so many of the cache is for keys that are bound to networks
	maxRefused   = 10_000          // refusals that are kept
	maxAnswer    = 64 << 10        // bytes of an issuer's answer
	minMargin    = time.Second
	maxMargin    = 30 * time.Second // how long before its end a token is replaced
)

// openExchange makes the exchanger, if one is asked for.
func (g *Guard) openExchange() error {
	if g.opts.exchange == nil {
		return nil
	}
	cfg := *g.opts.exchange
	iss, err := g.exchangeIssuer(cfg.Issuer)
	if err != nil {
		return fmt.Errorf("exchange: %w", err)
	}
	base := strings.TrimSuffix(iss.URL, "/")
	if cfg.TokenURL == "" {
		cfg.TokenURL = base + "/oauth/token"
	}
	if err := keys.CheckURL("token URL", cfg.TokenURL, iss.AllowHTTP); err != nil {
		return fmt.Errorf("exchange: %w", err)
	}
	if cfg.Client != nil && cfg.RootCAs != nil {
		return errors.New("exchange: RootCAs beside Client: give that client its roots itself")
	}
	if cfg.Imported != nil {
		if cfg.Imported, err = regexp.Compile(`^(?:` + cfg.Imported.String() + `)$`); err != nil {
			return fmt.Errorf("exchange: imported: %w", err)
		}
		if cfg.Imported.MatchString("") {
			return errors.New("exchange: imported: it matches the empty text")
		}
	}
	g.exchange, err = newExchanger(g, iss, cfg)
	if err != nil {
		return fmt.Errorf("exchange: %w", err)
	}
	return nil
}

func (g *Guard) exchangeIssuer(url string) (*issuer, error) {
	var found *issuer
	for _, iss := range g.order {
		if !iss.Own() || url != "" && iss.URL != url && !below(iss, url) {
			continue
		}
		if found != nil {
			return nil, errors.New("the guard has several issuers of its own: say whose keys are taken")
		}
		found = iss
	}
	switch {
	case found == nil:
		return nil, fmt.Errorf("issuer %.200q is none of the guard's own: only Quash's keys are exchanged", url)
	case url == "" || found.URL == url:
		return found, nil
	}
	tenant, _ := wire.TenantOf(found.URL, url)
	i := found.Issuer
	i.URL, i.Tenant, i.Tenants = url, tenant, false
	return named(i)
}

// below reports whether a URL is that of a tenant whose tokens are taken as those of
// an installation.
func below(iss *issuer, url string) bool {
	tenant, ok := wire.TenantOf(iss.URL, url)
	return ok && tenant != "" && iss.Tenants
}

// takes reports whether a text is an API key, in a guard that takes them. What only
// begins like one is too: it is refused as that.
func (x *exchanger) takes(text string) bool {
	switch {
	case x == nil:
		return false
	case strings.HasPrefix(text, keyform.Key.Prefix()):
		return true
	case x.cfg.Imported == nil || strings.HasPrefix(text, "eyJ"): // {" in base64url: a JWT
		return false
	}
	return x.cfg.Imported.MatchString(text)
}

// audience is what a token must be meant for to do what req asks for.
func (x *exchanger) audience(req *Requirement) []string {
	if len(req.Audience) > 0 && !req.AnyAudience {
		return req.Audience
	}
	return x.iss.Audience
}
