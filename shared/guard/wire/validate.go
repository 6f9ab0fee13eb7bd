package wire

import (
	"encoding/json"
	"fmt"

	"github.com/quash-project/quash/shared/guard/revoke"
)

// MaxRecent is how many positions a reader may show as proof.
const MaxRecent = 64

// JSON returns the position as it travels.
func (p Position) JSON() PositionJSON {
	return PositionJSON{Epoch: p.Epoch, Sequence: p.Seq, ID: p.ID}
}

// MarshalJSON writes the whole position, as PositionJSON; without it the text
// form of the Stamp within would be taken, and the id lost.
func (p Position) MarshalJSON() ([]byte, error) { return json.Marshal(p.JSON()) }

// UnmarshalJSON reads a PositionJSON.
func (p *Position) UnmarshalJSON(data []byte) error {
	j, err := DecodeAnswer[PositionJSON](data)
	if err == nil {
		*p = j.Position()
	}
	return err
}

// Position is the inverse of Position.JSON.
func (p PositionJSON) Position() Position {
	return Position{Stamp: revoke.Stamp{Epoch: p.Epoch, Seq: p.Sequence}, ID: p.ID}
}

// Check tells whether this can be a position: all of it, or nothing of it.
func (p PositionJSON) Check() error {
	if p == (PositionJSON{}) {
		return nil
	}
	if p.Epoch == 0 || p.Epoch > MaxEpoch || p.Sequence == 0 {
		return fmt.Errorf("position %d.%d: out of range", p.Epoch, p.Sequence)
	}
	return CheckMessageID(p.ID)
}

func checkReader(instance string, at PositionJSON, recent []PositionJSON) error {
	if err := CheckInstance(instance); err != nil {
		return err
	}
	if err := at.Check(); err != nil {
		return fmt.Errorf("position: %w", err)
	}
	if len(recent) > MaxRecent {
		return fmt.Errorf("recent: %d positions, %d at most", len(recent), MaxRecent)
	}
	for i, p := range recent {
		err := p.Check()
		if err == nil && p.ID == "" {
			err = fmt.Errorf("no position")
		}
		if err != nil {
			return fmt.Errorf("recent %d: %w", i, err)
		}
	}
	return nil
}

// Check implements Checker.
func (r SyncRequest) Check() error { return checkReader(r.Instance, r.Position, r.Recent) }

// Check implements Checker.
func (r ProbeRequest) Check() error { return checkReader(r.Instance, r.Position, r.Recent) }

// Check implements Checker.
func (r Report) Check() error { return checkReader(r.Instance, r.Position, nil) }

// MaxHeard is the most that one HeardBatch passes on.
const MaxHeard = 1000

// Check implements Checker.
func (r HeardBatch) Check() error {
	if len(r.Heard) == 0 || len(r.Heard) > MaxHeard {
		return fmt.Errorf("heard: %d positions, want 1 to %d", len(r.Heard), MaxHeard)
	}
	for i, h := range r.Heard {
		err := checkReader(h.Instance, h.Position, nil)
		if !isName(h.Name, maxInstance) {
			err = fmt.Errorf("name %.70q: want 1 to %d of A-Z, a-z, 0-9, - and _", h.Name, maxInstance)
		}
		if err != nil {
			return fmt.Errorf("heard %d: %w", i, err)
		}
	}
	return nil
}

// Check implements Checker.
func (r OutRequest) Check() error { return CheckInstance(r.Instance) }

// Check implements Checker.
func (r JoinRequest) Check() error {
	if err := CheckInstance(r.Instance); err != nil {
		return err
	}
	return checkLimit(r.LimitMS, r.Past)
}

// Check implements Checker.
func (r PageRequest) Check() error {
	if err := CheckMessageID(r.Snapshot); err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	if r.Page < 0 || r.Page >= MaxPages {
		return fmt.Errorf("page %d: want 0 to %d", r.Page, MaxPages-1)
	}
	return nil
}
