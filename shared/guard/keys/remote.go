package keys

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"sync/atomic"
	"time"

	"github.com/MicahParks/jwkset"
	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/guard/token"
)

// RemoteConfig says where keys are fetched and how. URL is required.
type RemoteConfig struct {
	URL       string
	AllowHTTP bool         // plain http also beyond loopback
	Algs      []string     // default: ForeignAlgs
	Client    *http.Client // default: one with a timeout
	Log       *zap.Logger  // default: none
	Now       func() time.Time

	Refresh time.Duration // how often; default 5 min. A key that left is refused after that
	MaxAge  time.Duration // how long keys are good while fetching fails; default 1 h
	Pause   time.Duration // least time between fetches for unknown keys; default 10 s
	Wait    time.Duration // how long Lookup waits for such a fetch; default 2 s
}

// ErrUnavailable says that keys could not be fetched: nothing about the token.
var ErrUnavailable = errors.New("the issuer's keys can't be fetched now")

const (
	maxSet      = 256 << 10 // bytes of a key set
	maxKeys     = 100
	fetchTime   = 5 * time.Second
	maxRedirect = 3
)

// Remote holds the keys of a JWKS URL. Only Run fetches. Its methods are safe
// for concurrent use; Lookup waits only for a key that is not known.
type Remote struct {
	cfg    RemoteConfig
	client *http.Client
	kick   chan struct{}
	state  atomic.Pointer[fetched]
}

// fetched is the outcome of the last fetch.
type fetched struct {
	keys  map[string]*Key // of the last one that succeeded
	at    time.Time       // when that was asked for; zero: never
	tried time.Time       // when the last one was asked for
	err   error           // of the last one
	next  chan struct{}   // closed when the next one is over
}

// NewRemote checks the configuration; it fetches nothing yet.
func NewRemote(cfg RemoteConfig) (*Remote, error) {
	r := &Remote{cfg: cfg, kick: make(chan struct{}, 1)}
	if err := r.checkURL(cfg.URL); err != nil {
		return nil, err
	}
	c := &r.cfg
	c.Refresh, c.MaxAge = orElse(c.Refresh, 5*time.Minute), orElse(c.MaxAge, time.Hour)
	c.Pause, c.Wait = orElse(c.Pause, 10*time.Second), orElse(c.Wait, 2*time.Second)
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	if len(c.Algs) == 0 {
		c.Algs = ForeignAlgs()
	}
	r.client = &http.Client{}
	if cfg.Client != nil {
		*r.client = *cfg.Client
	}
	r.client.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		if len(via) > maxRedirect {
			return errors.New("too many redirections")
		}
		return r.checkURL(req.URL.String())
	}
	r.state.Store(&fetched{next: make(chan struct{})})
	return r, nil
}

func orElse(d, byDefault time.Duration) time.Duration {
	if d == 0 {
		return byDefault
	}
	return d
}

// checkURL: whoever can change what is fetched can make tokens.
func (r *Remote) checkURL(text string) error { return CheckURL("JWKS URL", text, r.cfg.AllowHTTP) }

// CheckURL wants https, or http to a loopback address or where that is allowed.
func CheckURL(what, text string, allowHTTP bool) error {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.Fragment != "":
		return errors.New(what + ": want an absolute URL without credentials or fragment")
	case u.Scheme == "https":
		return nil
	case u.Scheme == "http" && (allowHTTP || loopback(u.Hostname())):
		return nil
	}
	return fmt.Errorf("%s %.200q: want https, or http to a loopback address", what, u.Redacted())
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Peek returns the key with this id if it is known and the set is not too old.
func (r *Remote) Peek(kid string) *Key {
	st := r.state.Load()
	if st.at.IsZero() || r.cfg.Now().Sub(st.at) > r.cfg.MaxAge {
		return nil
	}
	return st.keys[kid]
}

// Lookup returns the key with this id. If it is not known the keys are fetched
// again, now and then. ErrUnknown says that the issuer has no such key,
// ErrUnavailable that it could not be asked.
func (r *Remote) Lookup(ctx context.Context, kid string) (*Key, error) {
	if k := r.Peek(kid); k != nil {
		return k, nil
	}
	st := r.state.Load()
	if !st.tried.IsZero() && r.cfg.Now().Sub(st.tried) < r.cfg.Pause {
		return nil, r.missing()
	}
	select {
	case r.kick <- struct{}{}:
	default: // somebody else has asked
	}
	timer := time.NewTimer(r.cfg.Wait)
	defer timer.Stop()
	select {
	case <-st.next:
	case <-timer.C:
		return nil, ErrUnavailable
	case <-ctx.Done():
		return nil, ErrUnavailable
	}
	if k := r.Peek(kid); k != nil {
		return k, nil
	}
	return nil, r.missing()
}

func (r *Remote) missing() error {
	if r.Ready() != nil || r.state.Load().err != nil {
		return ErrUnavailable
	}
	return ErrUnknown
}

// Ready returns nil if there are keys, not too old.
func (r *Remote) Ready() error {
	st := r.state.Load()
	switch {
	case st.at.IsZero() && st.err != nil:
		return fmt.Errorf("%w: %w", ErrUnavailable, st.err)
	case st.at.IsZero():
		return fmt.Errorf("%w: not fetched yet", ErrUnavailable)
	case r.cfg.Now().Sub(st.at) > r.cfg.MaxAge:
		return fmt.Errorf("%w: the last ones are older than %s: %w", ErrUnavailable, r.cfg.MaxAge, st.err)
	case len(st.keys) == 0:
		return fmt.Errorf("%w: the set has none that can be used", ErrUnavailable)
	}
	return nil
}

// Run fetches the keys at once, then regularly and on demand, until ctx ends.
func (r *Remote) Run(ctx context.Context) {
	for failures := 0; ctx.Err() == nil; {
		wait := r.cfg.Refresh
		if err := r.fetch(ctx); err != nil {
			failures++
			wait = min(wait, time.Second<<min(failures, 6))
			if ctx.Err() == nil {
				r.cfg.Log.Warn("fetching signing keys failed", zap.String("url", r.cfg.URL), zap.Error(err))
			}
		} else {
			failures = 0
		}
		wait -= time.Duration(rand.Int64N(int64(wait)/10 + 1)) // many guards, one provider
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-r.kick:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

func (r *Remote) fetch(ctx context.Context) error {
	old := r.state.Load()
	next := &fetched{keys: old.keys, at: old.at, tried: r.cfg.Now(), next: make(chan struct{})}
	var keys map[string]*Key
	if keys, next.err = r.get(ctx); next.err == nil {
		next.keys, next.at = keep(keys, old.keys), next.tried
	}
	select {
	case <-r.kick: // asked for while this was under way: this is the answer
	default:
	}
	r.state.Store(next)
	close(old.next)
	return next.err
}

// keep returns keys with those that have not changed taken from old, so that
// what was verified with them stays known.
func keep(keys, old map[string]*Key) map[string]*Key {
	for id, k := range keys {
		if have := old[id]; have != nil && slices.Equal(have.Algs, k.Algs) && reflect.DeepEqual(have.material.jwk, k.material.jwk) {
			keys[id] = have
		}
	}
	return keys
}

func (r *Remote) get(ctx context.Context) (map[string]*Key, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.cfg.URL, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/jwk-set+json, application/json")
	res, err := r.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %d", res.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, maxSet+1))
	if err != nil {
		return nil, err
	}
	keys, refused, err := parseSet(body, r.cfg.Algs)
	for _, why := range refused {
		r.cfg.Log.Warn("a signing key is not taken", zap.String("url", r.cfg.URL), zap.Error(why))
	}
	return keys, err
}

// parseSet returns the keys of a set that can be used, and why the others can't.
func parseSet(body []byte, algs []string) (keys map[string]*Key, refused []error, err error) {
	if len(body) > maxSet {
		return nil, nil, fmt.Errorf("more than %d bytes", maxSet)
	}
	if err := token.CheckJSON(string(body)); err != nil {
		return nil, nil, err
	}
	var set jwkset.JWKSMarshal
	if err := json.Unmarshal(body, &set); err != nil {
		return nil, nil, errors.New("not a JWK set")
	}
	if set.Keys == nil || len(set.Keys) > maxKeys {
		return nil, nil, fmt.Errorf("%d keys: want a member keys with at most %d", len(set.Keys), maxKeys)
	}
	keys = map[string]*Key{}
	twice := map[string]bool{}
	for _, j := range set.Keys {
		k, err := parse(j, algs)
		if err != nil {
			if j.USE != jwkset.UseEnc { // that one is for others
				refused = append(refused, fmt.Errorf("kid %.80q: %w", j.KID, err))
			}
			continue
		}
		twice[k.ID] = keys[k.ID] != nil || twice[k.ID]
		keys[k.ID] = k
	}
	maps.DeleteFunc(keys, func(id string, _ *Key) bool {
		if twice[id] {
			refused = append(refused, fmt.Errorf("kid %.80q stands twice", id))
		}
		return twice[id]
	})
	return keys, refused, nil
}
