package deployment

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/knadh/koanf/parsers/yaml"

	"github.com/quash-project/quash/services/demo"
	issuer "github.com/quash-project/quash/services/issuer/app"
	revocation "github.com/quash-project/quash/services/revocation/app"
	rotator "github.com/quash-project/quash/services/rotator/app"
	"github.com/quash-project/quash/shared/config"
)

// TestShippedConfigurationIsWhatTheServicesTake: each file is good as it stands,
// and has every setting, with its reason before it.
func TestShippedConfigurationIsWhatTheServicesTake(t *testing.T) {
	t.Run("issuer", func(t *testing.T) { shipped[issuer.Config](t, "issuer.yaml") })
	t.Run("rotator", func(t *testing.T) { shipped[rotator.Config](t, "rotator.yaml", "no_lead") })
	t.Run("revocation", func(t *testing.T) { shipped[revocation.Config](t, "revocation.yaml") })
	t.Run("demo", func(t *testing.T) { shipped[demo.Config](t, "demo.yaml") })
}

// shipped wants all settings of T in the file but those named.
func shipped[T any](t *testing.T, file string, but ...string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "deploy", file))
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Parse[T](text)
	if err != nil {
		t.Fatal(err)
	}
	if err := any(&cfg).(config.Validator).Validate(); err != nil {
		t.Errorf("%s: %v", file, err)
	}
	raw, err := yaml.Parser().Unmarshal(text)
	if err != nil {
		t.Fatal(err)
	}
	has := map[string]bool{}
	for _, name := range but {
		has[name] = true
	}
	flatten(raw, "", has)
	for _, name := range settingsOf(reflect.TypeFor[T](), "") {
		if !has[name] {
			t.Errorf("%s does not have %s", file, name)
		}
	}
	said := false
	for n, line := range strings.Split(string(text), "\n") {
		line = strings.TrimSpace(line)
		switch {
		case line == "":
			said = false
		case strings.HasPrefix(line, "#"):
			said = true
		case !said && !strings.HasSuffix(line, ":"):
			t.Errorf("%s:%d: nothing says what %s is", file, n+1, line)
		}
	}
}

func flatten(m map[string]any, prefix string, into map[string]bool) {
	for k, v := range m {
		if sub, ok := v.(map[string]any); ok {
			flatten(sub, prefix+k+".", into)
			continue
		}
		into[prefix+k] = true
	}
}

func settingsOf(t reflect.Type, prefix string) []string {
	var out []string
	for i := range t.NumField() {
		f := t.Field(i)
		name := f.Tag.Get("koanf")
		switch {
		case name == "" || name == "-":
		case f.Type.Kind() == reflect.Struct:
			out = append(out, settingsOf(f.Type, prefix+name+".")...)
		default:
			out = append(out, prefix+name)
		}
	}
	return out
}
