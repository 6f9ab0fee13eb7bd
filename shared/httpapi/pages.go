package httpapi

import (
	"context"
	"encoding/base64"
	"encoding/json"

	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/quash-project/quash/shared/problem"
)

// Page are the query parameters of a list.
type Page struct {
	Page  string `query:"page" maxLength:"2000" doc:"next_page of the answer before, to the same question"`
	Limit int    `query:"limit" minimum:"1" maximum:"1000" default:"100"`
}

// Pages makes the tokens by which lists go on.
type Pages struct{ aead tink.AEAD }

// NewPages returns Pages whose tokens nobody can make up or read. All replicas need
// the same aead.
func NewPages(aead tink.AEAD) Pages { return Pages{aead} }

// Question is what a list was asked for. A token of a page is good for the same
// question alone, of the same tenant: with another it would tell of what the caller
// was not shown.
type Question struct {
	List, Tenant string
	Filter       any
}

// QuestionOf returns the caller's question.
func QuestionOf(ctx context.Context, list string, filter any) Question {
	return Question{list, CallerOf(ctx).Tenant, filter}
}

// errPage tells nothing of what is wrong with a token: it is not for people.
func errPage() error {
	return problem.FieldError("page", "want next_page of an answer to the same question")
}

// maxPageText is how long the text may be by which a page begins.
const maxPageText = 1000

// Paginate returns one page of a sorted list. A page begins after the record that
// the one before ended with, so that nothing is shown twice or left out because of
// what was added or removed meanwhile. key must sort as the list does.
func Paginate[T any](s Pages, q Question, items []T, p Page, key func(*T) string) ([]T, string, error) {
	after, err := s.After(q, p.Page)
	if err != nil {
		return nil, "", err
	}
	if p.Page != "" {
		i := 0
		for i < len(items) && key(&items[i]) <= after {
			i++
		}
		items = items[i:]
	}
	if len(items) <= p.Limit {
		return items, "", nil
	}
	items = items[:p.Limit]
	next, err := s.Next(q, key(&items[len(items)-1]))
	return items, next, err
}

// Next returns the token of the page after a text, for a list that is not read as a
// whole.
func (s Pages) Next(q Question, after string) (string, error) {
	if len(after) > maxPageText {
		return "", problem.New(problem.Internal, "a page can't end here")
	}
	associated, err := json.Marshal(q)
	if err != nil {
		return "", err
	}
	sealed, err := s.aead.Encrypt([]byte(after), associated)
	return base64.RawURLEncoding.EncodeToString(sealed), err
}

// After returns the text of which Next has made a token, for the same question. Of no
// token, for the first page, that is none.
func (s Pages) After(q Question, token string) (string, error) {
	if token == "" {
		return "", nil
	}
	associated, err := json.Marshal(q)
	if err != nil {
		return "", err
	}
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil {
		return "", errPage()
	}
	after, err := s.aead.Decrypt(sealed, associated)
	if err != nil {
		return "", errPage()
	}
	return string(after), nil
}
