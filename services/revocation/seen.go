package revocation

import (
	"context"
	"time"

	"github.com/quash-project/quash/services/revocation/fleet"
	"github.com/quash-project/quash/shared/guard/revoke"
)

// Memories asks guards whether they have accepted, in the last day, a token to which any
// of the targets belongs. It is answered by instance; who has not said is missing.
type Memories interface {
	Seen(ctx context.Context, targets []revoke.Key, of []fleet.Guard) (map[string]Remembered, error)
}

// Remembered is what one guard has said.
type Remembered struct {
	// Seen may be true wrongly, as likely as WrongPPM says in millionths, and is never
	// false wrongly.
	Seen     bool
	WrongPPM int64
	// Since is from when on the guard remembers, by the clock of this service.
	Since time.Time
}

// seenWithin bounds how long a preview waits for what guards remember.
const seenWithin = 500 * time.Millisecond

// askSeen asks the guards what they remember, beside whatever else is done; the answer is
// fetched by calling what it returns.
func (s *Service) askSeen(ctx context.Context, targets []revoke.Key, of []fleet.Guard) func() (said map[string]Remembered, asked bool) {
	if s.Memories == nil {
		return func() (map[string]Remembered, bool) { return nil, false }
	}
	ctx, cancel := context.WithTimeout(ctx, seenWithin)
	done := make(chan struct{})
	var said map[string]Remembered
	var err error
	go func() {
		defer close(done)
		said, err = s.Memories.Seen(ctx, targets, of)
	}()
	return func() (map[string]Remembered, bool) {
		defer cancel()
		<-done
		return said, err == nil
	}
}
