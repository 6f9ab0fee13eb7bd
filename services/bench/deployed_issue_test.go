package bench

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"github.com/quash-project/quash/shared/authority"
)

// BenchmarkDeploymentIssue: API key exchanges a second at two replicas, by callers
// on the same machine, in turns with two processes that do no more than the same
// cryptography: TLS with the same certificate, a hash of the key, a signature.
func BenchmarkDeploymentIssue(b *testing.B) {
	const callers, rounds = 16, 5
	d := deploy(b)
	secret := d.key(b, "issue")
	token := d.exchange(b, secret)
	ask := func(addresses [2]string) func(c, i int) error {
		return func(c, _ int) error {
			req, err := exchangeRequest(addresses[c%2], secret)
			if err != nil {
				return err
			}
			return d.send(req, http.StatusOK, nil)
		}
	}
	quash := ask([2]string{d.address("issuer-1"), d.address("issuer-2")})
	bare := ask([2]string{d.bareIssuer(b, token), d.bareIssuer(b, token)})
	var ours, theirs float64
	n := 0
	for b.Loop() {
		for range rounds {
			ours += during(b, callers, quash)
			theirs += during(b, callers, bare)
			n++
		}
	}
	b.ReportMetric(ours/float64(n), "tokens/s")
	b.ReportMetric(theirs/float64(n), "bare/s")
}

// bareIssuer starts one in a process of its own, and returns its address.
func (d *deployed) bareIssuer(b *testing.B, token string) string {
	b.Helper()
	in, out := startChild(b, "signer", filepath.Join(d.dir, "tls"))
	// What it signs is as long as what the issuer does.
	if _, err := fmt.Fprintln(in, token[:strings.LastIndexByte(token, '.')]); err != nil {
		b.Fatal(err)
	}
	address, err := out.ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	return strings.TrimSpace(address)
}

// serveBare reads what is to be signed from the input, and serves until that ends.
func serveBare(dir string, in *bufio.Reader) error {
	text, err := in.ReadString('\n')
	if err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Printf("https://%s\n", l.Addr())
	failed := make(chan error, 1)
	go func() {
		failed <- http.ServeTLS(l, signer(strings.TrimSpace(text), key), filepath.Join(dir, authority.CertFile), filepath.Join(dir, authority.KeyFile))
	}()
	select {
	case err := <-failed:
		return err
	case <-endOf(in):
		return nil
	}
}

// signer gives whoever shows a secret a signature over the text.
func signer(text string, key *ecdsa.PrivateKey) http.Handler {
	known := sha256.Sum256(nil)
	return http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		err := r.ParseForm()
		hash := sha256.Sum256([]byte(r.PostForm.Get("subject_token")))
		if err != nil || subtle.ConstantTimeCompare(hash[:], known[:]) == 1 { // none was shown
			http.Error(out, "bad", http.StatusBadRequest)
			return
		}
		sig, err := jwt.SigningMethodES256.Sign(text, key)
		if err != nil {
			http.Error(out, "bad", http.StatusInternalServerError)
			return
		}
		out.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(out).Encode(map[string]any{ // the caller has gone; nothing is left to do
			"access_token": text + "." + base64.RawURLEncoding.EncodeToString(sig), "token_type": "Bearer", "expires_in": 600,
		})
	})
}
