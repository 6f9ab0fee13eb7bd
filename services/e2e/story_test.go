package e2e

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

// TestStory is the life and death of a credential: issued, exchanged, used,
// revoked by a responder, and refused within milliseconds, with proof.
func TestStory(t *testing.T) {
	q := start(t, t.TempDir())
	key := q.newKey("alice", "--scope", "orders:read")
	tok := q.token(key)
	q.wantOrders(tok, http.StatusOK)
	if r := q.run(tok, "check", "-"); r.code != 0 {
		t.Fatalf("check of a live token: exit code %d, want 0\n%s%s", r.code, r.out, r.err)
	}

	r := q.revoke("key:" + key.ID)
	if !r.Complete || len(r.Confirmed) == 0 {
		t.Fatalf("revoke --wait: %+v, want complete and confirmed by name", r)
	}
	q.wantOrders(tok, http.StatusUnauthorized)
	if r := q.run(tok, "check", "-"); r.code != 1 || strings.Contains(r.out, "via:") || !strings.Contains(r.out, "ended key:"+key.ID+" since ") {
		t.Fatalf("check of a revoked token: exit code %d, want 1 and what hits it by its name\n%s%s", r.code, r.out, r.err)
	}
	if _, status := q.tryExchange(key.Secret); status != http.StatusBadRequest {
		t.Fatalf("exchange of a revoked key: status %d, want 400", status)
	}

	named := map[string]bool{}
	for _, c := range r.Confirmed {
		named[strings.TrimRight(c.Name, "-12")] = true // demo-1 and demo-2 between processes
	}
	if !named["demo"] {
		t.Errorf("confirmed by %v, want demo among them", named)
	}
}

// TestOAuthClient runs an unmodified OAuth client through client credentials.
func TestOAuthClient(t *testing.T) {
	q := start(t, t.TempDir())
	c := q.newClient("reports")
	for _, style := range []oauth2.AuthStyle{oauth2.AuthStyleInHeader, oauth2.AuthStyleInParams, oauth2.AuthStyleAutoDetect} {
		conf := clientcredentials.Config{
			ClientID: c.ID, ClientSecret: c.Secret, TokenURL: q.env["QUASH_URL"] + "/oauth/token",
			Scopes: []string{"orders:read"}, AuthStyle: style,
		}
		ctx, cancel := context.WithTimeout(context.Background(), deadline)
		defer cancel()
		tok, err := conf.Token(ctx)
		if err != nil {
			t.Fatalf("client credentials, style %d: %v", style, err)
		}
		if left := time.Until(tok.Expiry); left < 9*time.Minute || left > 10*time.Minute {
			t.Errorf("token expires in %s, want 10 minutes", left)
		}
		q.wantOrders(tok.AccessToken, http.StatusOK)
	}
	tok, err := (&clientcredentials.Config{ClientID: c.ID, ClientSecret: c.Secret, TokenURL: q.env["QUASH_URL"] + "/oauth/token"}).Token(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	q.revoke("client:" + c.ID)
	q.wantOrders(tok.AccessToken, http.StatusUnauthorized)
}

// TestRevokedCredentialComesBackOnlyWhenMadeAnew cuts a user, and makes anew.
func TestRevokedCredentialComesBackOnlyWhenMadeAnew(t *testing.T) {
	q := start(t, t.TempDir())
	old := q.newKey("bob", "--scope", "orders:read")
	other := q.newKey("carol", "--scope", "orders:read")
	oldTok, otherTok := q.token(old), q.token(other)
	q.revoke("principal:bob")
	q.wantOrders(oldTok, http.StatusUnauthorized)
	q.wantOrders(otherTok, http.StatusOK)
	if _, status := q.tryExchange(old.Secret); status != http.StatusBadRequest {
		t.Errorf("exchange of a cut user's key: status %d, want 400", status)
	}
	q.wantOrders(q.token(q.newKey("bob", "--scope", "orders:read")), http.StatusOK)
}

// TestHoldAndRelease holds a user and lets go again.
func TestHoldAndRelease(t *testing.T) {
	q := start(t, t.TempDir())
	key := q.newKey("dora", "--scope", "orders:read")
	tok := q.token(key)
	q.ok("hold", "principal:dora", "--reason", "odd traffic", "--wait", "60s")
	q.wantOrders(tok, http.StatusUnauthorized)
	q.ok("release", "principal:dora", "--reason", "was a test", "--wait", "60s")
	q.wantOrders(tok, http.StatusOK)
	q.ok("hold", "principal:dora", "--for", "4s", "--reason", "short", "--wait", "60s")
	q.wantOrders(tok, http.StatusUnauthorized)
	eventually(t, "a hold with an end is released by the service", func() error {
		if s := q.orders(tok); s != http.StatusOK {
			return &statusError{s}
		}
		return nil
	})
}

type statusError struct{ status int }

func (e *statusError) Error() string { return http.StatusText(e.status) }

// TestRotationRefusesNoValidToken rotates the signing key, calmly and in an
// emergency, while tokens are in use.
func TestRotationRefusesNoValidToken(t *testing.T) {
	q := start(t, t.TempDir())
	key := q.newKey("erin", "--scope", "orders:read")
	before := q.token(key)
	var rot struct {
		Kid, Previous string
		SignsAt       time.Time `json:"signs_at"`
	}
	q.json(&rot, "rotate", "signing-key", "--reason", "routine")
	if rot.Kid == "" || rot.Previous == "" || rot.Kid == rot.Previous || rot.SignsAt.IsZero() {
		t.Fatalf("rotate: %+v, want kid, previous and signs_at", rot)
	}
	q.wantOrders(before, http.StatusOK)
	after := q.token(key)
	if got := kid(t, after); got != rot.Kid {
		t.Errorf("a token made after the rotation is signed by %s, want %s", got, rot.Kid)
	}
	q.wantOrders(after, http.StatusOK)

	q.json(&rot, "rotate", "signing-key", "--reason", "stolen", "--emergency")
	eventually(t, "tokens of the stolen key are refused", func() error {
		if s := q.orders(after); s != http.StatusUnauthorized {
			return &statusError{s}
		}
		return nil
	})
	anew := q.token(key)
	q.wantOrders(anew, http.StatusOK)
	q.wantOrders(before, http.StatusOK) // its key retired, and was not stolen
}

func kid(t testing.TB, token string) string {
	t.Helper()
	var h struct{ Kid string }
	if err := json.Unmarshal(segment(t, token, 0), &h); err != nil {
		t.Fatal(err)
	}
	return h.Kid
}
