package httpapi

import (
	"slices"
	"strings"
	"testing"

	"github.com/quash-project/quash/shared/problem"
	"github.com/quash-project/quash/shared/seal"
)

func TestPagesAreOfOneQuestion(t *testing.T) {
	file := t.TempDir() + "/kek"
	if err := seal.CreateKEK(file); err != nil {
		t.Fatal(err)
	}
	kek, err := seal.LoadKEK(file)
	if err != nil {
		t.Fatal(err)
	}
	itself := func(s *string) string { return *s }
	pages := NewPages(kek)
	list := []string{"a", "b", "c", "d", "e"}
	q := Question{List: "letters", Tenant: "default"}
	var all []string
	page := ""
	for range 5 {
		got, next, err := Paginate(pages, q, list, Page{Page: page, Limit: 2}, itself)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, got...)
		if page = next; next == "" {
			break
		}
		// What was read is taken away, and something comes before it.
		list = append([]string{"A"}, slices.DeleteFunc(slices.Clone(list), func(s string) bool { return s == got[0] })...)
	}
	if strings.Join(all, "") != "abcde" {
		t.Errorf("read %q", all)
	}
	_, token, err := Paginate(pages, q, list, Page{Limit: 2}, itself)
	if err != nil {
		t.Fatal(err)
	}
	flipped := []byte(token)
	flipped[len(flipped)/2] ^= 1
	for what, try := range map[string]struct {
		q    Question
		page string
	}{
		"another list":   {Question{List: "numbers", Tenant: "default"}, token},
		"another tenant": {Question{List: "letters", Tenant: "acme"}, token},
		"another filter": {Question{List: "letters", Tenant: "default", Filter: "x"}, token},
		"cut short":      {q, token[:len(token)-4]},
		"flipped":        {q, string(flipped)},
		"made up":        {q, "AAAA"},
		"no base64":      {q, "!"},
	} {
		if _, _, err := Paginate(pages, try.q, list, Page{Page: try.page, Limit: 2}, itself); problem.KindOf(err) != problem.Invalid {
			t.Errorf("%s: %v", what, err)
		}
	}
}
