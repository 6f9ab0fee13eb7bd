package selector

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func day(d int) time.Time { return time.Date(2026, 1, d, 0, 0, 0, 0, time.UTC) }

func TestParse(t *testing.T) {
	const d = 24 * time.Hour
	for text, want := range map[string]Selector{
		"keys where owner=alice and label=ci and unused>90d and made>=2026-01-01": {What: Keys, Owner: "alice", Having: []string{"ci"}, Unused: 90 * d, From: day(1)},
		`keys where owner="a b \"c\" \\d" and creator=bob`:                        {What: Keys, Owner: `a b "c" \d`, Creator: "bob"},
		"keys where made > 2026-01-01 and made <= 2026-01-31":                     {What: Keys, From: day(2), To: day(32)},
		"keys where made<2026-01-02T03:04:05+01:00":                               {What: Keys, To: day(2).Add(2*time.Hour + 4*time.Minute + 5*time.Second)},
		"keys where label=env=prod and label=team and kind=all and state=revoked": {What: Keys, Labels: map[string]string{"env": "prod"}, Having: []string{"team"}, Kind: "all", State: "revoked"},
		"keys where ends<7d and client=client_x":                                  {What: Keys, Ends: 7 * d, Client: "client_x"},
		"principals where name=and and client=where":                              {What: Principals, Name: "and", Client: "where"},
		"  principals\twhere\n kind = workload ":                                  {What: Principals, Kind: "workload"},
	} {
		got, err := Parse(text)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
}

func TestErrorsSayWhereAndWhat(t *testing.T) {
	for text, want := range map[string]string{
		"":                               "1: here: want keys or principals",
		"tokens where owner=a":           `1: "tokens": want keys or principals`,
		"keys":                           `5: here: want "where"`,
		"keys where":                     "11: here: keys have client, creator",
		"keys where owner":               "17: here: after owner want =",
		"keys where owner=":              "18: want a value",
		`keys where owner=""`:            "18: want a value",
		"keys where owner>alice":         `17: ">": after owner want =`,
		"keys where owner==alice":        `17: "==": after owner`,
		"keys where owner=a or owner=b":  `20: "or": want "and"`,
		"keys where owner=a and":         "23: here: keys have",
		"keys where owner=a owner=b":     `20: "owner": want "and"`,
		"keys where owner=a and owner=b": "24: owner is said twice",
		"keys where size=1":              `12: "size": keys have`,
		"principals where unused>1d":     `18: "unused": principals have client, kind, label, name`,
		"keys where unused>90":           `19: "90": want how long`,
		"keys where unused>0d":           `19: "0d"`,
		"keys where unused>99999999d":    `19: "99999999d"`,
		"keys where made>=yesterday":     `18: "yesterday": want a day`,
		"keys where made>=2026-02-30":    `18: "2026-02-30"`,
		"keys where made>2026-01-02 and made>=2026-01-01": "32: made is said twice",
		"keys where made>=2026-01-02 and made<2026-01-02": "1: nothing is made from",
		"keys where state=dead":                           `18: "dead": want active`,
		"keys where label=a=b and label=a=c":              "32: the label a is wanted with two values",
		"keys where label=é":                              `18: "é": want the name of a label`,
		`keys where owner="é" and nothing=1`:              `26: "nothing"`,
		`keys where owner="a`:                             "18: the quote has no end",
		`keys where owner="a\b"`:                          `20: after \`,
		`keys where owner="a"b`:                           "21: after a quoted value",
		`keys where owner=a"b"`:                           "19: a quote in the middle",
		"keys where owner=a\x00b":                         `18: "a\x00b" has a control character`,
		"keys where owner=\xff":                           "1: it is not valid UTF-8",
		"keys where owner=" + strings.Repeat("a", MaxLen): "2001: a selector has 2000 bytes",
	} {
		_, err := Parse(text)
		var e *Error
		if !errors.As(err, &e) || !strings.HasPrefix(err.Error(), "at character "+want) {
			t.Errorf("%.80q: %v, want %s", text, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("keys where owner=alice and label=ci and unused>90d and made>=2026-01-01")
	f.Add(`principals where name="a \"b\"" and client=c`)
	f.Add("keys where made<=9998-12-31 and ends<87600h")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Parse(text)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.At < 1 || utf8.ValidString(text) && e.At > utf8.RuneCountInString(text)+1 {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		if reflect.DeepEqual(s, Selector{What: s.What}) {
			t.Fatalf("%q selects everything", text)
		}
		again, err := Parse("  " + strings.TrimSpace(text) + " ")
		if len(text) < MaxLen-3 && (err != nil || !reflect.DeepEqual(s, again)) {
			t.Fatalf("%q: %+v, with spaces around %+v, %v", text, s, again, err)
		}
	})
}
