package e2e

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// filtersOfLists are values of the filters of lists, other than what they have by default.
var filtersOfLists = map[string]map[string]string{
	"/v1/audit": {
		"actor": "alice", "target": "token:t0", "type": "change", "record": "keys/x", "tenant": "default", "incident": "inc_20260131120000_k3v7xq2m",
		"request": strings.Repeat("a", 32), "since": "2026-01-01T00:00:00Z", "until": "2099-01-01T00:00:00Z", "order": "oldest",
	},
	"/v1/bindings":   {"subject": "user1", "role": "auditor"},
	"/v1/keys":       {"owner": "alice", "client_id": "client_" + strings.Repeat("E", 22), "kind": "all", "label": "a=b", "state": "active", "expires_within": "400d", "unused_since": "1m"},
	"/v1/pending":    {"state": "all", "whole": strings.Repeat("A", 22)},
	"/v1/principals": {"kind": "person", "label": "a=b"},
	"/v1/targets":    {"select": "keys where owner=mallory"},
}

// pagesAreOfOneQuestion: the token of a page is of one list, as it was asked for by one
// tenant. With another filter, or to another tenant, it is what a made-up one is, in every
// list that has pages; tried is a receipt with two attempts.
func (c *contract) pagesAreOfOneQuestion(by []string, tried string) {
	c.t.Helper()
	acme := c.newTenant("acme")
	acme.newKey("alice")
	for _, name := range []string{"one", "two"} {
		if r := acme.send(http.MethodPost, "/v1/principals", `{"id":"`+name+`"}`); r.status != http.StatusCreated {
			c.t.Fatalf("%d %s", r.status, r.body)
		}
	}
	theirs := []string{"Authorization", "Bearer " + acme.token}
	shared, lists := 0, 0
	for pattern, ops := range c.paths {
		get := ops["get"]
		if !slices.ContainsFunc(get.Parameters, func(p struct{ Name, In string }) bool { return p.Name == "page" }) {
			continue
		}
		lists++
		l := pagedList{contract: c, path: strings.Replace(pattern, "{id}", tried, 1), base: url.Values{}}
		if pattern == "/v1/targets" {
			l.base.Set("select", "keys where owner=alice")
		}
		token := l.token(by, nil)
		if token == "" {
			c.t.Errorf("%s: there is no second page to ask for", pattern)
			continue
		}
		if got := l.refuses(theirs, nil, token); got != http.StatusUnprocessableEntity && pattern != "/v1/tenants" && pattern != "/v1/fleet" && pattern != "/v1/receipts/{id}/attempts" {
			c.t.Errorf("%s: acme has status %d for the token of a page of another tenant's", pattern, got)
		}
		if own := l.token(theirs, nil); own != "" {
			shared++
			if got := l.refuses(by, nil, own); got != http.StatusUnprocessableEntity {
				c.t.Errorf("%s: status %d for the token of a page of acme's", pattern, got)
			}
		}
		for _, p := range get.Parameters {
			if p.In != "query" || p.Name == "page" || p.Name == "limit" {
				continue
			}
			value, known := filtersOfLists[pattern][p.Name]
			if !known {
				c.t.Errorf("%s: there is no value here to try its filter %s with", pattern, p.Name)
				continue
			}
			filter := url.Values{p.Name: {value}}
			if got := l.refuses(by, filter, token); got != http.StatusUnprocessableEntity {
				c.t.Errorf("%s with %s: status %d for the token of a page without", pattern, filter.Encode(), got)
			}
			if filtered := l.token(by, filter); filtered != "" {
				if got := l.refuses(by, nil, filtered); got != http.StatusUnprocessableEntity {
					c.t.Errorf("%s: status %d for the token of a page with %s", pattern, got, filter.Encode())
				}
			}
		}
	}
	if lists < 15 || shared < 4 {
		c.t.Errorf("%d lists were found, and %d of acme's have two pages", lists, shared)
	}
}

// pagedList is a list and what it must be asked.
type pagedList struct {
	*contract
	path string
	base url.Values
}

func (l *pagedList) get(by []string, filter url.Values, page ...string) reply {
	q := url.Values{}
	for _, from := range []url.Values{l.base, filter, onePage(page)} {
		for name, values := range from {
			q[name] = values
		}
	}
	return l.send(http.MethodGet, l.path+"?"+q.Encode(), "", by...)
}

func onePage(page []string) url.Values {
	if len(page) == 0 {
		return url.Values{"limit": {"1"}}
	}
	return url.Values{"limit": {"1"}, "page": page}
}

// token returns that of the second page, if the caller is shown one.
func (l *pagedList) token(by []string, filter url.Values) string {
	l.t.Helper()
	r := l.get(by, filter)
	if r.status != http.StatusOK {
		if filter != nil {
			l.t.Errorf("%s with %s: %d %.200s", l.path, filter.Encode(), r.status, r.body)
		}
		return ""
	}
	var body struct {
		Next string `json:"next_page"`
	}
	if err := json.Unmarshal(r.body, &body); err != nil {
		l.t.Fatal(err)
	}
	return body.Next
}

// refuses wants for a token the answer that a made-up one has, and returns its status.
func (l *pagedList) refuses(by []string, filter url.Values, token string) int {
	l.t.Helper()
	made := strings.Repeat("A", len(token))
	got, want := l.get(by, filter, token), l.get(by, filter, made)
	if a, b := ownOf.ReplaceAll(got.body, nil), ownOf.ReplaceAll(want.body, nil); got.status != want.status || !bytes.Equal(a, b) {
		l.t.Errorf("%s with %s: %d %.300s; a made-up token has %d %.300s", l.path, filter.Encode(), got.status, got.body, want.status, want.body)
	}
	return got.status
}
