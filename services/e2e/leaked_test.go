package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// TestKeyInAURLOfAnyServiceIsReported: whichever of the services is asked, a key in the URL
// counts as leaked. One that another system gave out is known by its hash alone.
func TestKeyInAURLOfAnyServiceIsReported(t *testing.T) {
	s := inProcess(t)
	op := s.token(s.operator)
	const imported = "sk_live_9fHq39LyjWDarjtT1zdp7x"
	for service, path := range map[string]string{"revocation": "/v1/fleet?api_key=", "revocation's ids": "/v1/receipts/", "rotator": "/v1/signing-keys?x=", "rotator's ids": "/v1/rotations/"} {
		var own apiKey
		s.decode(s.raw(op, http.MethodPost, "/v1/keys", `{"owner":"pat"}`), http.StatusCreated, &own)
		sum := sha256.Sum256([]byte(imported + service[:3] + path[4:6]))
		var made struct{ Items []struct{ ID string } }
		s.decode(s.api(op, http.MethodPost, "/v1/keys/import", json.RawMessage(`{"keys":[{"owner":"pat","sha256":"`+hex.EncodeToString(sum[:])+`"}]}`)), http.StatusOK, &made)
		for id, secret := range map[string]string{own.ID: own.Secret, made.Items[0].ID: imported + service[:3] + path[4:6]} {
			r := s.raw(op, http.MethodGet, path+secret, "")
			if r.status < 400 || r.status >= 500 || strings.Contains(string(r.body), secret) {
				t.Errorf("%s: %d %s, want it refused", service, r.status, r.body)
			}
			eventually(t, service+" has reported it", func() error {
				var k struct {
					Leaked *struct{ Where string }
				}
				s.decode(s.raw(op, http.MethodGet, "/v1/keys/"+id, ""), http.StatusOK, &k)
				if k.Leaked == nil {
					return fmt.Errorf("key %s is not noted as leaked", id)
				}
				if !strings.Contains(k.Leaked.Where, "URL of a request to Quash: GET /v1/") {
					t.Errorf("where: %q", k.Leaked.Where)
				}
				return nil
			})
		}
	}
}
