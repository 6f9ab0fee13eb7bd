package guard

import (
	"context"
	"crypto/sha256"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/guard/keyform"
)

const (
	leakEvery = time.Minute // a key is told of once in this time
	leakTime  = 5 * time.Second
	maxLeaks  = 1024 // keys that are remembered as told
	leakQueue = 64   // keys that wait for being told
	maxAsks   = 10   // texts that may be keys of which the issuer is asked in leakEvery
)

// leaks tells the issuer of keys that were found where they get into logs.
type leaks struct {
	x     *exchanger
	url   string
	queue chan leak

	mu    sync.Mutex
	told  map[string]time.Time // by id
	asks  int                  // of what may be a key, since
	since time.Time
}

// leak is a secret that waits for being told.
type leak struct{ secret, id string }

func newLeaks(x *exchanger) (*leaks, error) {
	u, err := url.Parse(x.cfg.TokenURL)
	if err != nil {
		return nil, err
	}
	to := u.ResolveReference(&url.URL{Path: "leaked"})
	return &leaks{x: x, url: to.String(), queue: make(chan leak, leakQueue), told: map[string]time.Time{}}, nil
}

// KeyInURL tells the guard of a request that had a secret of Quash's in its path or
// query, where it gets into logs, histories and Referer headers; guardhttp calls it,
// and refuses the request. In exchange mode the guard tells the issuer of an API key or
// client secret, where policy says whether it is held; see Exchange. It never waits.
func (g *Guard) KeyInURL(secret string) {
	kind, err := keyform.Parse(secret)
	if err != nil || g.exchange == nil {
		return
	}
	g.leaked(secret, keyform.ID(secret), kind)
}

// ImportedInURL tells the guard of a request's URL, in which a key that was imported from
// another system may stand; guardhttp calls it. By its form alone nobody knows such a key
// (see Exchange.Imported). One that the guard has exchanged for such requests (req) is known:
// then it returns true, and the request is to be refused. Of any other that looks like one the issuer is told if
// the request brings nothing else (bare): that can be all that it means to bring. It never
// waits.
func (g *Guard) ImportedInURL(u *url.URL, req Requirement, bare bool) bool {
	x := g.exchange
	if x == nil || x.cfg.Imported == nil {
		return false
	}
	for _, text := range urlParts(u) {
		if strings.HasPrefix(text, keyform.Key.Prefix()) || !x.takes(text) {
			continue
		}
		_, known := x.tokens.GetIfPresent(hashKey(text, x.audience(&req)))
		id := keyform.ImportedID(sha256.Sum256([]byte(text)))
		switch {
		case known:
			g.leaked(text, id, keyform.Key)
			return true
		case bare:
			x.leaks.ask(leak{text, id})
		}
	}
	return false
}

// maxParts is how many parts of a URL are looked at.
const maxParts = 32

// urlParts returns the values of a query, or what stands there without a name, and the
// parts of a path.
func urlParts(u *url.URL) (parts []string) {
	for pair := range strings.FieldsFuncSeq(u.RawQuery, func(r rune) bool { return r == '&' || r == ';' }) {
		name, value, named := strings.Cut(pair, "=")
		if !named {
			value = name
		}
		parts = append(parts, value)
		if plain, err := url.QueryUnescape(value); err == nil && plain != value {
			parts = append(parts, plain)
		}
	}
	for part := range strings.SplitSeq(u.EscapedPath(), "/") {
		if plain, err := url.PathUnescape(part); err == nil && plain != "" {
			parts = append(parts, plain)
		}
	}
	return parts[:min(len(parts), maxParts)]
}

// leaked tells of a secret that was found where it gets into logs.
func (g *Guard) leaked(secret, id string, kind keyform.Kind) {
	if !g.exchange.leaks.first(id) {
		return
	}
	g.opts.log.Warn("a secret stands in a request's URL: take it for leaked",
		zap.String("kind", kind.String()), zap.String("target", "key:"+id))
	if kind == keyform.Refresh { // which the issuer takes no word about
		return
	}
	if f := g.exchange.cfg.OnKeyInURL; f != nil {
		f(id)
	}
	if g.exchange.cfg.NoReport {
		return
	}
	select {
	case g.exchange.leaks.queue <- leak{secret, id}:
	default: // best effort: the next request with it is another chance
		g.exchange.leaks.forget(id)
	}
}

// first reports whether a key was not told of lately, and notes it.
func (l *leaks) first(id string) bool {
	now := l.x.guard.opts.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if at, ok := l.told[id]; ok && now.Sub(at) < leakEvery && !now.Before(at) {
		return false
	}
	if len(l.told) >= maxLeaks {
		for other, at := range l.told {
			if now.Sub(at) >= leakEvery || now.Before(at) {
				delete(l.told, other)
			}
		}
		if len(l.told) >= maxLeaks {
			return false
		}
	}
	l.told[id] = now
	return true
}

// ask asks the issuer about what may be a key, a few times a minute: it is as likely none,
// and the issuer listens only so often to one network.
func (l *leaks) ask(may leak) {
	if l.x.cfg.NoReport || !l.mayAsk() || !l.first(may.id) {
		return
	}
	select {
	case l.queue <- may:
	default:
		l.forget(may.id)
	}
}

func (l *leaks) mayAsk() bool {
	now := l.x.guard.opts.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.since) >= leakEvery || now.Before(l.since) {
		l.asks, l.since = 0, now
	}
	l.asks++
	return l.asks <= maxAsks
}

func (l *leaks) forget(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.told, id)
}

// run tells of keys, one after the other, until ctx ends.
func (l *leaks) run(ctx context.Context) {
	for {
		select {
		case found := <-l.queue:
			l.tell(ctx, found)
		case <-ctx.Done():
			return
		}
	}
}

func (l *leaks) tell(ctx context.Context, found leak) {
	ctx, cancel := context.WithTimeout(ctx, leakTime)
	defer cancel()
	status, _, _, err := l.x.post(ctx, l.url, url.Values{"key": {found.secret}, "where": {"url"}}, netip.Addr{})
	if err != nil || status/100 != 2 {
		l.x.guard.opts.log.Warn("the issuer was not told of a key in a URL",
			zap.String("target", "key:"+found.id), zap.Int("status", status), zap.Error(err))
		l.forget(found.id) // the next request with it is another chance
	}
}
