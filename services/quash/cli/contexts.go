package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/quash-project/quash/shared/seal"
	"github.com/quash-project/quash/shared/strictjson"
)

// contexts is the file of what quash login has kept. Who could write it could send an
// API key elsewhere, so it is its owner's alone. It names the files of keys and has
// none: a key lies in one place.
type contexts struct {
	Current  string           `json:"current,omitempty"`
	Contexts map[string]place `json:"contexts"`
	// Incidents are those under which commands are done, by who does them where.
	Incidents map[string]string `json:"incidents,omitempty"`

	path string
}

// place is one issuer, and who one is there.
type place struct {
	Issuer  string `json:"issuer"`
	KeyFile string `json:"key_file"`
}

// contextName is what a name may be: it is typed, and stands in lists.
var contextName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}$`)

// contextsPath is in the directory for configuration of the XDG base directory
// specification.
func (a *app) contextsPath() (string, error) {
	dir := a.env.Getenv("XDG_CONFIG_HOME")
	if !filepath.IsAbs(dir) { // the specification has a relative one ignored
		home := a.env.Getenv("HOME")
		if home == "" {
			return "", usage("neither XDG_CONFIG_HOME nor HOME is set: there is no place to keep a context in; set QUASH_URL and QUASH_KEY_FILE instead")
		}
		dir = filepath.Join(home, ".config")
	}
	return filepath.Join(dir, "quash", "contexts.json"), nil
}

// contexts reads the file; there may be none.
func (a *app) contexts() (contexts, error) {
	c := contexts{Contexts: map[string]place{}}
	var err error
	if c.path, err = a.contextsPath(); err != nil {
		return c, err
	}
	data, err := seal.ReadSecretFile(c.path)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, usage("the contexts of quash login: %w", err)
	}
	if err := strictjson.Decode(data, &c); err != nil {
		return c, usage("%s is not what quash login writes: %w; mend or remove it", c.path, err)
	}
	return c, nil
}

// write replaces the file as a whole.
func (c contexts) write() error {
	dir := filepath.Dir(c.path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	data, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".contexts-*") // with mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(append(bytes.TrimSpace(data), '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), c.path)
}

// find returns the context of a name, that in use for none.
func (c contexts) find(name string) (string, place, error) {
	if name == "" {
		name = c.Current
	}
	if name == "" {
		return "", place{}, usage("no context is in use: quash login makes one, quash context use NAME takes another")
	}
	one, ok := c.Contexts[name]
	if !ok {
		return "", place{}, usage("there is no context %.64q: quash context list names those that are kept", name)
	}
	return name, one, nil
}

func (c contexts) names() []string { return slices.Sorted(maps.Keys(c.Contexts)) }

// signedIn says where the commands go and as whom: flags before the environment, that
// before the context in use. The key of a context is for its issuer alone: another that
// a flag or the environment names does not get it.
func (a *app) signedIn() (place, error) {
	name := a.context
	who := place{Issuer: strings.TrimSuffix(a.url, "/")}
	if name == "" {
		who = place{Issuer: strings.TrimSuffix(a.or(a.url, "QUASH_URL"), "/"), KeyFile: a.env.Getenv("QUASH_KEY_FILE")}
		name = a.env.Getenv("QUASH_CONTEXT")
	}
	if name == "" && who.Issuer != "" && who.KeyFile != "" {
		return who, nil
	}
	kept, err := a.contexts()
	if err != nil || name == "" && kept.Current == "" {
		return who, err
	}
	name, one, err := kept.find(name)
	if err != nil {
		return who, err
	}
	if who.Issuer == "" {
		who.Issuer = one.Issuer
	}
	if a.context != "" && who.Issuer != one.Issuer {
		return who, usage("--context %s is of %s, and --url says %s: give one of them", name, one.Issuer, who.Issuer)
	}
	if who.KeyFile == "" && who.Issuer == one.Issuer {
		who.KeyFile = one.KeyFile
	}
	return who, nil
}

func (a *app) showContext(name string, one place, current bool) error {
	return a.print(contextRecord{name, one, current}, func() {
		a.fields("name", name, "issuer", one.Issuer, "key file", one.KeyFile, "in use", fmt.Sprint(current))
	})
}

type contextRecord struct {
	Name string `json:"name"`
	place
	Current bool `json:"current"`
}
