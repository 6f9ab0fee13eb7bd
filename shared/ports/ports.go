// Package ports opens ports that are chosen once and kept, since they stand in
// addresses that others remember.
package ports

import (
	"math/rand/v2"
	"net"
	"strconv"
	"time"
)

// Ports that are kept are chosen below those that systems give to outgoing
// connections: one of these could hold a port when it is needed again.
const (
	first = 20000
	last  = 29999
)

// busyWait is how long a kept port may still be held by something that ends.
const busyWait = time.Second

// Choose opens a port on host that can be had again later.
func Choose(host string) (net.Listener, error) {
	for range 50 {
		l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(first+rand.IntN(last-first+1))))
		if err == nil {
			return l, nil
		}
	}
	return net.Listen("tcp", net.JoinHostPort(host, "0"))
}

// Open opens an address, if need be when whoever still has it has ended.
func Open(addr string) (net.Listener, error) {
	var err error
	for end := time.Now().Add(busyWait); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		var l net.Listener
		if l, err = net.Listen("tcp", addr); err == nil {
			return l, nil
		}
	}
	return nil, err
}
