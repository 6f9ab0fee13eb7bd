package dev

import (
	"errors"
	"fmt"
	"net"
	"strconv"

	"github.com/quash-project/quash/shared/ports"
)

// listenKept opens the address of a flag. Port 0 means the kept address of an
// earlier run, or else a port that is chosen now.
func listenKept(flag, addr, kept string) (net.Listener, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	if port != "0" {
		return listen(flag, addr)
	}
	if keptHost, _, err := net.SplitHostPort(kept); err == nil && keptHost == host {
		return listen(flag, kept)
	}
	return ports.Choose(host)
}

func listen(flag, addr string) (net.Listener, error) {
	l, err := ports.Open(addr)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w: stop what listens there, or choose another (port 0: any)", flag, addr, err)
	}
	return l, nil
}

// freePort returns the kept port of an engine if it can be had, and otherwise
// another: who uses an engine reads dev.env.
func freePort(kept int) (int, error) {
	if kept != 0 {
		if l, err := listen("", net.JoinHostPort("127.0.0.1", strconv.Itoa(kept))); err == nil {
			return kept, l.Close()
		}
	}
	l, err := ports.Choose("127.0.0.1")
	if err != nil {
		return 0, err
	}
	a, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return 0, errors.Join(errors.New("not a TCP address"), l.Close())
	}
	return a.Port, l.Close()
}
