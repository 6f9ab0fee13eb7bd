package issuer

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/quash-project/quash/shared/problem"
)

// KeyPolicy is what an operator decides of all API keys and client secrets.
type KeyPolicy struct {
	// Life is that of keys for which none was asked; 0: DefaultKeyLife, or MaxLife if
	// that is less.
	Life time.Duration
	// MaxLife is the longest that may be asked for; 0: MaxKeyLife, which is the most.
	MaxLife time.Duration
	// Warnings are how long before a key's end others are told of it, once each; nil: 14
	// days and 1 day. Those that lie before its making are left out.
	Warnings []time.Duration
	// HoldLeaked has a key held of which somebody shows that they have it, until an
	// operator enables it.
	HoldLeaked bool
	// Overlap is how long a key that is rotated stays good beside its successor if nothing
	// else is asked; 0: DefaultOverlap.
	Overlap time.Duration
	// NoSelfRotation has keys rotated by those alone who may make others.
	NoSelfRotation bool
}

// The lives of a key beside its successor.
const (
	DefaultOverlap = 24 * time.Hour
	MinOverlap     = time.Minute
	MaxOverlap     = 30 * 24 * time.Hour
)

// maxWarnings bounds how often a key is told of.
const maxWarnings = 10

// Check says what is wrong with the policy.
func (p KeyPolicy) Check() error { return p.complete() }

// complete checks the policy and puts the defaults in.
func (p *KeyPolicy) complete() error {
	if p.MaxLife == 0 {
		p.MaxLife = MaxKeyLife
	}
	if p.Life == 0 {
		p.Life = min(DefaultKeyLife, p.MaxLife)
	}
	if p.Warnings == nil {
		p.Warnings = []time.Duration{14 * 24 * time.Hour, 24 * time.Hour}
	}
	if p.Overlap == 0 {
		p.Overlap = DefaultOverlap
	}
	var errs []error
	if p.Overlap < MinOverlap || p.Overlap > MaxOverlap {
		errs = append(errs, fmt.Errorf("overlap of rotated keys %v: want %v to %v (30 days)", p.Overlap, MinOverlap, MaxOverlap))
	}
	if p.MaxLife < time.Minute || p.MaxLife > MaxKeyLife {
		errs = append(errs, fmt.Errorf("longest life of keys %v: want 1m to %v (400 days)", p.MaxLife, MaxKeyLife))
	} else if p.Life < time.Minute || p.Life > p.MaxLife {
		errs = append(errs, fmt.Errorf("life of keys %v: want 1m to %v, the longest", p.Life, p.MaxLife))
	}
	if len(p.Warnings) > maxWarnings {
		errs = append(errs, fmt.Errorf("%d warnings before a key's end: %d at most", len(p.Warnings), maxWarnings))
	}
	for _, w := range p.Warnings {
		if w < time.Minute || w > MaxKeyLife {
			errs = append(errs, fmt.Errorf("warning %v before a key's end: want 1m to %v", w, MaxKeyLife))
		}
	}
	return errors.Join(errs...)
}

// lifeOf returns how long a key lives for which life was asked.
func (p *KeyPolicy) lifeOf(life time.Duration) (time.Duration, error) {
	if life == 0 {
		return p.Life, nil
	}
	if life < time.Minute || life > p.MaxLife {
		return 0, problem.FieldError("expires_in", "%v: want 1m to %v (%d days)", life, p.MaxLife, int(p.MaxLife/(24*time.Hour)))
	}
	return life, nil
}

// Limits of what a key can ask for.
const (
	maxNetworks = 50
	maxKeyRate  = 1_000_000 // exchanges a minute
)

func checkNetworks(ns []netip.Prefix) error {
	if len(ns) > maxNetworks {
		return problem.FieldError("networks", "%d networks: %d at most", len(ns), maxNetworks)
	}
	return nil
}

func checkRate(n int) error {
	if n < 0 || n > maxKeyRate {
		return problem.FieldError("rate_limit", "%d exchanges a minute: want 1 to %d, or none for no limit", n, maxKeyRate)
	}
	return nil
}

// from reports whether the key may be used from an address; one that is not known is in
// no network.
func (k *Key) from(a netip.Addr) bool {
	return len(k.Networks) == 0 || slices.ContainsFunc(k.Networks, func(n netip.Prefix) bool { return n.Contains(a) })
}

// counts are what Stats returns.
type counts struct {
	limited, leaked, expiring, due           atomic.Uint64
	rotated, rotatedOut, rotatedBack         atomic.Uint64
	canaryRefused, canaryLives, canaryFailed atomic.Uint64
}

// Stats are numbers since the start, for metrics.
type Stats struct {
	RateLimited uint64 // exchanges refused by the rate limit of their key
	Leaked      uint64 // times that somebody has shown a key that should be secret
	Expiring    uint64 // times that a key's end was told of
	Due         uint64 // times that a key was to be rotated by itself, and had no recipient
	Rotated     uint64 // keys that were given a successor
	RotatedOut  uint64 // those of which the old one was ended
	RotatedBack uint64 // those of which the successor was ended
}

// Stats returns them.
func (s *Service) Stats() Stats {
	return Stats{
		RateLimited: s.counts.limited.Load(), Leaked: s.counts.leaked.Load(), Expiring: s.counts.expiring.Load(), Due: s.counts.due.Load(),
		Rotated: s.counts.rotated.Load(), RotatedOut: s.counts.rotatedOut.Load(), RotatedBack: s.counts.rotatedBack.Load(),
	}
}
