package app

import (
	"strings"
	"testing"

	"github.com/quash-project/quash/shared/config"
)

func TestEveryFaultOfTheConfigurationIsNamed(t *testing.T) {
	_, err := config.Load[Config](config.Source{Service: "issuer", Args: []string{"--url", "http://issuer.example", "--listen-addr", "127.0.0.1:0"}})
	if err == nil {
		t.Fatal("it was taken")
	}
	for _, want := range []string{"url", "trust", "kek_file", "nats.url"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %s", err, want)
		}
	}
	good := []string{
		"--url", "https://issuer.example", "--trust", "ed25519:x", "--kek-file", "kek", "--nats-url", "nats://n", "--nats-creds", "c",
		"--listen-addr", "127.0.0.1:0", "--token-life", "5m",
	}
	cfg, err := config.Load[Config](config.Source{Service: "issuer", Args: good})
	if err != nil || cfg.TokenLife.Minutes() != 5 {
		t.Errorf("%+v, %v", cfg, err)
	}
}
