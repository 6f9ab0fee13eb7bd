// Command barekey is the plain check of API keys with which most programs begin:
// a list of keys, read at the start. Who shows one of them may do everything.
// docs/api-keys.md attacks it. It is no part of Quash.
package main

import (
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

func main() {
	keys := flag.String("keys", "keys", "a file with one key a line")
	file := flag.String("url", "url", "a file to write the server's URL to")
	flag.Parse()
	if err := run(*keys, *file, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "barekey:", err)
		os.Exit(1)
	}
}

func run(keys, file string, log io.Writer) error {
	text, err := os.ReadFile(keys)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	// Renamed when whole: who waits for the file reads all of it.
	if err := os.WriteFile(file+".new", []byte("http://"+l.Addr().String()+"\n"), 0o600); err != nil {
		return err
	}
	if err := os.Rename(file+".new", file); err != nil {
		return err
	}
	srv := &http.Server{Handler: require(strings.Fields(string(text)), shop(), log), ReadHeaderTimeout: 10 * time.Second}
	return srv.Serve(l)
}

// require lets in whoever shows one of the keys. It compares hashes, so that the
// time it takes tells nothing of a key: the check itself is no weaker than it has
// to be.
func require(keys []string, next http.Handler, log io.Writer) http.Handler {
	known := map[[sha256.Size]byte]bool{}
	for _, k := range keys {
		known[sha256.Sum256([]byte(k))] = true
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		hash := sha256.Sum256([]byte(key))
		if !known[hash] {
			http.Error(w, "unknown key", http.StatusUnauthorized)
			return
		}
		fmt.Fprintf(log, "%s %s by key %s\n", r.Method, r.URL.Path, hex.EncodeToString(hash[:4]))
		next.ServeHTTP(w, r)
	})
}

func shop() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /orders", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "tea, honey") })
	mux.HandleFunc("GET /customers", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "alice, bob") })
	mux.HandleFunc("DELETE /orders/{id}", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	return mux
}
