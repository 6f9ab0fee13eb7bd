package httpapi

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/quash-project/quash/shared/problem"
)

// Headers of RFC 9110, section 13.1.
const (
	matchHeader     = "If-Match"
	noneMatchHeader = "If-None-Match"
)

// IfMatch is part of the input of what changes a record.
type IfMatch struct {
	Wanted string `header:"If-Match" maxLength:"2000" doc:"ETag of the record as it was read: the change is refused (412) if the record is another one by now. Checked in the very step that changes the record"`
}

// Check returns problem.Precondition unless what is shown is what the caller has
// seen.
func (m IfMatch) Check(shown any) error {
	if m.Wanted == "" {
		return nil
	}
	tags, err := parseTags(m.Wanted)
	if err != nil {
		return problem.FieldError(matchHeader, "%v", err)
	}
	tag, err := Tag(shown)
	if err != nil {
		return err
	}
	if tags.any || slices.Contains(tags.list, tag) { // strong comparison: no weak tag is ours
		return nil
	}
	return &problem.Error{Kind: problem.Precondition, Field: matchHeader, Detail: "the record is not what it was when you read it; look at it again"}
}

// IfNoneMatch is part of the input of what shows a record.
type IfNoneMatch struct {
	Known string `header:"If-None-Match" maxLength:"2000" doc:"ETag of the record as it was read: 304 and no body if it is still the same"`
}

// Tagged is an output with one record, and the tag of it.
type Tagged[T any] struct {
	Status int
	ETag   string `header:"ETag" doc:"of the record as it is shown; good for If-Match and If-None-Match"`
	Body   T
}

// orElse sets the status of an answer that has none.
func (t *Tagged[T]) orElse(status int) {
	if t.Status == 0 {
		t.Status = status
	}
}

// Show answers with a record, or says that it is still the same.
func Show[T any](in IfNoneMatch, shown T) (*Tagged[T], error) {
	out, err := TaggedOf(shown)
	if err != nil || in.Known == "" {
		return out, err
	}
	tags, err := parseTags(in.Known)
	if err != nil {
		return nil, problem.FieldError(noneMatchHeader, "%v", err)
	}
	same := func(t string) bool { return strings.TrimPrefix(t, "W/") == out.ETag } // weak comparison
	if tags.any || slices.ContainsFunc(tags.list, same) {
		out.Status = http.StatusNotModified
	}
	return out, nil
}

// TaggedOf answers with a record after a change.
func TaggedOf[T any](shown T) (*Tagged[T], error) {
	tag, err := Tag(shown)
	return &Tagged[T]{ETag: tag, Body: shown}, err
}

// Tag returns the strong entity tag of what is shown of a record: a digest of it,
// so that it changes with whatever of it changes, on every replica alike, and
// tells nothing that was not shown. What has a method Tagged says by it what is the
// record: not what was merely seen of it, which a change is not to be held against.
func Tag(shown any) (string, error) {
	if p, ok := shown.(interface{ Tagged() any }); ok {
		shown = p.Tagged()
	}
	text, err := json.Marshal(shown)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(text)
	return `"` + base64.RawURLEncoding.EncodeToString(sum[:16]) + `"`, nil
}

// tags is the value of If-Match or If-None-Match.
type tags struct {
	any  bool // "*"
	list []string
}

var errTags = errors.New(`want * or a list of ETags as they were answered, as in "abc", "def"`)

// parseTags reads RFC 9110, sections 8.8.3 and 13.1: "*" or a list of entity tags.
func parseTags(text string) (t tags, err error) {
	if strings.Trim(text, " \t") == "*" {
		return tags{any: true}, nil
	}
	for rest := text; ; {
		// A list may have empty elements: RFC 9110, section 5.6.1.2.
		rest = strings.TrimLeft(rest, " \t,")
		if rest == "" {
			break
		}
		begin := 0
		if strings.HasPrefix(rest, "W/") {
			begin = 2
		}
		if len(rest) <= begin || rest[begin] != '"' {
			return tags{}, errTags
		}
		n := strings.IndexByte(rest[begin+1:], '"')
		if n < 0 || strings.ContainsFunc(rest[begin+1:begin+1+n], func(r rune) bool { return r <= 0x20 || r == 0x7f }) {
			return tags{}, errTags
		}
		n += begin + 2
		t.list = append(t.list, rest[:n])
		rest = strings.TrimLeft(rest[n:], " \t")
		if rest != "" && rest[0] != ',' {
			return tags{}, errTags
		}
	}
	if len(t.list) == 0 {
		return tags{}, errTags
	}
	return t, nil
}
