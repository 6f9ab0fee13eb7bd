package identity

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
)

// ServerConfigFile is what a nats-server includes to know operator and accounts.
const ServerConfigFile = "accounts.conf"

// Services returns the names of the services' users, sorted.
func Services() []string {
	var out []string
	for role := range accountOf() {
		if role != guardRole {
			out = append(out, role)
		}
	}
	return slices.Sorted(slices.Values(out))
}

// ServerConfig is the part of a nats-server's configuration by which it knows
// operator and accounts. There is nothing secret in it. The accounts stand in
// the configuration itself: no server asks another one who somebody is.
func (s *Set) ServerConfig() (string, error) {
	system, err := s.AccountKey(Sys)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# Who may do what. Made by quash nats init; the same for every server.\noperator: %s\nsystem_account: %s\nresolver: MEMORY\nresolver_preload: {\n", s.OperatorJWT, system)
	for _, name := range slices.Sorted(maps.Keys(s.AccountJWTs)) {
		key, err := s.AccountKey(name)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "  # %s\n  %s: %s\n", name, key, s.AccountJWTs[name])
	}
	b.WriteString("}\n")
	return b.String(), nil
}

// WriteServerConfig writes ServerConfig into the directory and returns its path.
func (s *Set) WriteServerConfig() (string, error) {
	text, err := s.ServerConfig()
	if err != nil {
		return "", err
	}
	path := filepath.Join(s.dir, ServerConfigFile)
	return path, writeFile(path, []byte(text))
}
