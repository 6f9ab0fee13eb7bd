package seal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"
)

// KEK is a key-encryption key from a file: a Tink keyset, so that it can be
// rotated (add a key, make it primary, keep the old one for what it sealed).
type KEK struct {
	tink.AEAD
	ids map[uint32]bool
}

// CreateKEK makes a key-encryption key in a new file of mode 0600; a file that
// is there already is left alone, and the error is fs.ErrExist. The keyset lies
// there in the clear: the file's mode is what protects it. Keep a copy apart:
// without it the sealed keys are lost, and new ones have to be made.
func CreateKEK(path string) error {
	h, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	if err != nil {
		return fmt.Errorf("make a key-encryption key: %w", err)
	}
	var buf bytes.Buffer
	if err := insecurecleartextkeyset.Write(h, keyset.NewJSONWriter(&buf)); err != nil {
		return fmt.Errorf("make a key-encryption key: %w", err)
	}
	buf.WriteByte('\n')
	return WriteSecretFile(path, buf.Bytes())
}

// LoadKEK reads what CreateKEK wrote. It refuses a file that others can read.
func LoadKEK(path string) (*KEK, error) {
	data, err := ReadSecretFile(path)
	if err != nil {
		return nil, fmt.Errorf("key-encryption key: %w", err)
	}
	h, err := insecurecleartextkeyset.Read(keyset.NewJSONReader(bytes.NewReader(data)))
	clear(data)
	if err != nil {
		// Not %w: an error about the content could quote it.
		return nil, fmt.Errorf("key-encryption key %s: this is no Tink keyset in JSON", path)
	}
	a, err := aead.New(h)
	if err != nil {
		return nil, fmt.Errorf("key-encryption key %s: the keyset is not one for AEAD", path)
	}
	k := &KEK{AEAD: a, ids: map[uint32]bool{}}
	for i := range h.Len() {
		e, err := h.Entry(i)
		if err != nil {
			return nil, fmt.Errorf("key-encryption key %s: %w", path, err)
		}
		k.ids[e.KeyID()] = true
	}
	return k, nil
}

// holds tells from the prefix of a ciphertext (Tink's wire format: 1, key id)
// whether it can be ours, for an error that says what to do.
func (k *KEK) holds(ciphertext []byte) error {
	const tinkVersion = 1
	if len(ciphertext) < 5 || ciphertext[0] != tinkVersion {
		return ErrTampered
	}
	if id := binary.BigEndian.Uint32(ciphertext[1:5]); !k.ids[id] {
		return fmt.Errorf("%w (its id is %d): give the file that it was made with", ErrWrongKEK, id)
	}
	return nil
}

// WriteSecretFile writes a new file of mode 0600, complete and synced before
// it appears under its name. One that is there already is left alone.
func WriteSecretFile(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".secret-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) //nolint:errcheck // gone already or harmless: mode 0600
	_, err = f.Write(data)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	// Link refuses a name that is taken; Rename would replace it.
	if err := os.Link(f.Name(), path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// ReadSecretFile reads a file that only its owner can read, and refuses an
// empty one and one that others can read.
func ReadSecretFile(path string) ([]byte, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if m := st.Mode().Perm(); m&0o077 != 0 {
		return nil, fmt.Errorf("%s has mode %04o and holds a secret: chmod 600 it", path, m)
	}
	data, err := os.ReadFile(path)
	if err == nil && len(data) == 0 {
		err = fmt.Errorf("%s is empty", path)
	}
	return data, err
}
