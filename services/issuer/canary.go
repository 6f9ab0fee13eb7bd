package issuer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/problem"
)

const (
	// canarySubject is whose token a canary is: nobody's.
	canarySubject = "quash-canary"
	// canaryAudience is one that no resource server has.
	canaryAudience = "urn:quash:canary"
	canaryLife     = time.Minute
	// canaryWait is how long the refusal of a canary may take before that is an alarm.
	canaryWait = 10 * time.Second
)

// errCanaryLives says that a token was taken after its revocation had been acknowledged
// and applied.
var errCanaryLives = errors.New("a token that was revoked is still taken")

// CanaryStats counts canaries by what became of them.
type CanaryStats struct {
	Refused uint64 // as it should be
	Lives   uint64 // taken after its revocation: an alarm
	Failed  uint64 // it could not be issued or cut
}

// Canaries issues a token every so often and cuts it, until ctx ends, so that whatever is
// wrong with revocation shows before somebody needs it. How fast every resource server
// has it the revocation service measures, which knows canaries by their id.
func (s *Service) Canaries(ctx context.Context, every time.Duration) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	said := ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if s.Ready() != nil {
			continue // it says so elsewhere
		}
		err := s.Canary(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			s.counts.canaryRefused.Add(1)
			said = ""
			continue
		case errors.Is(err, errCanaryLives):
			s.counts.canaryLives.Add(1)
		default:
			s.counts.canaryFailed.Add(1)
		}
		if text := err.Error(); text != said {
			said = text
			s.d.Log.Error("a canary's revocation is not as it should be", zap.Error(err))
		}
	}
}

// CanaryStats returns what became of this replica's canaries.
func (s *Service) CanaryStats() CanaryStats {
	return CanaryStats{Refused: s.counts.canaryRefused.Load(), Lives: s.counts.canaryLives.Load(), Failed: s.counts.canaryFailed.Load()}
}

// Canary issues a token, which it keeps to itself, sees that it is taken, cuts it, and
// sees that it is refused.
func (s *Service) Canary(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, canaryWait)
	defer cancel()
	t, err := stampFirst(ctx, s, false, func(m *making) (Token, error) { return s.canaryToken(ctx, m) })
	if err != nil {
		return fmt.Errorf("issue a canary: %w", err)
	}
	v, err := s.d.Verifier.Verify(ctx, t.Text)
	if err != nil || !v.Active {
		return fmt.Errorf("a canary is not taken before its revocation: %w", errors.Join(err, problem.New(problem.Unavailable, "active %t, unknown %t", v.Active, v.Unknown)))
	}
	cut, err := s.commitOne(ctx, t.Claims.ID, commit.Request{
		Tenant: s.cfg.Tenant, Op: commit.Revoke, Targets: []commit.Target{{Kind: revoke.KindToken, ID: t.Claims.ID}},
		Reason: "to measure how fast a revocation takes effect", Actor: "canary", Record: true,
	})
	if err != nil {
		return fmt.Errorf("cut a canary: %w", err)
	}
	if err := s.d.Reader.WaitFor(ctx, cut.Answer.Stamp()); err != nil {
		return fmt.Errorf("the revocation of a canary is not heard of: %w", err)
	}
	v, err = s.d.Verifier.Verify(ctx, t.Text)
	if err != nil {
		return fmt.Errorf("look at a canary: %w", err)
	}
	if v.Active {
		return fmt.Errorf("%w: %s, cut at %s", errCanaryLives, t.Claims.ID, cut.Answer.Stamp())
	}
	return nil
}

func (s *Service) canaryToken(ctx context.Context, m *making) (Token, error) {
	id, err := randomText(s.d.Rand)
	if err != nil {
		return Token{}, err
	}
	c := Claims{
		Issuer: s.cfg.Issuer, Subject: canarySubject, Audience: []string{canaryAudience}, ClientID: canarySubject,
		IssuedAt: m.now.Unix(), Expires: m.now.Add(canaryLife).Unix(), ID: commit.CanaryPrefix + id,
		Tenant: s.cfg.Tenant, Stamp: m.stamp,
		// Guards want to know what a token came from: a key that there can't be.
		Via: []revoke.Key{target(s.cfg.Tenant, revoke.KindKey, canarySubject)},
	}
	signer, err := s.d.Signers.Signer(ctx, s.cfg.Tenant)
	if err != nil {
		return Token{}, err
	}
	text, err := signer.Sign(TokenType, &c)
	return Token{Text: text, Claims: c}, err
}
