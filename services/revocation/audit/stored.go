package audit

import (
	"encoding/json"
	"fmt"
	"time"
)

// Stored is a page as it is stored.
type Stored struct {
	Number uint64
	At     time.Time // by the broker's clock
	Body   []byte
}

// Page reads it.
func (s Stored) Page() (Page, error) {
	var p Page
	err := json.Unmarshal(s.Body, &p)
	if err == nil && p.Number != s.Number {
		err = fmt.Errorf("it says that it is page %d", p.Number)
	}
	if err != nil {
		return Page{}, &Broken{s.Number, err.Error()}
	}
	return p, nil
}

// Upto tells where the sources stand after it; of no page, at their beginning.
func (s Stored) Upto() (map[string]Place, error) {
	if s.Number == 0 {
		return map[string]Place{}, nil
	}
	p, err := s.Page()
	return p.Upto, err
}

// Behind says that a trail does not have everything yet that there is.
type Behind struct {
	Source     string
	Upto, Head uint64
}

func (b *Behind) Error() string {
	return fmt.Sprintf("the audit trail has read %s up to %d, and that ends at %d", b.Source, b.Upto, b.Head)
}
