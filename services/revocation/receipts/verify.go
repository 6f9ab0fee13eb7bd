package receipts

import (
	"encoding/json"
	"fmt"

	"github.com/quash-project/quash/services/revocation/proof"
)

// Verify checks a receipt by a kept key set and returns what it states. Nobody needs
// to be asked for it.
func Verify(jws string, keys proof.KeySet) (Statement, proof.Signed, error) {
	signed, err := proof.Verify(jws, Type, keys)
	if err != nil {
		return Statement{}, signed, err
	}
	var s Statement
	if err := json.Unmarshal(signed.Payload, &s); err != nil {
		return Statement{}, signed, fmt.Errorf("%w: %w", proof.ErrForm, err)
	}
	if s.Version != Version {
		return Statement{}, signed, fmt.Errorf("the receipt has the form %d, and this quash knows %d: verify it with a newer one", s.Version, Version)
	}
	return s, signed, nil
}
