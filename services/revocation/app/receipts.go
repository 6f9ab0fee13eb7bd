package app

import (
	"fmt"
	"time"

	"github.com/quash-project/quash/services/revocation"
	"github.com/quash-project/quash/services/revocation/attempts"
	"github.com/quash-project/quash/services/revocation/receipts"
	"github.com/quash-project/quash/services/revocation/running"
	frame "github.com/quash-project/quash/shared/httpapi"
	"github.com/quash-project/quash/shared/seal"
)

// buildReceipts makes what keeps receipts, and the keys that sign them.
func (s *Service) buildReceipts(d Deps) error {
	kek, err := seal.LoadKEK(s.cfg.ProofKEKFile)
	if err != nil {
		return fmt.Errorf("proof_kek_file: %w", err)
	}
	s.pages = frame.NewPages(kek)
	s.proofs, err = receipts.New(receipts.Config{
		NATS: d.NATS, KEK: kek, Ledger: s.ledger, Fleet: s.fleet, Replicas: s.cfg.Replicas, Now: d.Now, Rand: d.Rand, Log: d.Log.Named("receipts"), From: s.from,
	})
	if err != nil {
		return err
	}
	s.ledger.Observe(s.proofs)
	s.tries = attempts.New(attempts.Config{Receipts: s.proofs, Now: d.Now, Log: d.Log.Named("attempts"), First: s.firstAttempt})
	s.runs = running.New(running.Config{Receipts: s.proofs, Now: d.Now, Log: d.Log.Named("running")})
	return nil
}

// firstAttempt has everybody who watches know that somebody tries with what was cut.
func (s *Service) firstAttempt(r attempts.Record) {
	l := r.Lines()[0]
	s.feed.Tell(revocation.Happening{
		At: r.At(), Kind: revocation.KindAttempt, Stored: time.UnixMilli(l.First),
		Attempt: &revocation.Attempt{
			Receipt: r.Receipt, Tenant: r.Tenant, Target: l.Target, Network: l.Network, Server: l.Server, Instance: l.Instance,
			Committed: time.UnixMilli(r.Committed),
		},
	})
}
