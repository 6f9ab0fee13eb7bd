package enginetest

import (
	"bufio"
	"fmt"
	"net"
	"testing"
	"time"
)

func TestProxySpoilsWhatGoesThrough(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	heard := make(chan string, 16)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				for s := bufio.NewScanner(c); s.Scan(); {
					heard <- s.Text()
					_, _ = fmt.Fprintln(c, "echo "+s.Text()) // its loss is what is tested
				}
				_ = c.Close()
			}()
		}
	}()
	p := NewProxy(t, l.Addr().String())
	dial := func() (net.Conn, *bufio.Reader) {
		c, err := net.Dial("tcp", p.Addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c, bufio.NewReader(c)
	}
	say := func(c net.Conn, text string) {
		if _, err := fmt.Fprintln(c, text); err != nil {
			t.Fatal(err)
		}
	}
	c, r := dial()
	say(c, "one")
	if line, err := r.ReadString('\n'); err != nil || line != "echo one\n" || <-heard != "one" {
		t.Fatalf("%q, %v", line, err)
	}
	p.Freeze(Down)
	say(c, "two")
	if got := <-heard; got != "two" {
		t.Fatalf("%q", got)
	}
	_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if line, err := r.ReadString('\n'); err == nil {
		t.Fatalf("%q came through what is frozen", line)
	}
	p.Thaw()
	_ = c.SetReadDeadline(time.Now().Add(Patience()))
	if line, err := r.ReadString('\n'); err != nil || line != "echo two\n" {
		t.Fatalf("%q, %v", line, err)
	}
	p.Cut(true)
	if _, err := r.ReadString('\n'); err == nil {
		t.Fatal("a cut connection goes on")
	}
	if c, r := dial(); c != nil {
		if _, err := r.ReadString('\n'); err == nil {
			t.Fatal("connected through a cut")
		}
	}
	p.Cut(false)
	c, r = dial()
	say(c, "three")
	if line, err := r.ReadString('\n'); err != nil || line != "echo three\n" {
		t.Fatalf("%q, %v", line, err)
	}
}
