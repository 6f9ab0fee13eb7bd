package app

import (
	"strings"
	"testing"
	"time"

	"github.com/quash-project/quash/services/rotator"
	"github.com/quash-project/quash/shared/config"
)

func load(args ...string) (Config, error) {
	return config.Load[Config](config.Source{Service: "rotator", Args: args})
}

func TestEveryFaultOfTheConfigurationIsNamed(t *testing.T) {
	_, err := load("--issuer", "http://issuer.example", "--listen-addr", "127.0.0.1:0", "--alg", "RS256", "--key-life", "1h", "--lead", "1m", "--no-lead", "true")
	if err == nil {
		t.Fatal("it was taken")
	}
	for _, want := range []string{"issuer", "identity_file", "kek_file", "nats.url", "alg", "key_life", "no_lead"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %s", err, want)
		}
	}
}

func TestDefaultsAreThoseOfTheDesign(t *testing.T) {
	good := []string{
		"--issuer", "https://issuer.example", "--identity-file", "id", "--kek-file", "kek",
		"--nats-url", "nats://n", "--nats-creds", "c", "--listen-addr", "127.0.0.1:0",
	}
	cfg, err := load(good...)
	if err != nil {
		t.Fatal(err)
	}
	want := rotator.Policy{Lead: 6 * time.Minute, KeyLife: 90 * 24 * time.Hour, TokenLife: time.Hour, Alg: "ES256"}
	if got := cfg.policy(); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	cfg, err = load(append(good, "--no-lead", "true", "--alg", "EdDSA", "--key-life", "24h")...)
	if err != nil {
		t.Fatal(err)
	}
	want = rotator.Policy{KeyLife: 24 * time.Hour, TokenLife: time.Hour, Alg: "EdDSA"}
	if got := cfg.policy(); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
