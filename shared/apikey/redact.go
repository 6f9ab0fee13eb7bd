package apikey

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/quash-project/quash/shared/guard/keyform"
)

// hidden stands in the place of what Redact takes out.
const hidden = "[redacted]"

// What a text must have after the beginning of a secret to be taken for one:
// fewer characters give nothing away, and are how help texts name the prefixes.
const (
	minSecret = 8
	minToken  = 16
)

// Redact returns text without what looks like a secret of ours, whole, cut
// short, lengthened or in another case, and without what looks like a JWT. It is
// for texts that go to callers and logs: people paste secrets where ids belong.
func Redact(text string) string {
	var out strings.Builder
	for text != "" {
		start, body, end := find(text)
		if start < 0 {
			break
		}
		out.WriteString(text[:body])
		out.WriteString(hidden)
		text = text[end:]
	}
	if out.Len() == 0 {
		return text
	}
	out.WriteString(text)
	return out.String()
}

// In reports whether Redact would find something in text.
func In(text string) bool {
	start, _, _ := find(text)
	return start >= 0
}

// find returns where the first secret begins, where its secret part does, and
// where it ends; -1 if there is none.
func find(text string) (start, body, end int) {
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case 'q', 'Q':
			for _, k := range kinds {
				if prefix := k.Prefix(); hasFold(text[i:], prefix) {
					body = i + len(prefix)
					if end = body + run(text[body:]); end-body >= minSecret {
						return i, body, end
					}
				}
			}
		case 'e':
			if strings.HasPrefix(text[i:], "eyJ") { // {" in base64url
				body = i + len("eyJ")
				if end = body + run(text[body:]); end-body >= minToken {
					return i, body, end
				}
			}
		}
	}
	return -1, 0, 0
}

// Find returns the secrets in a text that are whole, as Parse takes them.
func Find(text string) []string { return keyform.Find(text) }

var kinds = keyform.Kinds()

func hasFold(text, prefix string) bool {
	return len(text) >= len(prefix) && strings.EqualFold(text[:len(prefix)], prefix)
}

// run returns the length of what could go on with a secret: letters and digits
// of every script, since a misspelt secret is one still, and what is between the
// parts of a token.
func run(text string) int {
	for i, r := range text {
		if !unicode.IsLetter(r) && !unicode.IsDigit(r) && r != '_' && r != '-' && r != '.' && r != utf8.RuneError {
			return i
		}
	}
	return len(text)
}
