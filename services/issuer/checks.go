package issuer

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/problem"
	"github.com/quash-project/quash/shared/rights"
)

// Limits of records.
const (
	maxScopes    = 100
	maxAudiences = 20
	maxText      = 200
	maxAudience  = 500
	maxLabels    = 20
	maxLabel     = 63                // of a name and of a value, as with the labels of Kubernetes
	maxOwner     = revoke.MaxID - 32 // so that its grants and bindings are targets too
)

func (s *Service) checkTenant(c Caller) error {
	if c.Tenant != s.cfg.Tenant {
		return problem.New(problem.Forbidden, "this issuer serves the tenant %q, and the token is of another", s.cfg.Tenant)
	}
	if c.Actor == "" {
		return problem.New(problem.Unauthorized, "every change needs an actor")
	}
	return nil
}

// checkPrincipal wants what can be the name of a principal.
func checkPrincipal(field, id string) error {
	if err := revoke.CheckID(field, id); err != nil {
		return problem.FieldError(field, "%v", err)
	}
	if err := problem.NoSecret(field, id); err != nil {
		return err
	}
	if reserved(id) {
		return problem.FieldError(field, "a principal may not begin with %s or %s: those are clients", KeyClientPrefix, ClientPrefix)
	}
	if n := len(revoke.PairID(id, "")); n > maxOwner {
		return problem.FieldError(field, "it has %d bytes (a '/' or '%%' counts as 3): %d at most, so that its grants and bindings can be revoked", n, maxOwner)
	}
	return nil
}

func checkText(field, text string, empty bool) error {
	if text == "" && empty {
		return nil
	}
	if err := revoke.CheckID(field, text); err != nil {
		return problem.FieldError(field, "%v", err)
	}
	if len(text) > maxText {
		return problem.FieldError(field, "it has %d bytes: %d at most", len(text), maxText)
	}
	return problem.NoSecret(field, text)
}

// checkLabels wants what can be written as name=value, in a query too.
func checkLabels(labels map[string]string) error {
	if len(labels) > maxLabels {
		return problem.FieldError("labels", "%d labels: %d at most", len(labels), maxLabels)
	}
	for name, value := range labels {
		if err := CheckLabel(name, value); err != nil {
			return problem.FieldError("labels", "%v", err)
		}
	}
	return nil
}

// CheckLabel tells whether a label can have this name and value.
func CheckLabel(name, value string) error {
	plain := func(s string) bool {
		for i := 0; i < len(s); i++ {
			c := s[i]
			if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || i > 0 && strings.IndexByte("._/-", c) >= 0 {
				continue
			}
			return false
		}
		return len(s) <= maxLabel
	}
	if name == "" || !plain(name) {
		return fmt.Errorf("label %.80q: want 1 to %d letters, digits and . _ / -, beginning with a letter or digit", name, maxLabel)
	}
	if !plain(value) {
		return fmt.Errorf("label %s has the value %.80q: want at most %d letters, digits and . _ / -", name, value, maxLabel)
	}
	return errors.Join(problem.NoSecret("label", name), problem.NoSecret("label", value))
}

// checkScopes tells whether the caller may give these.
func checkScopes(c Caller, scopes []string) error {
	if len(scopes) > maxScopes {
		return problem.FieldError("scopes", "%d scopes: %d at most", len(scopes), maxScopes)
	}
	for _, sc := range scopes {
		if err := rights.CheckScope(sc); err != nil {
			return problem.FieldError("scopes", "%v", err)
		}
		if err := problem.NoSecret("scopes", sc); err != nil {
			return err
		}
		if !rights.Known(sc) {
			return problem.FieldError("scopes", "%.80q: scopes that begin with %s are Quash's own, and there is no such one", sc, rights.Prefix)
		}
	}
	if lacking := rights.Lacking(c.Scopes, scopes); len(lacking) > 0 {
		return forbidden("scopes", lacking)
	}
	return nil
}

func forbidden(field string, lacking []string) error {
	e := problem.New(problem.Forbidden, "of Quash's own scopes one can give only those that one holds; lacking: %s", strings.Join(lacking, " "))
	e.Field = field
	return e
}

// checkAudiences wants what can be a resource indicator: RFC 8707, 2: "an
// absolute URI [...] MUST NOT include a fragment component".
func checkAudiences(field string, as []string) error {
	if len(as) > maxAudiences {
		return problem.FieldError(field, "%d of them: %d at most", len(as), maxAudiences)
	}
	for _, a := range as {
		if !IsResource(a) {
			return problem.FieldError(field, "%.80q: want an absolute URI without a fragment", a)
		}
		if err := problem.NoSecret(field, a); err != nil {
			return err
		}
	}
	return nil
}

// IsResource reports whether a text can be a resource indicator.
func IsResource(a string) bool {
	u, err := url.Parse(a)
	return err == nil && u.IsAbs() && !strings.Contains(a, "#") && len(a) <= maxAudience && revoke.CheckID("audience", a) == nil
}

// checkRoleName wants what can be written as a target and in a path as it is.
func checkRoleName(field, name string) error {
	ok := name != "" && len(name) <= 64
	for i := 0; ok && i < len(name); i++ {
		c := name[i]
		ok = c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || i > 0 && strings.IndexByte("._:-", c) >= 0
	}
	if !ok {
		return problem.FieldError(field, "role name %.80q: want 1 to 64 letters, digits and . _ : -, beginning with a letter or digit", name)
	}
	return problem.NoSecret(field, name)
}

// notFoundField turns NotFound into a fault of a member of the request.
func notFoundField(err error, field, format string, args ...any) error {
	if problem.KindOf(err) == problem.NotFound {
		return problem.FieldError(field, format, args...)
	}
	return err
}
