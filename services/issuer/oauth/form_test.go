package oauth

import (
	"encoding/base64"
	"net/url"
	"strings"
	"testing"
)

// What is taken agrees with net/url, and has nothing twice.
func FuzzParseForm(f *testing.F) {
	for _, s := range []string{"", "a=b", "a=b&a=c", "a=&a=", "a=b;c", "%zz", "a=%00", "resource=x&resource=y", "&&a=+%2B", "=x", "a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, body string) {
		got, err := parseForm(body, "resource")
		if err != nil {
			if len(body) > 20 && strings.Contains(err.Error(), body) {
				t.Error("the error repeats the body")
			}
			return
		}
		want, err := url.ParseQuery(body)
		if err != nil {
			t.Fatalf("%q was taken, and net/url refuses it: %v", body, err)
		}
		for name, values := range got {
			if len(values) > 1 && name != "resource" {
				t.Errorf("%q: %q stands there %d times", body, name, len(values))
			}
			var full []string
			for _, v := range want[name] {
				if v != "" {
					full = append(full, v)
				}
			}
			if strings.Join(full, "\x00") != strings.Join(values, "\x00") {
				t.Errorf("%q: %q is %q, net/url has %q", body, name, values, full)
			}
		}
	})
}

func FuzzParseBasic(f *testing.F) {
	for _, s := range []string{"Basic YTpi", "basic  YTpi", "Basic", "Bearer x", "Basic YQ==", "Basic JTNBOiUyNQ=="} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, header string) {
		a, ok := parseBasic(header)
		if !ok {
			return
		}
		if a.ID == "" || a.Secret == "" {
			t.Errorf("%q gave an empty part", header)
		}
		again := "Basic " + base64.StdEncoding.EncodeToString([]byte(url.QueryEscape(a.ID)+":"+url.QueryEscape(a.Secret)))
		if b, ok := parseBasic(again); !ok || b != a {
			t.Errorf("%q gave %+v, which is written %q", header, a, again)
		}
	})
}
