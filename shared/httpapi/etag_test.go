package httpapi

import (
	"context"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/danielgtaylor/huma/v2"
	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/problem"
)

func TestConditionsAreReadAsRFC9110Says(t *testing.T) {
	shown := map[string]int{"a": 1}
	tag, err := Tag(shown)
	if err != nil {
		t.Fatal(err)
	}
	const yes, no, bad = -1, int(problem.Precondition), int(problem.Invalid)
	for _, c := range []struct {
		text string
		want int
	}{
		{"", yes},
		{"*", yes},
		{" * ", yes},
		{tag, yes},
		{`"x", ` + tag, yes},
		{`"x",` + tag + " ,, ", yes},
		{`"x"`, no},
		{`""`, no},
		{"W/" + tag, no}, // strong comparison: 13.1.1
		{strings.Trim(tag, `"`), bad},
		{tag + tag, bad},
		{tag + "x", bad},
		{`"x`, bad},
		{`"a b"`, bad},
		{`w/"x"`, bad},
		{"*, " + tag, bad},
		{", ,", bad},
		{"W/", bad},
	} {
		err := IfMatch{c.text}.Check(shown)
		got := yes
		if err != nil {
			got = int(problem.KindOf(err))
		}
		if got != c.want {
			t.Errorf("If-Match: %s: %v", c.text, err)
		}
	}
}

func TestARecordThatIsTheSameIsNotSentAgain(t *testing.T) {
	mux := http.NewServeMux()
	api := New(mux, "test", tokens{}, zap.NewNop())
	shown := box{Name: "a"}
	Register(api, huma.Operation{OperationID: "getBox", Method: "GET", Path: "/v1/box"}, "boxes",
		func(_ context.Context, in *struct{ IfNoneMatch }) (*boxOutput, error) {
			return Show(in.IfNoneMatch, shown)
		})
	srv := httptest.NewServer(Handler(mux, nil, nil))
	t.Cleanup(srv.Close)
	get := func(header ...string) answer {
		return do(t, srv, "GET", "/v1/box", "boxes", "", header...)
	}
	first := get()
	tag := first.Header.Get("ETag")
	if first.StatusCode != 200 || len(tag) != 24 {
		t.Fatalf("status %d, ETag %q", first.StatusCode, tag)
	}
	for _, known := range []string{tag, "W/" + tag, `"x", ` + tag, "*"} {
		if a := get(noneMatchHeader, known); a.StatusCode != 304 || a.text != "" || a.Header.Get("ETag") != tag {
			t.Errorf("If-None-Match: %s: status %d, ETag %q, %q", known, a.StatusCode, a.Header.Get("ETag"), a.text)
		}
	}
	if a := get(noneMatchHeader, `"x"`); a.StatusCode != 200 || a.text != first.text {
		t.Errorf("another one: status %d", a.StatusCode)
	}
	if a := get(noneMatchHeader, `x`); a.StatusCode != 422 || a.doc.Field != noneMatchHeader {
		t.Errorf("a malformed one: status %d: %s", a.StatusCode, a.text)
	}
	shown.Name = "b"
	if a := get(noneMatchHeader, tag); a.StatusCode != 200 || a.Header.Get("ETag") == tag {
		t.Errorf("a changed record: status %d, ETag %q", a.StatusCode, a.Header.Get("ETag"))
	}
}

func FuzzTags(f *testing.F) {
	for _, s := range []string{"*", `"a"`, `W/"a", "b"`, `"a`, `,,"a",`, "W/", "\"\x00\""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := parseTags(text)
		if err != nil || got.any {
			return
		}
		again, err := parseTags(strings.Join(got.list, ", "))
		if err != nil || len(got.list) == 0 || !slices.Equal(again.list, got.list) {
			t.Errorf("%q is %q, and that is %q, %v", text, got.list, again.list, err)
		}
	})
}
