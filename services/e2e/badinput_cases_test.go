package e2e

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
)

func (v *victim) badMethods(r route) []bad {
	path, _, _ := strings.Cut(r.path, "?")
	return []bad{
		{name: "method", method: "PATCH", path: path, want: 405},
		{name: "made-up method", method: "REVOKE", path: path, want: 405},
		{name: "method in lower case", method: strings.ToLower(r.method), path: path, want: 405},
	}
}

func (v *victim) badCallers(r route) []bad {
	body := ""
	header := func(pairs ...string) []string {
		pairs = append([]string{}, pairs...) // none at all is not nil
		if r.good != nil {
			pairs = append(pairs, "Content-Type", "application/json")
		}
		return pairs
	}
	if r.good != nil {
		body = r.with("", nil)
	}
	weak := v.services.token(v.key.Secret)
	return []bad{
		{name: "no token", header: header(), body: body, want: 401},
		{name: "empty header", header: header("Authorization", ""), body: body, want: 401},
		{name: "no scheme", header: header("Authorization", v.token), body: body, want: 401},
		{name: "Basic", header: header("Authorization", "Basic "+v.token), body: body, want: 401},
		{name: "empty token", header: header("Authorization", "Bearer "), body: body, want: 401},
		{name: "two tokens", header: header("Authorization", "Bearer "+v.token+" "+v.token), body: body, want: 401},
		{name: "a list", header: header("Authorization", "Bearer "+v.token+", Bearer "+v.token), body: body, want: 401},
		{name: "two headers", header: header("Authorization", "Bearer "+v.token, "Authorization", "Bearer "+v.token), body: body, want: 422, field: "Authorization"},
		{name: "an API key", header: header("Authorization", "Bearer "+v.operator), body: body, want: 401},
		{name: "cut short", header: header("Authorization", "Bearer "+v.token[:len(v.token)-2]), body: body, want: 401},
		{name: "lengthened", header: header("Authorization", "Bearer "+v.token+"AA"), body: body, want: 401},
		{name: "another signature", header: header("Authorization", "Bearer "+v.token[:strings.LastIndex(v.token, ".")]+weak[strings.LastIndex(weak, "."):]), body: body, want: 401},
		{name: "no signature", header: header("Authorization", "Bearer "+v.token[:strings.LastIndex(v.token, ".")+1]), body: body, want: 401},
		{name: "very long", header: header("Authorization", "Bearer "+strings.Repeat("a", 20<<10)), body: body, want: 401},
		{name: "token in the query", path: join(r.path, "access_token="+v.token), header: header(), body: body, want: 401},
		{name: "scope missing", header: header("Authorization", "Bearer "+weak), body: body, want: 403},
	}
}

func join(path, query string) string {
	if strings.Contains(path, "?") {
		return path + "&" + query
	}
	return path + "?" + query
}

func (v *victim) badQueries(r route) []bad {
	body := ""
	if r.good != nil {
		body = r.with("", nil)
	}
	cases := []bad{
		{name: "unknown parameter", path: join(r.path, "unknown=1"), body: body, want: 422, field: "unknown"},
		{name: "unknown parameter with a secret", path: join(r.path, "unknown="+v.key.Secret), body: body, want: 422},
		{name: "parameter in another case", path: join(r.path, "Wait=1s&Reason=x"), body: body, want: 422},
		{name: "bad escape", path: join(r.path, "reason=%zz"), body: body, want: 422},
		{name: "semicolon", path: join(r.path, "a=1;b=2"), body: body, want: 422},
	}
	if r.method == "DELETE" {
		cases = append(
			cases,
			bad{name: "reason twice", path: join(r.path, "reason=a&reason=b"), want: 422, field: "reason"},
			bad{name: "reason with a control character", path: join(r.path, "reason=a%00b"), want: 422, field: "reason"},
			bad{name: "reason that is no UTF-8", path: join(r.path, "reason=%ff"), want: 422, field: "reason"},
			bad{name: "reason too long", path: join(r.path, "reason="+strings.Repeat("a", 2000)), want: 422, field: "reason"},
			bad{name: "reason with a secret", path: join(r.path, "reason="+v.key.Secret), want: 422, field: "reason"},
		)
	}
	return cases
}

func (v *victim) badTypes(r route) []bad {
	body := r.with("", nil)
	by := func(pairs ...string) []string { return append(pairs, "Authorization", "Bearer "+v.token) }
	return []bad{
		{name: "no media type", header: by(), body: body, want: 415},
		{name: "text", header: by("Content-Type", "text/plain"), body: body, want: 415},
		{name: "a form", header: by("Content-Type", "application/x-www-form-urlencoded"), body: body, want: 415},
		{name: "another JSON", header: by("Content-Type", "application/merge-patch+json"), body: body, want: 415},
		{name: "latin-1", header: by("Content-Type", "application/json; charset=iso-8859-1"), body: body, want: 415},
		{name: "a parameter", header: by("Content-Type", "application/json; version=1"), body: body, want: 415},
		{name: "two media types", header: by("Content-Type", "application/json", "Content-Type", "application/json"), body: body, want: 415},
		{name: "malformed media type", header: by("Content-Type", "application/json; ="), body: body, want: 415},
		{name: "compressed", header: by("Content-Type", "application/json", "Content-Encoding", "gzip"), body: body, want: 415},
	}
}

// badForms are bodies that no route takes.
func (v *victim) badForms(r route) []bad {
	good := r.with("", nil)
	member := r.text[0]
	pad := func(n int) string { return good + strings.Repeat(" ", n-len(good)) }
	return []bad{
		{name: "empty", header: []string{"Authorization", "Bearer " + v.token, "Content-Type", "application/json"}, want: 422},
		{name: "blank", body: "  \n", want: 422},
		{name: "null", body: "null", want: 422},
		{name: "an array", body: "[" + good + "]", want: 422},
		{name: "a text", body: `"` + v.key.Secret + `"`, want: 422},
		{name: "cut short", body: good[:len(good)-1], want: 422},
		{name: "trailing data", body: good + "{}", want: 422},
		{name: "trailing text", body: good + v.key.Secret, want: 422},
		{name: "trailing comma", body: good[:len(good)-1] + ",}", want: 422},
		{name: "a comment", body: "/* */" + good, want: 422},
		{name: "a byte order mark", body: "\ufeff" + good, want: 422},
		{name: "too large", body: pad(r.limit + 1), want: 413},
		{name: "10,000 deep objects", body: strings.Repeat(`{"`+member+`":`, 10_000) + "1" + strings.Repeat("}", 10_000), want: tooDeep(r, 10_000*(len(member)+5))},
		{name: "10,000 deep arrays", body: `{"` + member + `":` + strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000) + "}", want: 422},
		{name: "10,000 open arrays", body: strings.Repeat("[", 10_000), want: 422},
		{name: "no UTF-8", body: `{"` + member + `":"` + "\xff" + `"}`, want: 422},
		{name: "overlong UTF-8", body: `{"` + member + `":"` + "\xc0\x80" + `"}`, want: 422},
		{name: "half a surrogate pair", body: `{"` + member + `":"\ud800"}`, want: 422, field: member},
		{name: "a control character", body: `{"` + member + `":"a` + "\x01" + `b"}`, want: 422, field: member},
		{name: "an escaped control character", body: `{"` + member + `":"a\u0000b"}`, want: 422, field: member},
		{name: "a member twice", body: `{"` + member + `":"` + v.key.Secret + `","` + member + `":"` + v.key.Secret + `"}`, want: 422, field: member},
		{name: "a member twice, once escaped", body: `{"` + member + `":"x","\u00` + fmt.Sprintf("%02x", member[0]) + member[1:] + `":"x"}`, want: 422, field: member},
		{name: "an oddly cased member", body: `{"` + strings.ToUpper(member) + `":"` + v.key.Secret + `"}`, want: 422, field: strings.ToUpper(member)},
		{name: "an unknown member", body: good[:len(good)-1] + comma(r) + `"unknown":"` + v.key.Secret + `"}`, want: 422, field: "unknown"},
		{name: "a secret as a member", body: good[:len(good)-1] + comma(r) + `"` + v.key.Secret + `":1}`, want: 422},
	}
}

// tooDeep is what a body of n bytes gets that is also nested too deeply.
func tooDeep(r route, n int) int {
	if n > r.limit {
		return http.StatusRequestEntityTooLarge
	}
	return http.StatusUnprocessableEntity
}

func comma(r route) string {
	if len(r.good) == 0 {
		return ""
	}
	return ","
}

// badMembers are values of the wrong type for each member that is a text, and
// secrets where none belongs.
func (v *victim) badMembers(r route) []bad {
	var cases []bad
	for _, member := range r.text {
		for name, value := range map[string]any{
			"a number": 12345678901234567, "true": true, "an array": []string{v.key.Secret}, "an object": map[string]any{"x": v.key.Secret},
		} {
			cases = append(cases, bad{name: member + " as " + name, body: r.with(member, value), want: 422, field: member})
		}
		cases = append(cases, bad{name: member + " as null", body: `{"` + member + `":null}`, want: 422, field: member})
		switch member {
		case "secret", "token":
			continue // where one belongs
		case "audience":
			continue // any text can be one, and it is kept nowhere
		}
		want := http.StatusUnprocessableEntity
		if member == "tenant" {
			want = http.StatusForbidden
		}
		for name, secret := range v.planted {
			cases = append(cases, bad{name: member + " with " + name, body: r.with(member, secret), want: want, field: member})
		}
	}
	for member := range r.good {
		if member != "" {
			cases = append(cases, bad{name: "no " + member, body: r.with(member, nil), want: 422, field: member})
		}
	}
	if strings.HasSuffix(r.path, "/out") { // its reason may be left out
		cases = slices.DeleteFunc(cases, func(b bad) bool { return b.name == "no reason" })
	}
	return cases
}
