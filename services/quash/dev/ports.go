package dev

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"time"
)

// Ports that are kept are chosen below those that systems give to outgoing
// connections: one of these could hold a port when it is needed again.
const (
	firstPort = 20000
	lastPort  = 29999
)

// busyWait is how long a kept port may still be held by something that ends.
const busyWait = time.Second

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
	return choose(host)
}

func listen(flag, addr string) (net.Listener, error) {
	var err error
	for end := time.Now().Add(busyWait); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		var l net.Listener
		if l, err = net.Listen("tcp", addr); err == nil {
			return l, nil
		}
	}
	return nil, fmt.Errorf("%s %s: %w: stop what listens there, or choose another (port 0: any)", flag, addr, err)
}

func choose(host string) (net.Listener, error) {
	for range 50 {
		l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(firstPort+rand.IntN(lastPort-firstPort+1))))
		if err == nil {
			return l, nil
		}
	}
	return net.Listen("tcp", net.JoinHostPort(host, "0"))
}

// freePort returns the kept port of an engine if it can be had, and otherwise
// another: who uses an engine reads dev.env.
func freePort(kept int) (int, error) {
	if kept != 0 {
		if l, err := listen("", net.JoinHostPort("127.0.0.1", strconv.Itoa(kept))); err == nil {
			return kept, l.Close()
		}
	}
	l, err := choose("127.0.0.1")
	if err != nil {
		return 0, err
	}
	a, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return 0, errors.Join(errors.New("not a TCP address"), l.Close())
	}
	return a.Port, l.Close()
}
