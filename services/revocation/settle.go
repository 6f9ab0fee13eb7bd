package revocation

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/problem"
)

// finish commits what was approved, and notes where it stands. What was asked for by another
// way meanwhile under the same key has the same entry.
func (s *Service) finish(ctx context.Context, p Pending, wait time.Duration) (Entry, error) {
	if p.Failed != "" {
		return Entry{}, problem.New(problem.Conflict, "it was approved, and can't be committed: %s", p.Failed)
	}
	req := p.request()
	req.ApprovedBy = p.DecidedBy
	// The entry may have left the log since: to commit it again would make another, and a
	// hold begin anew. A log of another history may never have had it.
	if p.Committed != nil && p.Committed.Epoch == s.Ledger.Epoch() {
		a := *p.Committed
		a.Repeated = true
		return s.committed(ctx, req, a, "", wait), nil
	}
	e, err := s.commit(ctx, req, p.service(), "", wait)
	switch {
	case p.Committed != nil:
		return e, err
	case err == nil:
		p.Committed = &commit.Answer{ID: e.ID, Epoch: e.At.Epoch, Sequence: e.At.Seq, CommittedAt: e.CommittedAt.UnixMilli(), Incident: e.Incident}
	case slices.Contains([]problem.Kind{problem.Invalid, problem.TooLarge, problem.Conflict}, problem.KindOf(err)):
		p.Failed = err.Error()
	default:
		return e, err // Settle goes on
	}
	_ = s.note(context.WithoutCancel(ctx), p) // Settle finds it again
	return e, err
}

// note writes what has become of an approved one over what stands there.
func (s *Service) note(ctx context.Context, p Pending) error {
	stands, rev, err := s.Second.Pending.Get(ctx, p.Tenant, p.ID)
	if err != nil || stands.Committed != nil || stands.Failed != "" {
		return err
	}
	stands.Committed, stands.Failed = p.Committed, p.Failed
	return s.Second.Pending.Update(ctx, stands, rev)
}

// overtaken ends one that waits under the same idempotency key as what was cut by break-glass.
func (s *Service) overtaken(ctx context.Context, who Caller, e *Entry) {
	ctx, cancel := context.WithTimeout(ctx, bucketIn)
	defer cancel()
	p, rev, err := s.Second.Pending.Get(ctx, who.Tenant, e.ID)
	if err != nil || p.State != PendingWaits {
		return // the entry is in the log, and what waits expires
	}
	_, _ = s.decide(ctx, p, rev, who, PendingOvertaken, e.Reason) // as above
}

// Settle looks at all that are kept: those whose time is over are marked so, and those that
// were approved are committed if whoever approved them could not. done remembers those that
// need no look any more; it is the caller's, from one look to the next.
func (s *Service) Settle(ctx context.Context, done map[string]bool) error {
	if err := s.Ledger.Ready(); err != nil {
		return err
	}
	names, err := s.Second.Pending.IDs(ctx, "")
	if err != nil {
		return err
	}
	there := make(map[string]bool, len(names))
	var errs []error
	for _, name := range names {
		there[name] = true
		if done[name] {
			continue
		}
		tenant, id, _ := strings.Cut(name, ".")
		settled, err := s.settle(ctx, tenant, id)
		if errs = append(errs, err); settled {
			done[name] = true
		}
	}
	for name := range done {
		if !there[name] {
			delete(done, name)
		}
	}
	return errors.Join(errs...)
}

// grace is how long an approval is left to whoever made it.
const grace = 5 * time.Second

func (s *Service) settle(ctx context.Context, tenant, id string) (settled bool, err error) {
	p, rev, err := s.Second.Pending.Get(ctx, tenant, id)
	if err != nil {
		return false, err
	}
	now := s.Now()
	switch {
	case p.StateAt(now) == PendingWaits:
		return false, nil
	case p.State == PendingWaits:
		_, err = s.decide(ctx, p, rev, Caller{Actor: ledgerActor}, PendingExpired, "nobody approved it in time")
		if problem.KindOf(err) == problem.Conflict && err != nil {
			err = nil // somebody was there first
		}
		return false, err
	case p.State == PendingApproved && p.Committed == nil && p.Failed == "":
		if now.Sub(time.UnixMilli(p.DecidedAt)) < grace {
			return false, nil
		}
		_, err = s.finish(ctx, p, 0)
		return false, err
	}
	return true, nil
}

// ledgerActor is who does what nobody asks for.
const ledgerActor = "revocation"
