package guard_test

import (
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const self = "github.com/quash-project/quash/shared/guard"

// allowed is everything that a program gets by importing the guard. A new line
// here is a new risk for every user: ask first whether it is worth it.
var allowed = []string{
	"github.com/MicahParks/jwkset",
	"github.com/cespare/xxhash/v2",
	"github.com/golang-jwt/jwt/v5",
	"github.com/klauspost/compress",
	"github.com/maypok86/otter/v2",
	"github.com/nats-io/nats.go",
	"github.com/nats-io/nkeys",
	"github.com/nats-io/nuid",
	"github.com/redis/go-redis/v9",
	"go.uber.org/atomic",
	"go.uber.org/multierr",
	"go.uber.org/zap",
	"golang.org/x/crypto",
	"golang.org/x/sync",
	"golang.org/x/sys",
	"golang.org/x/time",
}

const maxModules = 20

// list returns the distinct answers of go list about what packages depend on.
func list(t *testing.T, format string, packages ...string) []string {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-deps", "-f", format}, packages...)...)
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=readonly") // as an importer sees it
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	lines := strings.Fields(string(out))
	slices.Sort(lines)
	return slices.Compact(lines)
}

func TestGuardBringsOnlyAllowedModules(t *testing.T) {
	modules := list(t, "{{with .Module}}{{.Path}}{{end}}", "./...")
	for _, m := range modules {
		if m != self && !slices.Contains(allowed, m) {
			t.Errorf("the guard depends on %s, which is not on the list", m)
		}
	}
	if len(modules) > maxModules {
		t.Errorf("%d modules: %d at most", len(modules), maxModules)
	}
}

// TestGoModRequiresOnlyAllowedModules: a requirement that only a test uses
// enters every importer's build list, too.
func TestGoModRequiresOnlyAllowedModules(t *testing.T) {
	mod, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mod), "replace ") {
		t.Error("go.mod has a replace: it would not count for importers")
	}
	for _, m := range regexp.MustCompile(`(?m)^\s*(?:require )?([a-z0-9.]+\.[a-z]+/\S+) v`).FindAllStringSubmatch(string(mod), -1) {
		if !slices.Contains(allowed, m[1]) {
			t.Errorf("go.mod requires %s, which is not on the list", m[1])
		}
	}
}

func TestWordsOfRevocationNeedTheStandardLibraryOnly(t *testing.T) {
	for _, p := range list(t, "{{if not .Standard}}{{.ImportPath}}{{end}}", "./revoke") {
		if p != self+"/revoke" {
			t.Errorf("revoke depends on %s", p)
		}
	}
}

func TestTestingIsForTestsOnly(t *testing.T) {
	for _, p := range list(t, "{{.ImportPath}}", ".", "./guardhttp") {
		if p == "testing" || strings.HasSuffix(p, "/guardtest") {
			t.Errorf("programs that use the guard get %s", p)
		}
	}
}
