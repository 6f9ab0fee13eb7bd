package delivery

import (
	"crypto/rand"
	"fmt"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/quash-project/quash/shared/apikey"
)

func identity(t *testing.T) *age.X25519Identity {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func content(t *testing.T) Content {
	t.Helper()
	secret, err := apikey.Generate(rand.Reader, apikey.Key)
	if err != nil {
		t.Fatal(err)
	}
	return Content{Tenant: "default", ID: apikey.ID(secret.Reveal()), Secret: secret.Reveal(), Previous: "old", Until: time.Unix(1_800_000_000, 0).UTC()}
}

func TestOnlyTheOwnerOpensWhatIsSealed(t *testing.T) {
	owner, c := identity(t), content(t)
	text, err := Seal(owner.Recipient().String(), c)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(text, "-----BEGIN AGE ENCRYPTED FILE-----\n") || strings.Contains(text, c.Secret) || strings.Contains(text, c.ID) {
		t.Errorf("sealed: %s", text)
	}
	if got, err := Open(text, identity(t), owner); err != nil || got != c {
		t.Errorf("opened: %v", err)
	}
	if _, err := Open(text, identity(t)); err == nil || !strings.Contains(err.Error(), "another recipient") {
		t.Errorf("opened by another: %v", err)
	}
	for i := range text { // whatever is changed of it
		spoilt := []byte(text)
		spoilt[i] ^= 1
		if got, err := Open(string(spoilt), owner); err == nil && got != c {
			t.Fatalf("with byte %d changed it is taken", i)
		} else if err != nil && strings.Contains(err.Error(), c.Secret) {
			t.Fatalf("the error tells the secret")
		}
	}
	for name, text := range map[string]string{"nothing": "", "no age": "secret", "cut short": text[:len(text)/2], "too long": text + strings.Repeat("\n", MaxSealed)} {
		if _, err := Open(text, owner); err == nil {
			t.Errorf("%s: it is taken", name)
		}
	}
	if shown := fmt.Sprintf("%v %+v %#v %s", c, c, c, &c); strings.Contains(shown, c.Secret) {
		t.Errorf("printed it shows %s", shown)
	}
}

// What is sealed for one key is not taken for another's.
func TestWhatIsSealedIsHeldAgainstItsKey(t *testing.T) {
	owner := identity(t)
	for name, spoil := range map[string]func(c *Content){
		"the secret of another key": func(c *Content) { c.Secret = content(t).Secret },
		"no secret":                 func(c *Content) { c.Secret = "hunter2" },
		"another id":                func(c *Content) { c.ID = content(t).ID },
	} {
		c := content(t)
		spoil(&c)
		text, err := Seal(owner.Recipient().String(), c)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Open(text, owner); err == nil {
			t.Errorf("%s: it is taken", name)
		}
	}
}

func TestOnlyX25519RecipientsAreTaken(t *testing.T) {
	owner := identity(t)
	good := owner.Recipient().String()
	if got, err := ParseRecipient(good); err != nil || got != good {
		t.Errorf("%s: %v", got, err)
	}
	hybrid, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"":                                     "want an age recipient",
		owner.String():                         "private key",
		strings.ToLower(owner.String()):        "private key",
		hybrid.Recipient().String():            "post-quantum",
		hybrid.String():                        "private key",
		"age1yubikey1qwertz":                   "plugin",
		"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA": "SSH",
		good[:len(good)-1]:                     "cut short",
		good + "q":                             "cut short",
		good + " ":                             "cut short",
		" " + good:                             "cut short",
		strings.ToUpper(good):                  "cut short",
		"hunter2":                              "cut short",
		strings.Repeat("x", 5000):              "5000 bytes",
	} {
		_, err := ParseRecipient(text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v, want %q", text, err, want)
		}
		if err != nil && len(text) > 10 && strings.Contains(err.Error(), text[4:]) {
			t.Errorf("the error shows %.40q", text)
		}
	}
}

// A recipient of low order is well written, and nothing can be sealed to it.
func TestPointsOfLowOrderAreRefused(t *testing.T) {
	// The neutral element: 32 bytes of zeros, with bech32's checksum.
	const zero = "age1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq5cu47z"
	if _, err := age.ParseX25519Recipient(zero); err != nil {
		t.Fatal(err)
	}
	if _, err := ParseRecipient(zero); err == nil || !strings.Contains(err.Error(), "nothing can be sealed") {
		t.Errorf("%v", err)
	}
}
