// Package peer tells from which address a request comes, where it came by proxies whose
// word on it counts. It is common to the guard, whose servers may stand behind some, and
// to the issuer, to which a guard is one.
package peer

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// Proxies are the networks of those whose word counts on whom they ask for. None:
// nobody's does, and the caller is whoever opened the connection. They are safe for
// concurrent use.
type Proxies []netip.Prefix

// ParseProxies reads networks as 10.0.0.0/8, or single addresses.
func ParseProxies(texts []string) (Proxies, error) {
	var out Proxies
	for _, text := range texts {
		n, err := ParseNetwork(text)
		if err != nil {
			return nil, err
		}
		out = append(out, n)
	}
	return out, nil
}

// ParseNetwork reads a network as 10.0.0.0/8 or 2001:db8::/32; a single address is the
// network of itself alone.
func ParseNetwork(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" && !a.Is4In6() {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	n, err := netip.ParsePrefix(text)
	switch {
	case err != nil || n.Addr().Is4In6():
		return netip.Prefix{}, fmt.Errorf("network %.80q: want one as 192.0.2.0/24, 2001:db8::/32 or a single address", text)
	case n != n.Masked():
		return netip.Prefix{}, fmt.Errorf("network %s: its address has bits beyond its length; want %s", n, n.Masked())
	}
	return n, nil
}

// maxHops is how many addresses of a header are looked at.
const maxHops = 32

// Caller returns the address from which a request comes; the zero Addr where that can't
// be told. Each proxy adds, at the end, whom it was asked by, so that the chain is read
// from its end: as long as who says something is one of ours it is believed, and no
// further (RFC 7239, 8.1: what stands before may be made up). The header is
// X-Forwarded-For, or Forwarded.
//
// A proxy adds to one header and hands on the other as it came, perhaps made up: where
// both are there and say different things, it can't be told.
func (p Proxies) Caller(r *http.Request) netip.Addr {
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	peer := at.Addr().Unmap().WithZone("")
	if !p.has(peer) {
		return peer
	}
	x, standard := r.Header.Values("X-Forwarded-For"), r.Header.Values("Forwarded")
	switch {
	case len(standard) == 0:
		return p.follow(peer, x, bareHop)
	case len(x) == 0:
		return p.follow(peer, standard, forwardedHop)
	}
	a, b := p.follow(peer, x, bareHop), p.follow(peer, standard, forwardedHop)
	if a != b {
		return netip.Addr{}
	}
	return a
}

func (p Proxies) has(a netip.Addr) bool {
	return slices.ContainsFunc(p, func(n netip.Prefix) bool { return n.Contains(a) })
}

// follow goes from the end of a header to the first address that is none of ours.
func (p Proxies) follow(peer netip.Addr, lines []string, hop func(string) (netip.Addr, bool)) netip.Addr {
	if len(lines) == 0 {
		return peer
	}
	rest := strings.Join(lines, ",")
	for range maxHops {
		i := strings.LastIndexByte(rest, ',')
		a, ok := hop(strings.Trim(rest[i+1:], " \t"))
		if !ok {
			return netip.Addr{}
		}
		if !p.has(a) || i < 0 {
			return a
		}
		rest = rest[:i]
	}
	return netip.Addr{}
}

// bareHop reads an address, perhaps with a port: some proxies add it.
func bareHop(text string) (netip.Addr, bool) {
	if a, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(text, "["), "]")); err == nil {
		return a.Unmap().WithZone(""), true
	}
	at, err := netip.ParseAddrPort(text)
	return at.Addr().Unmap().WithZone(""), err == nil
}

// forwardedHop reads an element of RFC 7239, 4: its parameter "for", which must be an
// address ("unknown" and made-up names say nothing).
func forwardedHop(text string) (a netip.Addr, ok bool) {
	for pair := range strings.SplitSeq(text, ";") {
		name, value, _ := strings.Cut(strings.Trim(pair, " \t"), "=")
		if !strings.EqualFold(name, "for") {
			continue
		}
		if ok {
			return netip.Addr{}, false // each parameter once an element
		}
		if len(value) > 1 && value[0] == '"' && value[len(value)-1] == '"' {
			value = value[1 : len(value)-1]
		}
		if a, ok = bareHop(value); !ok {
			return netip.Addr{}, false
		}
	}
	return a, ok
}
