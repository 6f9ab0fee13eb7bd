package guard

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// Require returns a Requirement of all these conditions. What else a Requirement
// can ask for (a smaller staleness, another audience) is set on it.
//
//	guard.Require(guard.Scopes("orders:read"), guard.Any(guard.AnyRole("support"), guard.SubjectIs(guard.Path("user"))))
func Require(all ...Condition) Requirement { return Requirement{Where: All(all...)} }

// A Condition is something that is asked of a token. It is made by the functions
// of this package, and safe for concurrent use. A nil Condition within another is
// never met: what was forgotten refuses.
type Condition interface {
	// String says what is asked for, for people.
	String() string
	// alternatives returns what meets it, each by itself.
	alternatives() []Alternative
	// check returns nil if the token meets it.
	check(c *Claims, r Values) *fault
	// rank is the earliest check that can fail, by its place in rights.
	rank() int
}

// rights are the checks of what a token gives, in the order in which they are
// made and told.
var rights = [...]string{CheckScope, CheckRole, CheckCondition}

// Values are what conditions ask of a request; *http.Request is one.
type Values interface {
	// PathValue returns the value of a wildcard of the route, "" if there is none.
	PathValue(name string) string
}

// Alternative is one way to meet a Requirement: all of this together.
type Alternative struct {
	Scopes     []string // all of these
	Roles      []string // all of these
	Conditions []string // everything else, in words
}

// Alternatives returns every way to meet the requirement, for a document of the
// route: a token that meets one is let in. Each is one Security Requirement Object
// of OpenAPI. A Requirement that asks for nothing but a good token has one empty
// alternative; one that nothing can meet has none.
func (r Requirement) Alternatives() []Alternative { return r.condition().alternatives() }

// String says what the requirement asks for, for people.
func (r Requirement) String() string { return r.condition().String() }

// condition is everything that the requirement asks of what a token gives.
func (r Requirement) condition() Condition {
	var all []Condition
	if len(r.Scopes) > 0 {
		all = append(all, Scopes(r.Scopes...))
	}
	if len(r.AnyRole) > 0 {
		all = append(all, AnyRole(r.AnyRole...))
	}
	if r.Where != nil {
		all = append(all, r.Where)
	}
	return All(all...)
}

func lacking(check, reason string) *fault {
	return &fault{Deny, http.StatusForbidden, ErrorInsufficientScope, check, reason, 0}
}

// words is a condition about scopes or roles.
type words struct {
	role bool // about roles, not scopes
	any  bool // one of them is enough
	list []string
}

// Scopes is met by a token that has all of these scopes.
func Scopes(all ...string) Condition { return &words{list: slices.Clone(all)} }

// AnyScope is met by a token that has one of these scopes; of none, by no token.
func AnyScope(scopes ...string) Condition { return &words{any: true, list: slices.Clone(scopes)} }

// AnyRole is met by a token that has one of these roles; of none, by no token.
// Who wants several roles says All(AnyRole("a"), AnyRole("b")).
func AnyRole(roles ...string) Condition {
	return &words{role: true, any: true, list: slices.Clone(roles)}
}

func (w *words) check(c *Claims, _ Values) *fault {
	has := c.Scopes
	if w.role {
		has = c.Roles
	}
	if w.any {
		for _, one := range w.list {
			if slices.Contains(has, one) {
				return nil
			}
		}
		return lacking(rights[w.rank()], "the token has none of the "+w.name()+"s "+strings.Join(w.list, ", "))
	}
	for _, one := range w.list {
		if !slices.Contains(has, one) {
			return lacking(rights[w.rank()], "the token lacks the "+w.name()+" "+one)
		}
	}
	return nil
}

func (w *words) rank() int {
	if w.role {
		return slices.Index(rights[:], CheckRole)
	}
	return slices.Index(rights[:], CheckScope)
}

func (w *words) name() string {
	if w.role {
		return "role"
	}
	return "scope"
}

func (w *words) String() string {
	switch {
	case len(w.list) == 0 && w.any:
		return "never"
	case len(w.list) == 0:
		return "any token"
	case len(w.list) == 1:
		return w.name() + " " + w.list[0]
	case w.any:
		return "one of the " + w.name() + "s " + strings.Join(w.list, ", ")
	}
	return "the " + w.name() + "s " + strings.Join(w.list, ", ")
}

func (w *words) alternatives() []Alternative {
	if !w.any {
		return []Alternative{{Scopes: w.list}}
	}
	var list []Alternative
	for _, one := range w.list {
		if w.role {
			list = append(list, Alternative{Roles: []string{one}})
		} else {
			list = append(list, Alternative{Scopes: []string{one}})
		}
	}
	return list
}

// A Value is what a token's claim is compared with.
type Value struct {
	text string
	path bool // text names a value of the route's path
}

// Exactly is this text.
func Exactly(text string) Value { return Value{text: text} }

// Path is what stands in the request's path at a wildcard of the route
// (http.Request.PathValue). guardhttp.Require finds it if it is behind the mux: as
// part of the handler that is registered for the route.
func Path(wildcard string) Value { return Value{text: wildcard, path: true} }

func (v Value) String() string {
	if v.path {
		return "{" + v.text + "} of the path"
	}
	return v.text
}

// of returns the text, "" if the request has none.
func (v Value) of(r Values) string {
	switch {
	case !v.path:
		return v.text
	case r == nil:
		return ""
	}
	return r.PathValue(v.text)
}

// claim is a condition about one claim. An empty value meets nothing.
type claim struct {
	name string
	get  func(*Claims) string
	want Value
}

// SubjectIs is met by a token whose sub, the user or machine it speaks for, is
// this: SubjectIs(Path("user")) lets everybody to what is their own. Two issuers, or
// two tenants, can have a subject of the same name: where a guard takes tokens of
// several, ask for IssuerIs or TenantIs too.
func SubjectIs(v Value) Condition {
	return &claim{"subject", func(c *Claims) string { return c.Subject }, v}
}

// ClientIs is met by a token that was issued to this client.
func ClientIs(v Value) Condition {
	return &claim{"client", func(c *Claims) string { return c.ClientID }, v}
}

// TenantIs is met by a token of this tenant.
func TenantIs(v Value) Condition {
	return &claim{"tenant", func(c *Claims) string { return c.Tenant }, v}
}

// IssuerIs is met by a token of the issuer with this URL.
func IssuerIs(v Value) Condition {
	return &claim{"issuer", func(c *Claims) string { return c.Issuer }, v}
}

func (m *claim) check(c *Claims, r Values) *fault {
	if want := m.want.of(r); want != "" && want == m.get(c) {
		return nil
	}
	return lacking(CheckCondition, "the token's "+m.name+" is not "+m.want.String())
}

func (m *claim) rank() int { return len(rights) - 1 }

func (m *claim) String() string { return m.name + " is " + m.want.String() }

func (m *claim) alternatives() []Alternative {
	return []Alternative{{Conditions: []string{m.String()}}}
}

// custom is a condition of the application's own.
type custom struct {
	says string
	met  func(*Claims) error
}

// Custom is a condition of one's own, says being what it asks for. It is met if
// met returns nil; the text of its error is told to the caller of the API. It must
// be quick: it is asked in each decision, also of tokens that were seen before.
func Custom(says string, met func(*Claims) error) Condition { return &custom{says, met} }

func (m *custom) check(c *Claims, _ Values) *fault {
	if m.met == nil {
		return lacking(CheckCondition, "nothing meets this: "+m.says)
	}
	if err := m.met(c); err != nil {
		return lacking(CheckCondition, fmt.Sprintf("%s: %v", m.says, err))
	}
	return nil
}

func (m *custom) rank() int { return len(rights) - 1 }

func (m *custom) String() string { return m.says }

func (m *custom) alternatives() []Alternative {
	return []Alternative{{Conditions: []string{m.says}}}
}
