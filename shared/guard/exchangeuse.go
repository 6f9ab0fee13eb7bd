package guard

import (
	"crypto/sha256"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"
)

// keyHash stands for a key, and what its token is for, wherever something is kept.
type keyHash [sha256.Size]byte

func hashKey(key string, audience []string) keyHash {
	text := append(make([]byte, 0, 256), key...)
	for _, a := range audience {
		text = append(append(text, 0), a...)
	}
	return sha256.Sum256(text)
}

// from stands for the key as it comes from one address.
func (h keyHash) from(a netip.Addr) keyHash {
	return sha256.Sum256(append(append(make([]byte, 0, sha256.Size+16), h[:]...), a.AsSlice()...))
}

// exchanged is the token of a key.
type exchanged struct {
	token   string      // empty: of a key that is bound to networks, whose tokens are kept by address
	at      keyHash     // under which it is kept
	bound   bool        // to the address with which it was asked for
	expires int64       // Unix seconds
	renew   time.Time   // from then on another is asked for
	taken   atomic.Bool // it was not refused, once
}

// lives reports whether a token has not ended.
func (e *exchanged) lives(now time.Time) bool { return now.Unix() < e.expires }

// use is a key that was brought, from where and what for.
type use struct {
	key      string
	audience []string
	from     netip.Addr // the zero Addr: that is not known
	any      keyHash    // from wherever it came
	here     keyHash    // from there
	alone    bool       // what the issuer says of it for another address does not count
}

// lane is under what its exchange is under way. One does for all addresses until it is
// known that the key is bound, or refused for one of them.
func (u *use) lane() keyHash {
	if u.alone {
		return u.here
	}
	return u.any
}

// come fills in from where the key comes: not before that is needed, since a key that is
// bound to no network does not ask for it.
func (u *use) come(req *Requirement) {
	u.from = req.bringer().Unmap().WithZone("")
	u.here = u.any.from(u.from)
}

// bringer returns from where a key comes: the caller, or the zero Addr where the request says
// that it was forwarded, and the guard was not told by whom that may be said. Then the peer is
// a proxy, from which all the world comes.
func (req *Requirement) bringer() netip.Addr {
	if r, ok := req.Request.(*http.Request); ok && req.From == nil && (r.Header.Get("X-Forwarded-For") != "" || r.Header.Get("Forwarded") != "") {
		return netip.Addr{}
	}
	return req.caller()
}

// kept returns the token that is kept for a key and the address from which it comes.
func (x *exchanger) kept(u *use) (*exchanged, bool) {
	tok, ok := x.tokens.GetIfPresent(u.any)
	if ok && tok.token != "" {
		return tok, true
	}
	u.alone = u.alone || ok
	return x.near.GetIfPresent(u.here)
}

// keep keeps what an exchange came to.
func (x *exchanger) keep(u *use, tok *exchanged) {
	x.refused.Invalidate(u.any)
	x.refused.Invalidate(u.here)
	if !tok.bound {
		tok.at = u.any
		x.tokens.Set(tok.at, tok)
		return
	}
	tok.at = u.here
	if now, ok := x.tokens.GetIfPresent(u.any); !ok || now.token != "" {
		x.tokens.Set(u.any, &exchanged{at: u.any, bound: true})
	}
	x.near.Set(tok.at, tok)
}

// drop forgets the token of a key that the issuer refuses. What it refuses for one address
// says nothing of a bound key from another.
func (x *exchanger) drop(u *use) {
	if tok, ok := x.tokens.GetIfPresent(u.any); ok && tok.token != "" {
		x.tokens.Invalidate(u.any)
	}
	x.near.Invalidate(u.here)
}

// giveUp forgets a token that was refused. One that never was any good is what the
// issuer gives just now: it is not asked again at once.
func (x *exchanger) giveUp(tok *exchanged, d Decision) {
	cache := x.tokens
	if tok.bound {
		cache = x.near
	}
	if now, ok := cache.GetIfPresent(tok.at); ok && now == tok {
		cache.Invalidate(tok.at)
	}
	if !tok.taken.Load() && d.Check != CheckTime {
		x.refuse(tok.at, d, refusedLife)
	}
}

// known returns what the key was refused by a moment ago, there or everywhere.
func (x *exchanger) known(u *use, now time.Time) *Decision {
	for _, h := range [...]keyHash{u.any, u.here} {
		// A clock that was set back must not lengthen it.
		if r, ok := x.refused.GetIfPresent(h); ok && now.Before(r.until) && r.until.Sub(now) <= maxPause {
			d := r.Decision
			return &d
		}
	}
	return nil
}

// boundTo reads to which address the issuer has bound a token. It is fatal for the key
// if that is not the one which it was told: then it believes this guard nothing, and has
// held the key's networks against the guard's own address.
func boundTo(text string, from netip.Addr) (bound, believed bool) {
	if text == "" {
		return false, true
	}
	a, err := netip.ParseAddr(strings.TrimSpace(text))
	return true, err == nil && from.IsValid() && a == from
}
