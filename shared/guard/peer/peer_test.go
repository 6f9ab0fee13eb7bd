package peer

import (
	"net/http"
	"net/netip"
	"testing"
)

func TestCallerIsWhoeverTheLastTrustedProxySaw(t *testing.T) {
	proxies, err := ParseProxies([]string{"10.0.0.0/8", "fd00::1"})
	if err != nil {
		t.Fatal(err)
	}
	const x, f = "X-Forwarded-For", "Forwarded"
	for name, c := range map[string]struct {
		remote string
		header []string
		want   string // empty: it can't be told
	}{
		"no proxy":                    {"192.0.2.1:80", nil, "192.0.2.1"},
		"a stranger's header":         {"192.0.2.1:80", []string{x, "198.51.100.1"}, "192.0.2.1"},
		"a proxy without a header":    {"10.1.1.1:80", nil, "10.1.1.1"},
		"a proxy":                     {"10.1.1.1:80", []string{x, "198.51.100.1"}, "198.51.100.1"},
		"what stands before is not":   {"10.1.1.1:80", []string{x, "203.0.113.9, 198.51.100.1"}, "198.51.100.1"},
		"a chain of ours":             {"10.1.1.1:80", []string{x, "203.0.113.9, 198.51.100.1, 10.2.2.2"}, "198.51.100.1"},
		"two lines":                   {"10.1.1.1:80", []string{x, "203.0.113.9", x, "198.51.100.1"}, "198.51.100.1"},
		"all ours":                    {"10.1.1.1:80", []string{x, "10.3.3.3, 10.2.2.2"}, "10.3.3.3"},
		"a port":                      {"10.1.1.1:80", []string{x, "198.51.100.1:4711"}, "198.51.100.1"},
		"mapped":                      {"[::ffff:10.1.1.1]:80", []string{x, "::ffff:198.51.100.1"}, "198.51.100.1"},
		"IPv6":                        {"[fd00::1]:80", []string{x, "[2001:db8::1]:4711"}, "2001:db8::1"},
		"no address":                  {"10.1.1.1:80", []string{x, "unknown"}, ""},
		"no address before":           {"10.1.1.1:80", []string{x, "198.51.100.1, nobody, 10.2.2.2"}, ""},
		"empty":                       {"10.1.1.1:80", []string{x, ""}, ""},
		"RFC 7239":                    {"10.1.1.1:80", []string{f, `for=203.0.113.9, For="[2001:db8::1]:4711";proto=https;by=10.1.1.1`}, "2001:db8::1"},
		"RFC 7239, hidden":            {"10.1.1.1:80", []string{f, "for=_hidden"}, ""},
		"RFC 7239, none":              {"10.1.1.1:80", []string{f, "proto=https"}, ""},
		"RFC 7239, twice":             {"10.1.1.1:80", []string{f, "for=192.0.2.1;for=192.0.2.2"}, ""},
		"one of two made up":          {"10.1.1.1:80", []string{x, "198.51.100.1", f, "for=192.0.2.7"}, ""},
		"two that say the same":       {"10.1.1.1:80", []string{x, "198.51.100.1", f, "for=198.51.100.1"}, "198.51.100.1"},
		"no address at the other end": {"@", []string{x, "198.51.100.1"}, ""},
	} {
		r := &http.Request{RemoteAddr: c.remote, Header: http.Header{}}
		for i := 0; i < len(c.header); i += 2 {
			r.Header.Add(c.header[i], c.header[i+1])
		}
		want, _ := netip.ParseAddr(c.want)
		if got := proxies.Caller(r); got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

func TestNetworksAreReadStrictly(t *testing.T) {
	for text, want := range map[string]string{"192.0.2.0/24": "192.0.2.0/24", "192.0.2.1": "192.0.2.1/32", "2001:db8::/32": "2001:db8::/32", "::1": "::1/128"} {
		if n, err := ParseNetwork(text); err != nil || n.String() != want {
			t.Errorf("%s: %v, %v", text, n, err)
		}
	}
	for _, text := range []string{"", "x", "192.0.2.1/24", "192.0.2.0/33", "::ffff:192.0.2.0/120", "::ffff:192.0.2.1", "fe80::1%eth0", "192.0.2.0/24 ", "192.0.2.0/024"} {
		if n, err := ParseNetwork(text); err == nil {
			t.Errorf("%q is taken for %v", text, n)
		}
	}
}

// FuzzCaller: whatever a header says, a caller who came by no proxy is who opened the
// connection, and none is taken for a proxy that has said who it was asked by.
func FuzzCaller(f *testing.F) {
	for _, s := range []string{"198.51.100.1", `for="[2001:db8::1]:80";by=x`, ",,", "10.0.0.1, 10.0.0.2", "\x00"} {
		f.Add(s, s)
	}
	proxies, err := ParseProxies([]string{"10.0.0.0/8"})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, x, standard string) {
		h := http.Header{"X-Forwarded-For": {x}, "Forwarded": {standard}}
		if got := proxies.Caller(&http.Request{RemoteAddr: "192.0.2.1:80", Header: h}); got != netip.MustParseAddr("192.0.2.1") {
			t.Errorf("a stranger is taken for %v", got)
		}
		if got := proxies.Caller(&http.Request{RemoteAddr: "10.1.1.1:80", Header: h}); got.Is4In6() || got.Zone() != "" {
			t.Errorf("%v is no address to compare", got)
		}
	})
}
