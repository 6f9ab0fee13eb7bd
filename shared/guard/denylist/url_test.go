package denylist

import (
	"slices"
	"strings"
	"testing"
)

func TestURLsOfEveryKindOfRedis(t *testing.T) {
	for text, want := range map[string]struct {
		addrs          []string
		master, user   string
		sentinel       string
		cluster, byTLS bool
	}{
		"redis://u:secret@h:1/2":                 {addrs: []string{"h:1"}, user: "u"},
		"rediss://u:secret@h:1":                  {addrs: []string{"h:1"}, user: "u", byTLS: true},
		"redis://u:secret@h:1?addr=i:2&addr=j:3": {addrs: []string{"h:1", "i:2", "j:3"}, user: "u", cluster: true},
		"rediss://u:secret@h:1?addr=i:2":         {addrs: []string{"h:1", "i:2"}, user: "u", cluster: true, byTLS: true},
		"rediss://s:secret@h:1?addr=i:2&master_name=m&username=u&password=secret":     {addrs: []string{"h:1", "i:2"}, master: "m", user: "u", sentinel: "s", byTLS: true},
		"redis://h:1?master_name=m&username=u&password=secret&addr=i:2&client_name=c": {addrs: []string{"h:1", "i:2"}, master: "m", user: "u"},
	} {
		o, err := ParseURL(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		slices.Sort(o.Addrs)
		if !slices.Equal(o.Addrs, want.addrs) || o.MasterName != want.master || o.Username != want.user || o.SentinelUsername != want.sentinel ||
			o.IsClusterMode != want.cluster || (o.TLSConfig != nil) != want.byTLS || o.Password != "secret" {
			t.Errorf("%s: %+v", text, o)
		}
		if several := want.cluster || want.master != ""; several && o.TLSConfig != nil && o.TLSConfig.ServerName != "" {
			t.Errorf("%s: every node's certificate would have to be good for %s", text, o.TLSConfig.ServerName)
		}
	}
}

func TestBadURLsAreRefusedWithoutTheirPassword(t *testing.T) {
	for _, text := range []string{
		"", "h:1", "http://u:secret@h:1", "redis://u:secret@h:1/x", "redis://u:secret@h:1?unknown=1", "redis://u:secret@h:port",
		"redis://u:secret@h:1?master_name=", "redis://h:1?master_name=m&password=secret&unknown=1", "redis://u:secret@h:1?addr=", "://secret",
		"redis://u:secret@h:1?addr=x&y=z", "redis://u:secr\x00et@h",
	} {
		o, err := ParseURL(text)
		if err == nil {
			t.Errorf("%q gave %+v", text, o)
			continue
		}
		if strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: the error repeats the password: %v", text, err)
		}
	}
}

func FuzzParseURL(f *testing.F) {
	for _, s := range []string{"redis://u:p@h:1/2", "rediss://h?addr=i:2", "redis://h:1?master_name=m&addr=i:2", "x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		o, err := ParseURL(text)
		if err == nil && len(o.Addrs) == 0 {
			t.Errorf("%q gave no address", text)
		}
	})
}
