package guard_test

import (
	"errors"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/quash-project/quash/shared/guard"
	"github.com/quash-project/quash/shared/guard/guardtest"
)

// path is the path of a request, by wildcard.
type path map[string]string

func (p path) PathValue(name string) string { return p[name] }

func TestConditionsAreMetOrSayWhatLacks(t *testing.T) {
	q := guardtest.New(t)
	g := q.Guard()
	token := q.Token(guardtest.Token{
		Subject: "alice", ClientID: "app", Scopes: []string{"orders:read", "orders:list"}, Roles: []string{"viewer", "dev"},
	})
	small := guard.Custom("an order below 100", func(c *guard.Claims) error {
		if c.Subject == "alice" {
			return errors.New("it has 120")
		}
		return nil
	})
	own := guard.SubjectIs(guard.Path("user"))
	for _, c := range []struct {
		want   guard.Condition
		check  string // "" if it is met
		reason string
	}{
		{guard.Scopes("orders:read", "orders:list"), "", ""},
		{guard.Scopes(), "", ""},
		{guard.Scopes("orders:read", "orders:write"), guard.CheckScope, "the token lacks the scope orders:write"},
		{guard.AnyScope("orders:write", "orders:read"), "", ""},
		{guard.AnyScope("orders:write", "admin"), guard.CheckScope, "the token has none of the scopes orders:write, admin"},
		{guard.AnyScope(), guard.CheckScope, "the token has none of the scopes "},
		{guard.AnyRole("admin", "dev"), "", ""},
		{guard.AnyRole("admin"), guard.CheckRole, "the token has none of the roles admin"},
		{guard.AnyRole(), guard.CheckRole, "the token has none of the roles "},
		{guard.AnyRole("Dev"), guard.CheckRole, "the token has none of the roles Dev"},
		{own, "", ""},
		{guard.SubjectIs(guard.Path("other")), guard.CheckCondition, "the token's subject is not {other} of the path"},
		{guard.SubjectIs(guard.Path("missing")), guard.CheckCondition, "the token's subject is not {missing} of the path"},
		{guard.SubjectIs(guard.Exactly("alice")), "", ""},
		{guard.SubjectIs(guard.Exactly("")), guard.CheckCondition, "the token's subject is not "},
		{guard.ClientIs(guard.Exactly("app")), "", ""},
		{guard.ClientIs(guard.Exactly("other")), guard.CheckCondition, "the token's client is not other"},
		{guard.TenantIs(guard.Exactly("default")), "", ""},
		{guard.TenantIs(guard.Path("tenant")), guard.CheckCondition, "the token's tenant is not {tenant} of the path"},
		{guard.IssuerIs(guard.Exactly(guardtest.URL)), "", ""},
		{guard.IssuerIs(guard.Exactly("https://other")), guard.CheckCondition, "the token's issuer is not https://other"},
		{small, guard.CheckCondition, "an order below 100: it has 120"},
		{guard.Custom("forgotten", nil), guard.CheckCondition, "nothing meets this: forgotten"},
		{guard.All(), "", ""},
		{guard.All(own, nil), guard.CheckScope, "the token has none of the scopes "},
		{guard.Any(), guard.CheckCondition, "no token can do this"},
		{guard.Any(nil), guard.CheckScope, "the token has none of the scopes "},
		{guard.Any(guard.AnyRole("admin"), own), "", ""},
		{guard.Any(guard.AnyRole("admin"), small), guard.CheckRole, "the token has none of the roles admin; and an order below 100: it has 120"},
		// What lacks is told in the order of the checks: scopes first.
		{guard.All(small, guard.AnyRole("admin"), guard.Scopes("x")), guard.CheckScope, "the token lacks the scope x"},
		{guard.All(small, guard.All(own, guard.AnyRole("admin"))), guard.CheckRole, "the token has none of the roles admin"},
		{guard.Any(guard.All(guard.Scopes("x"), own), guard.All(guard.Scopes("orders:read"), own)), "", ""},
	} {
		req := guard.Require(c.want)
		req.Request = path{"user": "alice", "other": "bob", "tenant": "acme"}
		d := decide(g, token, req)
		if c.check == "" {
			wantAllow(t, d)
		} else if wantDeny(t, d, http.StatusForbidden, c.check); d.Error != guard.ErrorInsufficientScope || d.Reason != c.reason || d.Token == nil {
			t.Errorf("%s: %q, want %q", c.want, d.Reason, c.reason)
		}
		e := g.Explain(t.Context(), token, req)
		if e.Decision.Check != c.check {
			t.Errorf("%s: explained as %q", c.want, e.Decision.Check)
		}
		for i, r := range e.Checks {
			if last := i == len(e.Checks)-1; r.OK == (last && c.check != "") || last && c.check != "" && r.Check != c.check {
				t.Errorf("%s: check %+v of %+v", c.want, r, e.Checks)
			}
		}
	}
}

// TestWhatIsMissingIsEqualToNothing: not even to what is missing, too.
func TestWhatIsMissingIsEqualToNothing(t *testing.T) {
	q, p := guardtest.New(t), newProvider(t)
	g := q.Start([]guard.Issuer{q.Issuer(), p.issuer()}, guard.WithFollow(q.Follow()))
	q.WaitReady(g)
	token := p.token(q.Now(), map[string]any{"azp": nil})
	wantAllow(t, decide(g, token, read))
	for _, v := range []guard.Value{guard.Exactly(""), guard.Path("client"), {}} {
		wantDeny(t, decide(g, token, guard.Require(guard.ClientIs(v))), http.StatusForbidden, guard.CheckCondition)
	}
}

// TestConditionsDoNotReplaceOtherChecks: they are asked last, of a good token.
func TestConditionsDoNotReplaceOtherChecks(t *testing.T) {
	q := guardtest.New(t)
	g := q.Guard()
	asked := 0
	req := guard.Require(guard.Custom("asked", func(*guard.Claims) error { asked++; return nil }))
	token := q.Token(guardtest.Token{Subject: "bob"})
	wantAllow(t, decide(g, token, req))
	wantAllow(t, decide(g, token, req)) // also of a token that was seen before
	q.Revoke("principal:bob")
	wantDeny(t, decide(g, token, req), http.StatusUnauthorized, guard.CheckTargets)
	if asked != 2 {
		t.Errorf("asked %d times, want 2", asked)
	}
	// The fields of a Requirement go before its conditions.
	req = guard.Require(guard.SubjectIs(guard.Exactly("carol")), guard.Scopes("y"))
	req.Scopes, req.AnyRole = []string{"x"}, []string{"dev"}
	token = q.Token(guardtest.Token{Subject: "carol", Scopes: []string{"x"}})
	wantDeny(t, decide(g, q.Token(guardtest.Token{}), req), http.StatusForbidden, guard.CheckScope)
	wantDeny(t, decide(g, token, req), http.StatusForbidden, guard.CheckScope)
	token = q.Token(guardtest.Token{Subject: "carol", Scopes: []string{"x", "y"}})
	wantDeny(t, decide(g, token, req), http.StatusForbidden, guard.CheckRole)
}

func TestRequirementDescribesItself(t *testing.T) {
	own := guard.SubjectIs(guard.Path("user"))
	for _, c := range []struct {
		req  guard.Requirement
		says string
		want []guard.Alternative
	}{
		{guard.Requirement{}, "any token", []guard.Alternative{{}}},
		{guard.Require(), "any token", []guard.Alternative{{}}},
		{guard.Require(nil), "never", nil},
		{guard.Require(guard.Any()), "never", nil},
		{guard.Requirement{Scopes: []string{"a", "b"}}, "the scopes a, b", []guard.Alternative{{Scopes: []string{"a", "b"}}}},
		{
			guard.Requirement{Scopes: []string{"a"}, AnyRole: []string{"r", "s"}},
			"scope a and one of the roles r, s",
			[]guard.Alternative{{Scopes: []string{"a"}, Roles: []string{"r"}}, {Scopes: []string{"a"}, Roles: []string{"s"}}},
		},
		{
			guard.Require(guard.Scopes("a"), guard.Any(own, guard.AnyScope("a", "b"))),
			"scope a and (subject is {user} of the path or one of the scopes a, b)",
			[]guard.Alternative{
				{Scopes: []string{"a"}, Conditions: []string{"subject is {user} of the path"}},
				{Scopes: []string{"a"}},
				{Scopes: []string{"a", "b"}},
			},
		},
	} {
		if got := c.req.String(); got != c.says {
			t.Errorf("says %q, want %q", got, c.says)
		}
		got := c.req.Alternatives()
		for i := range got { // empty or nil is the same here
			got[i] = guard.Alternative{Scopes: some(got[i].Scopes), Roles: some(got[i].Roles), Conditions: some(got[i].Conditions)}
		}
		if len(got) != len(c.want) || len(got) > 0 && !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, want %+v", c.says, got, c.want)
		}
	}
}

func some(list []string) []string {
	if len(list) == 0 {
		return nil
	}
	return list
}

func TestSecretWhereATokenBelongsIsNamed(t *testing.T) {
	q := guardtest.New(t)
	d := decide(q.Guard(), q.APIKey(guardtest.Token{}), guard.Requirement{})
	if wantDeny(t, d, http.StatusUnauthorized, guard.CheckForm); !strings.Contains(d.Reason, "exchange an API key") {
		t.Errorf("reason %q", d.Reason)
	}
	if q.Exchanges() != 0 {
		t.Error("a guard without WithExchange has exchanged a key")
	}
}
