package rotator

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"

	"github.com/quash-project/quash/shared/seal"
)

const identityBlock = "PRIVATE KEY"

// CreateIdentity makes the rotator's identity key in a new file of mode 0600;
// one that is there already is left alone, and the error is fs.ErrExist. Every
// guard has its public half in its configuration (signing.TrustString): it says
// which signing keys to believe.
func CreateIdentity(path string, rand io.Reader) (ed25519.PublicKey, error) {
	pub, private, err := ed25519.GenerateKey(rand)
	if err != nil {
		return nil, fmt.Errorf("make the rotator's identity key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, fmt.Errorf("make the rotator's identity key: %w", err)
	}
	if err := seal.WriteSecretFile(path, pem.EncodeToMemory(&pem.Block{Type: identityBlock, Bytes: der})); err != nil {
		return nil, fmt.Errorf("the rotator's identity key: %w", err)
	}
	return pub, nil
}

// LoadIdentity reads what CreateIdentity wrote. It refuses a file that others
// can read.
func LoadIdentity(path string) (ed25519.PrivateKey, error) {
	data, err := seal.ReadSecretFile(path)
	if err != nil {
		return nil, fmt.Errorf("the rotator's identity key: %w", err)
	}
	block, _ := pem.Decode(data)
	clear(data)
	if block == nil || block.Type != identityBlock {
		return nil, fmt.Errorf("the rotator's identity key: %s holds no PEM block %q", path, identityBlock)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	clear(block.Bytes)
	private, ok := key.(ed25519.PrivateKey)
	if err != nil || !ok {
		return nil, fmt.Errorf("the rotator's identity key: %s holds no Ed25519 key in PKCS #8", path)
	}
	return private, nil
}
