package proof

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"

	"golang.org/x/mod/sumdb/note"
)

// NoteSigner returns the key that signs now as one that signs notes under a name (C2SP
// signed-note).
func (k *Keys) NoteSigner(ctx context.Context, name string) (note.Signer, error) {
	_, private, err := k.Signer(ctx)
	if err != nil {
		return nil, err
	}
	public, ok := private.Public().(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("the proof key is a %T: notes are signed by Ed25519 keys", private.Public())
	}
	v, err := noteVerifier(name, public)
	if err != nil {
		return nil, err
	}
	return noteSigner{v, private}, nil
}

type noteSigner struct {
	note.Verifier
	private crypto.Signer
}

// Sign implements note.Signer.
func (s noteSigner) Sign(msg []byte) ([]byte, error) {
	return s.private.Sign(rand.Reader, msg, crypto.Hash(0)) // RFC 8032: Ed25519 takes the message itself
}

// NoteVerifiers returns the keys of a set as those that verify notes under a name.
func (s KeySet) NoteVerifiers(name string) (note.Verifiers, error) {
	known := make([]note.Verifier, 0, len(s.Keys))
	for i := range s.Keys {
		public, err := s.Keys[i].Ed25519()
		if err != nil {
			return nil, err
		}
		v, err := noteVerifier(name, public)
		if err != nil {
			return nil, err
		}
		known = append(known, v)
	}
	return note.VerifierList(known...), nil
}

func noteVerifier(name string, public ed25519.PublicKey) (note.Verifier, error) {
	text, err := note.NewEd25519VerifierKey(name, public)
	if err != nil {
		return nil, err
	}
	return note.NewVerifier(text)
}
