package issuer

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/apikey"
	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/leaked"
	"github.com/quash-project/quash/shared/problem"
)

// leakRate is how many secrets a minute one network can show.
const leakRate = 60

// ReportLeak takes the word of whoever shows an API key or client secret that it has
// leaked: that they have it proves it. Of what is no secret of ours nothing is told: it
// has the same answer, an error only if it could not be dealt with now.
//
// The record says so from then on; by policy the key is held.
func (s *Service) ReportLeak(ctx context.Context, secret, where string, from netip.Addr) error {
	if err := s.admitLeak(from); err != nil {
		return err
	}
	return s.reportLeaked(ctx, leaked.Of(secret), readable(where, secret), from)
}

// ReportLeaked is ReportLeak of a service that was shown the secret, for whose word where
// stands. What has the form of a secret is not counted: junk must not crowd it out.
func (s *Service) ReportLeaked(ctx context.Context, secret leaked.Secret, where string, from netip.Addr) error {
	if secret.Kind == "" {
		if err := s.admitLeak(from); err != nil {
			return err
		}
	}
	return s.reportLeaked(ctx, secret, where, from)
}

func (s *Service) admitLeak(from netip.Addr) error {
	if _, wait := s.byNetwork.take(network(from), leakRate, s.d.Now()); wait > 0 {
		return tooMany("too many secrets were shown from this network", wait)
	}
	return nil
}

func (s *Service) reportLeaked(ctx context.Context, secret leaked.Secret, where string, from netip.Addr) error {
	found, err := s.whosever(ctx, secret.ID)
	if err != nil {
		return err
	}
	for _, k := range found {
		if k.is(secret) && k.Mark == nil {
			err = errors.Join(err, s.In(k.Tenant).leaked(ctx, k, where, from))
		}
	}
	return err
}

func (s *Service) leaked(ctx context.Context, k Key, where string, from netip.Addr) error {
	s.counts.leaked.Add(1)
	s.d.Log.Warn("a key has leaked: somebody has shown it", zap.String("key", k.ID), zap.String("kind", string(k.Kind)), zap.String("owner", k.Owner),
		zap.String("where", where), zap.Stringer("from", from), zap.Bool("hold", s.cfg.Keys.HoldLeaked))
	if err := s.holdLeaked(ctx, &k, where); err != nil {
		return err
	}
	return s.noteLeak(ctx, &k, where, from)
}

// whosever finds a key of any tenant where it is shown to the installation's own issuer:
// who finds one can't know whose it is. Several may have imported the same one.
func (s *Service) whosever(ctx context.Context, id string) (found []Key, err error) {
	k, err := s.d.Store.Keys.Get(ctx, RecordKey(s.cfg.Tenant, id))
	switch {
	case err == nil:
		found = append(found, k)
	case problem.KindOf(err) != problem.NotFound:
		return nil, err
	}
	if !s.isHome() {
		return found, nil
	}
	for _, t := range s.d.Store.Tenants.All() {
		if t.Name == s.cfg.Tenant {
			continue
		}
		if k, ok := s.d.Store.Keys.Peek(RecordKey(t.Name, id)); ok {
			found = append(found, k)
		}
	}
	return found, nil
}

// Imported reports whether a text is a key, of any tenant, that was imported: its form
// tells nobody. It looks into the copy alone, and is for the installation's own issuer.
func (s *Service) Imported(text string) bool {
	return s.d.Store.Keys.Size(ImportedGroup(apikey.ImportedID(apikey.HashOf(text)))) > 0
}

// holdLeaked holds a key by policy, unless nothing takes it any more. After somebody has
// enabled it the next one who shows it has it held again.
func (s *Service) holdLeaked(ctx context.Context, k *Key, where string) error {
	own := target(k.Tenant, revoke.KindKey, k.ID)
	view := s.d.Reader.View()
	if !s.cfg.Keys.HoldLeaked || view.Blocked(own) {
		return nil
	}
	a, err := s.d.Committer.Commit(ctx, commit.Request{
		// The same key and release of it: the same request, whoever shows it how often.
		Key: "leaked:" + RecordKey(k.Tenant, k.ID) + ":" + view.State(own).Released.String(), Tenant: k.Tenant, Op: commit.Hold,
		Actor: s.system().Actor, Reason: "leaked: " + where, Targets: []commit.Target{{Kind: revoke.KindKey, ID: k.ID}},
	})
	if err == nil {
		s.see(ctx, a)
	}
	return err
}

// noteLeak writes into the record what was said first.
func (s *Service) noteLeak(ctx context.Context, k *Key, where string, from netip.Addr) error {
	if k.Leak != nil {
		return nil
	}
	_, err := s.d.Store.Keys.Change(ctx, RecordKey(k.Tenant, k.ID), func(k Key) (Key, error) {
		if k.Leak != nil || k.Mark != nil {
			return k, errTold
		}
		k.Leak = &Leak{At: s.d.Now().UTC().Truncate(time.Millisecond), Where: where, From: from}
		k.Meta = s.meta(s.system(), "leaked: "+where)
		return k, nil
	})
	if errors.Is(err, errTold) || err != nil && problem.KindOf(err) == problem.NotFound {
		return nil
	}
	return err
}

// see waits a short while until a commit is in the own view, so that who asks here next
// sees it; it is committed, whatever is seen.
func (s *Service) see(ctx context.Context, a commit.Answer) {
	ctx, cancel := context.WithTimeout(ctx, behindWait)
	defer cancel()
	_ = s.d.Reader.WaitFor(ctx, a.Stamp())
}

// network is whom an address belongs to: of IPv6 a /64, which is the least that one
// party has.
func network(a netip.Addr) string {
	if !a.Is6() {
		return a.String()
	}
	n, err := a.Prefix(64)
	if err != nil {
		return a.String()
	}
	return n.String()
}

// readable returns where a stranger says that a secret was.
func readable(where, secret string) string {
	if where = plainOf(where, secret, maxText); where == "" {
		return "not said where"
	}
	return where
}

// plainOf returns what a stranger says, without secrets and as a text for records.
func plainOf(text, secret string, most int) string {
	if text == "" {
		return ""
	}
	text = apikey.Redact(strings.ReplaceAll(text, secret, "[redacted]"))
	text = strings.Map(func(r rune) rune {
		if r < 0x20 || r >= 0x7f && r < 0xa0 || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "")
	}
	return strings.TrimSpace(text)
}
