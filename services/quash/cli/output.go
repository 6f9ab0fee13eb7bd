package cli

import (
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"
)

// json prints data as it came, indented.
func (a *app) json(raw json.RawMessage) error {
	var v any
	dec := json.NewDecoder(strings.NewReader(string(raw)))
	dec.UseNumber()
	if err := dec.Decode(&v); err != nil {
		return err
	}
	enc := json.NewEncoder(a.env.Out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// value prints v as JSON.
func (a *app) value(v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return a.json(raw)
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

func (a *app) note(format string, args ...any) {
	fmt.Fprintf(a.env.Err, format+"\n", args...)
}
