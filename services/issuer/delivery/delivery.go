// Package delivery seals the secret of a key to whoever owns it: with age (age-encryption.org/v1),
// to an X25519 recipient that they have registered. Whoever keeps or carries the sealed text can't
// read it, and only the owner's identity opens it.
package delivery

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"filippo.io/age"
	"filippo.io/age/armor"

	"github.com/quash-project/quash/shared/apikey"
)

// MaxRecipient is the longest text that ParseRecipient looks at, in bytes.
const MaxRecipient = 100

// MaxSealed is the longest sealed text that Open reads, in bytes.
const MaxSealed = 16 << 10

// Content is what is sealed: a secret, bound to what it is for, so that a text of another key, or
// of another tenant, is not taken for this one's. Printed it shows nothing.
type Content struct {
	Tenant   string    `json:"tenant"`
	ID       string    `json:"id"` // of the key whose secret it is
	Secret   string    `json:"secret"`
	Previous string    `json:"previous"` // the key whose place it takes
	Until    time.Time `json:"until"`    // the old one was to end then
}

// Format implements fmt.Formatter.
func (Content) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[redacted]") }

// ParseRecipient returns an age X25519 recipient as it is written, or says why a text is none. The
// error has nothing of the text in it but what kind of key it seems to be: it may be a private one.
func ParseRecipient(text string) (string, error) {
	r, err := parse(text)
	if err != nil {
		return "", err
	}
	return r.String(), nil
}

func parse(text string) (*age.X25519Recipient, error) {
	lower := strings.ToLower(text)
	switch {
	case text == "":
		return nil, errors.New("want an age recipient, as age1…; age-keygen makes one")
	case strings.HasPrefix(lower, "age-secret-key-"):
		return nil, errors.New("this is a private key: keep it, make another pair if anybody has seen it, and register its public half, age1…")
	case strings.HasPrefix(lower, "age1pq1"):
		return nil, errors.New("a post-quantum recipient is not taken: want an X25519 one, age1… of 62 characters, as age-keygen makes without -pq")
	case strings.HasPrefix(lower, "ssh-"):
		return nil, errors.New("an SSH key is not taken: want an age X25519 recipient, age1…; age-keygen makes one")
	case strings.HasPrefix(lower, "age1") && strings.LastIndexByte(lower, '1') > len("age"):
		return nil, errors.New("a recipient of a plugin, or a mistyped one, is not taken: want an X25519 one, age1… of 62 characters")
	case len(text) > MaxRecipient:
		return nil, fmt.Errorf("%d bytes: want an age X25519 recipient, age1… of 62 characters", len(text))
	}
	r, err := age.ParseX25519Recipient(text)
	if err != nil {
		return nil, errors.New("want an age X25519 recipient, age1… of 62 characters: this is cut short, mistyped, or something else")
	}
	// A point of low order is a recipient to which nothing can be sealed.
	if _, err := r.Wrap(make([]byte, 16)); err != nil {
		return nil, errors.New("nothing can be sealed to this recipient: want one that age-keygen has made")
	}
	return r, nil
}

// Seal returns c sealed to a recipient, in age's armor.
func Seal(recipient string, c Content) (string, error) {
	r, err := parse(recipient)
	if err != nil {
		return "", fmt.Errorf("recipient: %w", err)
	}
	text, err := json.Marshal(c)
	if err != nil {
		return "", err
	}
	var out bytes.Buffer
	armored := armor.NewWriter(&out)
	w, err := age.Encrypt(armored, r)
	if err != nil {
		return "", err
	}
	_, err = w.Write(text)
	if err := errors.Join(err, w.Close(), armored.Close()); err != nil {
		return "", err
	}
	return out.String(), nil
}

// Open opens what Seal has sealed. The errors tell nothing of what is inside.
func Open(text string, with ...age.Identity) (Content, error) {
	if len(text) > MaxSealed {
		return Content{}, fmt.Errorf("a sealed secret of %d bytes: want %d at most", len(text), MaxSealed)
	}
	r, err := age.Decrypt(armor.NewReader(strings.NewReader(text)), with...)
	var none *age.NoIdentityMatchError
	switch {
	case errors.As(err, &none):
		return Content{}, errors.New("it is sealed to another recipient: none of these identities opens it")
	case err != nil:
		return Content{}, fmt.Errorf("not a sealed secret, or damaged: %w", err)
	}
	plain, err := io.ReadAll(io.LimitReader(r, MaxSealed))
	if err != nil {
		return Content{}, errors.New("the sealed secret is damaged")
	}
	var c Content
	if err := json.Unmarshal(plain, &c); err != nil {
		return Content{}, errors.New("what is sealed is no secret of a key")
	}
	if _, err := apikey.Parse(c.Secret); err != nil || apikey.ID(c.Secret) != c.ID {
		return Content{}, errors.New("what is sealed is not the secret of the key that it names")
	}
	return c, nil
}
