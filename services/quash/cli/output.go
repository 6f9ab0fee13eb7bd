package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"go.yaml.in/yaml/v3"
)

// The forms of output.
const (
	asTable = "table" // as a person reads it
	asJSON  = "json"
	asYAML  = "yaml"
)

var forms = []string{asTable, asJSON, asYAML}

// print prints what a command found: to programs as data, in the names that the API
// has; to a person by what shows it.
func (a *app) print(data any, show func()) error {
	if a.output == asTable {
		show()
		return nil
	}
	text, err := encode(data, a.output)
	if err == nil {
		_, err = a.env.Out.Write(text)
	}
	return err
}

// encode writes data as JSON or YAML, its members in order.
func encode(data any, form string) ([]byte, error) {
	text, err := json.Marshal(data)
	if err != nil {
		return nil, err
	}
	var v any
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	if err := dec.Decode(&v); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if form == asYAML {
		enc := yaml.NewEncoder(&out)
		enc.SetIndent(2)
		err := enc.Encode(numbers(v))
		return out.Bytes(), err
	}
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err = enc.Encode(v)
	return out.Bytes(), err
}

// numbers puts numbers where encoding/json has left their text, which YAML would quote.
func numbers(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for name := range v {
			v[name] = numbers(v[name])
		}
	case []any:
		for i := range v {
			v[i] = numbers(v[i])
		}
	case json.Number:
		if n, err := strconv.ParseInt(v.String(), 10, 64); err == nil {
			return n
		}
		if n, err := strconv.ParseUint(v.String(), 10, 64); err == nil {
			return n
		}
		if n, err := v.Float64(); err == nil {
			return n
		}
		return v.String()
	}
	return v
}

// event prints one of a stream: a line of JSON, or a document of YAML.
func (a *app) event(data json.RawMessage, line func() string) error {
	var text string
	switch a.output {
	case asTable:
		text = clean(line())
	case asJSON:
		text = string(bytes.TrimSpace(data))
	default:
		doc, err := encode(data, a.output)
		if err != nil {
			return err
		}
		text = "---\n" + strings.TrimSuffix(string(doc), "\n")
	}
	_, err := fmt.Fprintln(a.env.Out, text)
	return err
}

// fields prints name and value pairs; empty values are left out.
func (a *app) fields(pairs ...string) {
	w := tabwriter.NewWriter(a.env.Out, 0, 0, 2, ' ', 0)
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			fmt.Fprintf(w, "%s\t%s\n", pairs[i], clean(pairs[i+1]))
		}
	}
	w.Flush()
}

// table prints rows under headings.
func (a *app) table(heads []string, rows [][]string) {
	w := tabwriter.NewWriter(a.env.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, strings.Join(heads, "\t"))
	for _, r := range rows {
		for i := range r {
			r[i] = clean(r[i])
		}
		fmt.Fprintln(w, strings.Join(r, "\t"))
	}
	w.Flush()
}

// clean keeps what others have chosen from moving the terminal's cursor.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r >= 0x7f && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}

// at is a time as the API writes it, empty for none.
func at(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05.000Z")
}

func words(list []string) string { return strings.Join(list, " ") }

func (a *app) note(format string, args ...any) {
	fmt.Fprintf(a.env.Err, format+"\n", args...)
}
