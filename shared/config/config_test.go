package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

type natsConfig struct {
	URL   string `koanf:"url"`
	Creds string `koanf:"creds"`
}

type testConfig struct {
	Listen    string        `koanf:"listen"`
	Limit     time.Duration `koanf:"limit"`
	Replicas  int           `koanf:"replicas"`
	TrustKeys []string      `koanf:"trust_keys"`
	NATS      natsConfig    `koanf:"nats"`
}

func (c testConfig) Validate() error {
	if c.Replicas < 0 {
		return errors.New("replicas -1: must not be negative")
	}
	return nil
}

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFlagsOverEnvironmentOverFile(t *testing.T) {
	path := write(t, "listen: file\nlimit: 5s\nreplicas: 1\nnats:\n  url: nats://file\n  creds: file\ntrust_keys: [a, b]\n")
	got, err := Load[testConfig](Source{
		Service: "issuer",
		Args:    []string{"--config", path, "--nats-url", "nats://flag", "--limit=7s"},
		Environ: []string{"QUASH_ISSUER_NATS_URL=nats://env", "QUASH_ISSUER_REPLICAS=3", "QUASH_URL=other", "PATH=/bin"},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := testConfig{"file", 7 * time.Second, 3, []string{"a", "b"}, natsConfig{"nats://flag", "file"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestWhatIsWrongIsRefusedByName(t *testing.T) {
	for name, c := range map[string]struct {
		file, flag, env string
		says            string
	}{
		"unknown key":    {"listn: x\n", "", "", "listn"},
		"case":           {"Listen: x\n", "", "", "Listen"},
		"nested":         {"nats:\n  uri: x\n", "", "", "uri"},
		"duplicate":      {"listen: x\nlisten: y\n", "", "", "listen"},
		"type":           {"limit: soon\n", "", "", "limit"},
		"shape":          {"nats: x\n", "", "", "nats"},
		"not YAML":       {"\tlisten", "", "", "c.yaml"},
		"unknown flag":   {"", "--listn=x", "", "listn"},
		"argument":       {"", "x", "", "x"},
		"environment":    {"", "", "QUASH_ISSUER_LISTN=x", "QUASH_ISSUER_LISTN"},
		"env type":       {"", "", "QUASH_ISSUER_REPLICAS=many", "replicas"},
		"validation":     {"replicas: -1\n", "", "", "replicas -1"},
		"missing file":   {"", "--config=/nonexistent.yaml", "", "/nonexistent.yaml"},
		"list for value": {"listen: [a]\n", "", "", "listen"},
	} {
		t.Run(name, func(t *testing.T) {
			s := Source{Service: "issuer", Usage: &strings.Builder{}, Environ: []string{c.env}}
			if c.file != "" {
				s.Args = append(s.Args, "--config", write(t, c.file))
			}
			if c.flag != "" {
				s.Args = append(s.Args, c.flag)
			}
			if _, err := Load[testConfig](s); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want an error that names %q", err, c.says)
			}
		})
	}
}

// FuzzConfig: whatever is accepted has only keys that exist; a text with one
// more key is refused.
func FuzzConfig(f *testing.F) {
	f.Add("listen: a\nnats:\n  url: x\n")
	f.Add("limit: 5s\nreplicas: 3\ntrust_keys: [a]\n")
	f.Add("{listen: a}")
	f.Fuzz(func(t *testing.T, text string) {
		if _, err := Parse[testConfig]([]byte(text)); err != nil {
			return
		}
		if strings.Contains(text, "zz_unknown") || strings.ContainsAny(text, "{}%&*#-") {
			return // flow style and documents: a line can't be added blindly
		}
		if _, err := Parse[testConfig]([]byte(strings.TrimRight(text, " ") + "\nzz_unknown: 1\n")); err == nil {
			t.Errorf("%q with an unknown key was accepted", text)
		}
	})
}
