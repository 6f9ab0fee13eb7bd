package audit

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// Checkpoint is what a trail was at some time. Its text is that of a C2SP
// tlog-checkpoint: the origin, how many pages there were, and the digest of the last of
// them, which is over the page and by it over all before (a chain, and no tree).
type Checkpoint struct {
	Origin string
	Size   uint64 // pages; from 1
	Root   Digest // of the page with that number
}

// CheckpointOf returns the checkpoint of a trail whose last page this is.
func CheckpointOf(origin string, last Stored) Checkpoint {
	return Checkpoint{Origin: origin, Size: last.Number, Root: sha256.Sum256(last.Body)}
}

// maxCheckpoint is the longest text of one with its signatures.
const maxCheckpoint = 64 << 10

// MarshalText implements encoding.TextMarshaler.
func (c Checkpoint) MarshalText() ([]byte, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, "%s\n%d\n%s\n", c.Origin, c.Size, base64.StdEncoding.EncodeToString(c.Root[:])), nil
}

func (c Checkpoint) check() error {
	if c.Origin == "" || strings.ContainsFunc(c.Origin, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return fmt.Errorf("checkpoint: its origin %.80q is no line of text", c.Origin)
	}
	if c.Size == 0 {
		return fmt.Errorf("checkpoint: it is of no page")
	}
	return nil
}

// UnmarshalText implements encoding.TextUnmarshaler. Lines after the third are
// extensions, which readers pass over (C2SP tlog-checkpoint, "Note text").
func (c *Checkpoint) UnmarshalText(text []byte) error {
	lines := strings.Split(string(text), "\n")
	if len(lines) < 4 || lines[len(lines)-1] != "" {
		return fmt.Errorf("checkpoint: want an origin, a size and a digest, each on a line of its own")
	}
	for _, extension := range lines[3 : len(lines)-1] {
		if extension == "" {
			return fmt.Errorf("checkpoint: it has an empty line")
		}
	}
	var out Checkpoint
	var err error
	out.Origin = lines[0]
	// One spelling alone: what is signed is the text.
	if out.Size, err = strconv.ParseUint(lines[1], 10, 64); err != nil || strconv.FormatUint(out.Size, 10) != lines[1] {
		return fmt.Errorf("checkpoint: its size %.40q is no number of pages", lines[1])
	}
	root, err := base64.StdEncoding.Strict().DecodeString(lines[2])
	if err != nil || len(root) != len(out.Root) {
		return fmt.Errorf("checkpoint: its digest %.60q is no SHA-256 in base64", lines[2])
	}
	copy(out.Root[:], root)
	if err := out.check(); err != nil {
		return err
	}
	*c = out
	return nil
}

// Sign returns the checkpoint as a signed note (C2SP signed-note).
func (c Checkpoint) Sign(by note.Signer) ([]byte, error) {
	text, err := c.MarshalText()
	if err != nil {
		return nil, err
	}
	return note.Sign(&note.Note{Text: string(text)}, by)
}

// OpenCheckpoint reads a signed note that one of these has signed.
func OpenCheckpoint(signed []byte, known note.Verifiers) (Checkpoint, error) {
	if len(signed) > maxCheckpoint {
		return Checkpoint{}, fmt.Errorf("checkpoint: it has %d bytes: %d at most", len(signed), maxCheckpoint)
	}
	n, err := note.Open(signed, known)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("checkpoint: %w", err)
	}
	var c Checkpoint
	return c, c.UnmarshalText([]byte(n.Text))
}
