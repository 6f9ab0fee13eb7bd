package simulation

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/quash-project/quash/services/issuer"
	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/guard"
	"github.com/quash-project/quash/shared/guard/follow"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/problem"
)

// readerOf is the reader of a member, whichever it has now: it implements
// issuer.Reader.
type readerOf struct{ m *member }

func (r readerOf) Stamp() revoke.Stamp           { return r.m.current().Stamp() }
func (r readerOf) View() *revoke.View            { return r.m.current().View() }
func (r readerOf) Position() wire.Position       { return r.m.current().Position() }
func (r readerOf) Check() (time.Duration, error) { return r.m.current().Check() }
func (r readerOf) Fresh(ctx context.Context) error {
	return r.m.current().Fresh(ctx)
}

func (r readerOf) WaitFor(ctx context.Context, s revoke.Stamp) error {
	return r.m.current().WaitFor(ctx, s)
}

// committer asks a replica of the revocation service, over the network, as
// commit.Client does.
type committer struct{ p *process }

func (c committer) Commit(ctx context.Context, q commit.Request) (commit.Answer, error) {
	type answer struct {
		a   commit.Answer
		err error
	}
	sent := false
	err := error(problem.New(problem.Unavailable, "simulated: nobody answers"))
	for i := 0; i < 4 && ctx.Err() == nil && !c.p.dead.Load(); i++ {
		if i > 0 && !pause(ctx, time.Duration(i)*250*time.Millisecond) {
			break
		}
		r := c.p.w.any(false)
		if r == nil || c.p.w.records.mute.Load() {
			continue
		}
		try, cancel := context.WithTimeout(ctx, 3*time.Second)
		got, lost := ask(try, c.p.m, r, q, func(ctx context.Context, r *replica, q commit.Request) answer {
			l, _, _, ok := r.parts()
			if !ok {
				return answer{err: problem.New(problem.Unavailable, "simulated: it does not run")}
			}
			a, err := l.Commit(ctx, q, "issuer")
			return answer{a, err}
		})
		cancel()
		if lost != nil {
			sent = true
			continue
		}
		if got.err == nil && !c.p.dead.Load() {
			return got.a, nil
		}
		err = got.err
		k := problem.KindOf(err)
		sent = sent || k == problem.UnknownOutcome
		if err != nil && k != problem.Unavailable && k != problem.UnknownOutcome {
			return commit.Answer{}, err
		}
	}
	if c.p.dead.Load() {
		return commit.Answer{}, errDead
	}
	if sent {
		return commit.Answer{}, problem.New(problem.UnknownOutcome, "simulated: no answer")
	}
	return commit.Answer{}, err
}

// signer writes tokens that nobody has to prove: the claims are all that counts.
type signer struct{}

func (signer) Gone(context.Context, string) error                    { return nil }
func (signer) Signer(context.Context, string) (issuer.Signer, error) { return signer{}, nil }

func (signer) Sign(typ string, c jwt.Claims) (string, error) {
	claims, err := json.Marshal(c)
	if err != nil {
		return "", err
	}
	text := base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"alg":"ES256","typ":%q,"kid":"k"}`, typ))
	text += "." + base64.RawURLEncoding.EncodeToString(claims)
	return text + "." + base64.RawURLEncoding.EncodeToString(make([]byte, 64)), nil
}

// targeter tells what a guard looks up for a token, by the guard's own code.
type targeter struct{ g *guard.Guard }

// blind is the reader of a guard that only has to read tokens.
type blind struct{ view *revoke.View }

var errBlind = errors.New("simulated: it follows nothing")

func (b blind) View() *revoke.View                        { return b.view }
func (blind) Position() wire.Position                     { return wire.Position{} }
func (blind) Check() (time.Duration, error)               { return 0, errBlind }
func (blind) Fresh(context.Context) error                 { return errBlind }
func (blind) WaitFor(context.Context, revoke.Stamp) error { return errBlind }
func (blind) Changed() <-chan struct{}                    { return nil }
func (blind) Status() follow.Status                       { return follow.Status{} }

func newTargeter() (targeter, error) {
	private := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	trust := "ed25519:" + base64.RawURLEncoding.EncodeToString(private[ed25519.SeedSize:])
	g, err := guard.New([]guard.Issuer{{URL: issuerURL, Tenant: tenant, Trust: []string{trust}}}, guard.WithReader(blind{revoke.NewView()}))
	return targeter{g}, err
}

func (t targeter) of(text string) ([]revoke.Key, *guard.Claims, error) {
	e := t.g.Explain(context.Background(), text, guard.Requirement{AnyAudience: true})
	if e.Claims == nil {
		return nil, nil, fmt.Errorf("a guard can't read the token %s: %+v", text, e.Checks)
	}
	keys := make([]revoke.Key, 0, len(e.Targets))
	for _, x := range e.Targets {
		keys = append(keys, x.Key)
	}
	return keys, e.Claims, nil
}
