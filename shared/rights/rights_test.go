package rights

import (
	"slices"
	"strings"
	"testing"
)

func TestFixedRolesHoldOnlyKnownScopes(t *testing.T) {
	for _, r := range Roles(true) {
		for _, s := range r.Scopes {
			if !slices.Contains(All(), s) {
				t.Errorf("role %s has %q, which is not in All", r.Name, s)
			}
		}
	}
}

func TestAuditorReadsAndNothingElse(t *testing.T) {
	for _, r := range Roles(true) {
		if r.Name != Auditor {
			continue
		}
		for _, s := range All() {
			if got, want := slices.Contains(r.Scopes, s), strings.HasSuffix(s, ":read"); got != want {
				t.Errorf("auditor has %s: %v, want %v", s, got, want)
			}
		}
	}
}

func TestOwnScopesAreGivenByTheirHoldersOnly(t *testing.T) {
	got := Lacking([]string{KeysWrite, KeysRead}, []string{"orders:read", KeysRead, Revoke, Revoke, "quash:nonsense"})
	if want := []string{Revoke, "quash:nonsense"}; !slices.Equal(got, want) {
		t.Errorf("Lacking = %q, want %q", got, want)
	}
	if Known("quash:nonsense") || !Known("orders:read") || !Known(Revoke) {
		t.Error("Known is wrong")
	}
}

func FuzzParseScopes(f *testing.F) {
	for _, s := range []string{"", "a", "a b", "a  b", " a", "a a", "quash:revoke orders:read", "\"", "ü"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		scopes, err := ParseScopes(text)
		if err != nil {
			return
		}
		again, err := ParseScopes(strings.Join(scopes, " "))
		if err != nil || !slices.Equal(again, scopes) {
			t.Errorf("%q gave %q, which gives %q, %v", text, scopes, again, err)
		}
		for i, s := range scopes {
			if CheckScope(s) != nil || slices.Index(scopes, s) != i {
				t.Errorf("%q gave %q", text, scopes)
			}
		}
	})
}
