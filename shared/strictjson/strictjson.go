package strictjson

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"unicode/utf8"

	"github.com/quash-project/quash/shared/problem"
)

// MaxDepth is how deeply arrays and objects may be nested.
const MaxDepth = 64

// Decode decodes one JSON value into v, which must be a pointer.
func Decode(data []byte, v any) error {
	t := reflect.TypeOf(v)
	if t == nil || t.Kind() != reflect.Pointer {
		return errors.New("strictjson: not a pointer") // a fault of ours, not of the caller's text
	}
	if err := Check(data, t.Elem()); err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fromJSON(err)
	}
	return nil
}

// Check checks one JSON value against a type without decoding it. A nil type
// has no members of its own: then form alone is checked.
func Check(data []byte, t reflect.Type) error {
	if !utf8.Valid(data) {
		return problem.New(problem.Invalid, "the JSON is not valid UTF-8")
	}
	s := scanner{data: data}
	s.space()
	if s.pos == len(data) {
		return problem.New(problem.Invalid, "a JSON value is missing: the body is empty")
	}
	if err := s.value(t, 0); err != nil {
		return err
	}
	s.space()
	if s.pos != len(data) {
		return problem.New(problem.Invalid, "there is something after the JSON value (at byte %d)", s.pos)
	}
	return nil
}

// fromJSON turns an error of encoding/json into one that repeats no value.
func fromJSON(err error) error {
	var te *json.UnmarshalTypeError
	if errors.As(err, &te) {
		got, _, _ := strings.Cut(te.Value, " ") // "number 12345": without the number
		return problem.FieldError(te.Field, "must be %s, not %s", kindName(te.Type), article(got))
	}
	var p *problem.Error
	if errors.As(err, &p) {
		return p
	}
	// Of a field that decodes itself: it may have put the value in its text.
	return problem.Wrap(problem.Invalid, err, "the JSON has a value that is not valid")
}

func kindName(t reflect.Type) string {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t.Kind() {
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Slice, reflect.Array:
		return "an array"
	case reflect.Struct, reflect.Map:
		return "an object"
	case reflect.Float32, reflect.Float64:
		return "a number"
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "a whole number from 0 up, in range"
	}
	return "a whole number in range"
}

func article(kind string) string {
	switch kind {
	case "array", "object":
		return "an " + kind
	case "bool":
		return "true or false"
	}
	return "a " + kind
}
