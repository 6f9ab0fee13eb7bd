package doctor

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// signed is a certificate for this machine, from an authority of the test.
type signed struct {
	pair  tls.Certificate
	roots *x509.CertPool
}

func sign(t *testing.T, from, until time.Time, ip string) signed {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "a test"}, NotBefore: time.Now().Add(-100 * 24 * time.Hour), NotAfter: time.Now().Add(1000 * time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	root, err := x509.ParseCertificate(caDER)
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: from, NotAfter: until, IPAddresses: []net.IP{net.ParseIP(ip)}}
	der, err := x509.CreateCertificate(rand.Reader, leaf, root, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	s := signed{tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, x509.NewCertPool()}
	s.roots.AddCert(root)
	return s
}

// TestCertificatesAreJudgedByTheirEnd: by what the server shows, each endpoint by
// itself; and one that is not good says why.
func TestCertificatesAreJudgedByTheirEnd(t *testing.T) {
	const day = 24 * time.Hour
	for name, c := range map[string]struct {
		from, until        time.Duration // from now
		ip                 string
		stranger           bool
		state, check, text string
	}{
		"long":        {-day, 80 * day, "127.0.0.1", false, "good", "certificate of 127", "good until"},
		"soon":        {-80 * day, 10 * day, "127.0.0.1", false, "wrong", "certificate of 127", "ends in 2"},
		"a day's":     {-time.Hour, 23 * time.Hour, "127.0.0.1", false, "good", "certificate of 127", "good until"},
		"a day's end": {-21 * time.Hour, 3 * time.Hour, "127.0.0.1", false, "wrong", "certificate of 127", "ends in"},
		"expired":     {-2 * day, -day, "127.0.0.1", false, "wrong", "certificate of 127", "renew"},
		"of another":  {-day, 80 * day, "127.0.0.2", false, "wrong", "certificate of 127", "by a name"},
		"a stranger":  {-day, 80 * day, "127.0.0.1", true, "wrong", "certificate of 127", "SSL_CERT_FILE"},
	} {
		t.Run(name, func(t *testing.T) {
			cert := sign(t, time.Now().Add(c.from), time.Now().Add(c.until), c.ip)
			i := &issuer{keys: twoKeys, fleet: wellOff}
			start(t, i, func(h http.Handler) *httptest.Server {
				srv := httptest.NewUnstartedServer(h)
				srv.TLS = &tls.Config{Certificates: []tls.Certificate{cert.pair}}
				srv.Config.ErrorLog = quiet
				srv.StartTLS()
				return srv
			})
			client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: cert.roots}}}
			if c.stranger {
				client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: x509.NewCertPool()}}}
			}
			t.Cleanup(client.CloseIdleConnections)
			want(t, examine(t, i, func(cfg *Config) { cfg.HTTP = client }), c.state, c.check, c.text)
		})
	}
}

func TestNoTLSIsWrongBetweenMachines(t *testing.T) {
	if f := certificate("10.0.0.1:4222", nil, time.Now()); f.OK || f.Mend == "" {
		t.Errorf("%+v", f)
	}
	for _, here := range []string{"127.0.0.1:1", "[::1]:1", "localhost:1"} {
		if f := certificate(here, nil, time.Now()); !f.OK {
			t.Errorf("%+v", f)
		}
	}
}

// quiet has the server not write of handshakes that the test wants to fail.
var quiet = log.New(io.Discard, "", 0)
