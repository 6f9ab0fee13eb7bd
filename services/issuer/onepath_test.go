package issuer_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/quash-project/quash/services/issuer"
)

// How long a look-up takes must not tell what there is. So whatever is shown is looked for
// in the same way: once, by one key of one table, and whatever is no good has one answer.
func TestLookUpsOfSecretsTakeOnePath(t *testing.T) {
	b, _ := ruled(t)
	ctx := t.Context()
	good, secret := b.key(t, issuer.NewKey{})
	k, ended := b.key(t, issuer.NewKey{})
	must(t, 0, errOf(b.DeleteKey(ctx, operator(), k.ID, "test")))
	k, disabled := b.key(t, issuer.NewKey{})
	must(t, 0, errOf(b.DisableKey(ctx, operator(), k.ID, "test")))
	_, elsewhere := b.key(t, issuer.NewKey{Networks: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}})
	must(t, 0, errOf(b.CreateTenant(ctx, operator(), "acme", issuer.Limits{}, "test")))
	_, other, err := b.CreateAdmin(ctx, operator(), "acme", time.Hour, "test")
	must(t, 0, err)

	var looked int
	b.keys.onGet = func() { looked++ }
	exchange := func(shown string) (int, string) {
		looked = 0
		_, err := b.Exchange(ctx, issuer.TokenRequest{APIKey: shown, Client: issuer.ClientAuth{From: netip.MustParseAddr("192.0.2.1")}})
		if err == nil {
			return looked, "a token"
		}
		return looked, err.Error()
	}
	if n, got := exchange(secret); n != 1 || got != "a token" {
		t.Fatalf("the good key %s: %d look-ups, %s", good.ID, n, got)
	}
	_, want := exchange("quash_key_unknown")
	for name, shown := range map[string]string{
		"nothing": "", "cut short": secret[:len(secret)-1], "lengthened": secret + "A", "in another case": swapped(secret),
		"of an imported form": "sk_live_4eC39HqLyjWDarjtT1zdp7dc", "ended": ended, "disabled": disabled,
		"for another network": elsewhere, "of another tenant": other.Reveal(), "with a digit of another script": secret[:len(secret)-1] + "\u0661",
	} {
		if n, got := exchange(shown); n != 1 || got != want {
			t.Errorf("a key %s: %d look-ups, %q; want one, and %q", name, n, got, want)
		}
	}
}

func swapped(s string) string {
	out := []byte(s)
	for i, c := range out {
		if c >= 'a' && c <= 'z' && i > 12 {
			out[i] = c - 'a' + 'A'
		}
	}
	return string(out)
}
