package e2e

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// forms are the spellings of a secret that are looked for: as it is, in hex and
// in base64 wherever it begins. Of each a long part will do: of a token the
// signature, of ours random characters.
func forms(s string) [][]byte {
	part := s
	if len(s) > 40 {
		part = s[len(s)-36 : len(s)-6]
	}
	out := [][]byte{[]byte(part), []byte(hex.EncodeToString([]byte(part)))}
	for shift := range 3 {
		// The characters at both ends depend on the neighbours.
		for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			text := enc.EncodeToString(append(make([]byte, shift), part...))
			out = append(out, []byte(text[4:len(text)-3]))
		}
	}
	return out
}

// search looks for every secret in everything.
func (h *hunt) search(redisView string) {
	h.t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	places := map[string][]byte{
		"the output of the process": []byte(h.out.String()),
		"the traffic over NATS":     h.traffic.Bytes(),
		"answers and errors":        h.said.Bytes(),
		"the Redis view":            []byte(redisView),
	}
	err := filepath.WalkDir(h.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, _ := filepath.Rel(h.dir, path)
		places[filepath.ToSlash(name)], err = os.ReadFile(path)
		if st, serr := d.Info(); serr == nil && !strings.HasPrefix(name, "jetstream") && st.Mode().Perm() != 0o600 {
			h.t.Errorf("%s has the mode %v, want 0600", name, st.Mode().Perm())
		}
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
	if st, err := os.Stat(h.dir); err != nil || st.Mode().Perm() != 0o700 {
		h.t.Errorf("the data directory has the mode %v, %v, want 0700", st.Mode().Perm(), err)
	}
	h.lookedWell(places)
	for name, s := range h.secrets {
		found := false
		for place, data := range places {
			for _, form := range forms(s.text) {
				if !bytes.Contains(data, form) {
					continue
				}
				if slices.Contains(strings.Fields(s.file), place) {
					found = true
				} else {
					h.t.Errorf("%s is in %s: …%s…", name, place, around(data, form))
				}
				break
			}
		}
		if s.file != "" && !found && !strings.Contains(s.file, "dev.env") {
			h.t.Errorf("%s was not found in %s, where it is: the search is blind", name, s.file)
		}
	}
}

// around shows what stands before a secret, without it.
func around(data, form []byte) string {
	i := bytes.Index(data, form)
	return strings.ToValidUTF8(string(data[max(0, i-160):i]), "?")
}

// lookedWell fails if what must be in a place is not: then nothing that was not
// found there means anything.
func (h *hunt) lookedWell(places map[string][]byte) {
	h.t.Helper()
	inside := func(match func(string) bool, text string) bool {
		for place, data := range places {
			if match(place) && bytes.Contains(data, []byte(text)) {
				return true
			}
		}
		return false
	}
	is := func(want string) func(string) bool { return func(s string) bool { return s == want } }
	inJetStream := func(s string) bool { return strings.HasPrefix(s, "jetstream/") }
	for _, c := range []struct {
		match func(string) bool
		text  string
	}{
		{is("the traffic over NATS"), "quash.feed."},
		{is("the traffic over NATS"), "$KV.keys."},
		{is("the traffic over NATS"), "dev.quash.log.entry"},
		{is("answers and errors"), "https://quash.dev/problems/"},
		{is("answers and errors"), "[redacted]"},
		{is("the Redis view"), ":t:"},
		{is("the output of the process"), "QUASH_DEMO_URL"},
		{is("quash.log"), "connected to NATS"},
		{inJetStream, "dev.quash.log.entry"},
		{inJetStream, "principal"},
	} {
		if !inside(c.match, c.text) {
			h.t.Errorf("%q was seen nowhere it should be: the search looks in the wrong place", c.text)
		}
	}
}
