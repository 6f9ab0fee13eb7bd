package collection

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// step is one request of the tour. Values may name variables, as {{token}}.
type step struct {
	op    string // operationId, or orders
	title string
	why   string // what is to be seen here, before what the document says
	auth  auth
	path  map[string]string
	query map[string]string
	// header has those that the document names.
	header map[string]string
	form   []string // pairs
	body   string   // JSON
	want   []int    // none: the only success that the document knows
	// before is run before the request, test after those of the rest: lines of JavaScript.
	before, test []string
	holds        []holds
	keep         []keep
}

// holds is something that must be true of the answer: JavaScript over the variable answer
// that is true or false, so that no failure prints a part of the answer.
type holds struct{ name, expression string }

// keep puts a text of the answer into a variable, for the requests after it.
type keep struct{ variable, member string }

func (s *step) item(in string, calls map[string]call) (item, error) {
	c, ok := calls[s.op]
	if !ok {
		return item{}, errors.New("the document has no such operation")
	}
	want, err := s.statuses(&c)
	if err != nil {
		return item{}, err
	}
	r := request{Auth: s.auth, Method: c.method, Description: strings.TrimSpace(s.why + "\n\n" + c.about)}
	if s.title == "" || s.auth.kind == "" {
		return item{}, errors.New("the step has no title, or does not say how it authenticates")
	}
	if r.URL, err = s.link(&c); err != nil {
		return item{}, err
	}
	if r.Header, err = fields(c.params, "header", s.header); err != nil {
		return item{}, err
	}
	if r.Body, err = s.content(&c); err != nil {
		return item{}, err
	}
	if c.takesJSON {
		r.Header = append([]field{{Key: "Content-Type", Value: "application/json"}}, r.Header...)
	}
	out := item{ID: idOf(in, s.title), Name: s.title, Request: r, Responses: []struct{}{}}
	if len(s.before) > 0 {
		out.Events = append(out.Events, event{"prerequest", script{"text/javascript", s.before}})
	}
	out.Events = append(out.Events, event{"test", script{"text/javascript", s.tests(want)}})
	return out, nil
}

var sets = regexp.MustCompile(`pm\.collectionVariables\.set\("(\w+)"`)

// declare adds the variables that an item sets: who imports a collection sees what it keeps.
func (i *item) declare(to []variable) []variable {
	for _, e := range i.Events {
		for _, m := range sets.FindAllStringSubmatch(strings.Join(e.Script.Exec, "\n"), -1) {
			if !slices.ContainsFunc(to, func(v variable) bool { return v.Key == m[1] }) {
				to = append(to, variable{Key: m[1], Type: "string", Description: "set by: " + i.Name})
			}
		}
	}
	return to
}

// statuses are those that the step takes.
func (s *step) statuses(c *call) ([]int, error) {
	if len(s.want) == 0 && len(c.success) == 1 {
		status, err := strconv.Atoi(c.success[0])
		return []int{status}, err
	}
	if len(s.want) == 0 {
		return nil, fmt.Errorf("the document knows the successes %q: say which one is wanted", c.success)
	}
	for _, status := range s.want {
		if status < 300 && !slices.Contains(c.success, strconv.Itoa(status)) {
			return nil, fmt.Errorf("the document knows no success %d", status)
		}
	}
	return s.want, nil
}

// link writes {id} as :id, with its value beside it, as Postman does.
func (s *step) link(c *call) (link, error) {
	l := link{Host: []string{c.base}}
	for _, part := range strings.Split(strings.TrimPrefix(c.path, "/"), "/") {
		if name, ok := strings.CutPrefix(part, "{"); ok {
			part = ":" + strings.TrimSuffix(name, "}")
		}
		l.Path = append(l.Path, part)
	}
	var err error
	if l.Variable, err = fields(c.params, "path", s.path); err != nil {
		return l, err
	}
	if l.Query, err = fields(c.params, "query", s.query); err != nil {
		return l, err
	}
	l.Raw = c.base + "/" + strings.Join(l.Path, "/")
	sep := "?"
	for _, f := range l.Query {
		if !f.Disabled {
			l.Raw, sep = l.Raw+sep+f.Key+"="+f.Value, "&"
		}
	}
	return l, nil
}

// fields are the parameters of one place, those without a value disabled.
func fields(params []*huma.Param, in string, values map[string]string) ([]field, error) {
	out := []field{}
	left := maps.Clone(values)
	for _, p := range params {
		if p.In != in {
			continue
		}
		value, ok := values[p.Name]
		if !ok && p.Required {
			return nil, fmt.Errorf("the step lacks %s, which must stand in the %s", p.Name, in)
		}
		delete(left, p.Name)
		out = append(out, field{Key: p.Name, Value: value, Description: p.Description, Disabled: !ok})
	}
	for name := range left {
		return nil, fmt.Errorf("the document knows no %s in the %s", name, in)
	}
	return out, nil
}

// content is the body of a request.
func (s *step) content(c *call) (*body, error) {
	if (s.body != "") != c.takesJSON || (len(s.form) > 0) != (c.form != nil) {
		return nil, errors.New("the step has another kind of body than the document")
	}
	switch {
	case c.takesJSON:
		var text bytes.Buffer
		if err := json.Indent(&text, []byte(s.body), "", "  "); err != nil {
			return nil, fmt.Errorf("body: %w", err)
		}
		b := &body{Mode: "raw", Raw: text.String(), Options: &options{}}
		b.Options.Raw.Language = "json"
		return b, nil
	case c.form != nil:
		return s.filled(c.form)
	}
	return nil, nil
}

// filled is a form; its members without a value are disabled.
func (s *step) filled(form *huma.Schema) (*body, error) {
	b := &body{Mode: "urlencoded"}
	left := maps.Clone(form.Properties)
	for i := 0; i+1 < len(s.form); i += 2 {
		name := s.form[i]
		if left[name] == nil {
			return nil, fmt.Errorf("the document knows no %s in the form", name)
		}
		b.Form = append(b.Form, field{Key: name, Value: s.form[i+1], Description: left[name].Description, Type: "text"})
		delete(left, name)
	}
	for _, name := range slices.Sorted(maps.Keys(left)) {
		if slices.Contains(form.Required, name) {
			return nil, fmt.Errorf("the step lacks %s in the form", name)
		}
		b.Form = append(b.Form, field{Key: name, Description: left[name].Description, Type: "text", Disabled: true})
	}
	return b, nil
}

// tests is the script that judges the answer.
func (s *step) tests(want []int) []string {
	var names []string
	for _, status := range want {
		names = append(names, strconv.Itoa(status))
	}
	lines := []string{
		`pm.test("answers ` + strings.Join(names, " or ") + `", function () {`,
		`    pm.expect([` + strings.Join(names, ", ") + `]).to.include(pm.response.code);`,
		`});`,
	}
	if len(want) == 1 {
		lines[1] = `    pm.response.to.have.status(` + names[0] + `);`
	}
	for _, h := range s.holds {
		lines = append(lines,
			`pm.test("`+h.name+`", function () {`,
			`    var answer = pm.response.json();`,
			`    pm.expect(`+h.expression+`).to.equal(true);`,
			`});`)
	}
	for _, k := range s.keep {
		lines = append(lines,
			`pm.test("has what becomes `+k.variable+`", function () {`,
			`    var answer = pm.response.json();`,
			`    pm.expect(typeof answer.`+k.member+`).to.equal("string");`,
			`    pm.collectionVariables.set("`+k.variable+`", answer.`+k.member+`);`,
			`});`)
	}
	return append(lines, s.test...)
}
