package strictjson

import (
	"encoding"
	"encoding/json"
	"reflect"
	"strings"
	"sync"
)

var (
	unmarshaler     = reflect.TypeFor[json.Unmarshaler]()
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// structs remembers the members of struct types, of which there are as many as
// the program has.
var structs sync.Map // reflect.Type to map[string]reflect.Type

// members returns the names that an object of type t may have, with their
// types. Open means any name: of a map, and of what has no type.
func members(t reflect.Type) (fields map[string]reflect.Type, open bool) {
	if t == nil || t.Kind() != reflect.Struct {
		return nil, true // not a struct at all: encoding/json says what is wrong
	}
	if known, ok := structs.Load(t); ok {
		return known.(map[string]reflect.Type), false
	}
	fields = map[string]reflect.Type{}
	for _, f := range reflect.VisibleFields(t) {
		if f.Anonymous || !f.IsExported() {
			// Promoted fields are visible by themselves. An embedded type that has
			// a name of its own in its tag is the exception.
			if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name == "" || !f.IsExported() {
				continue
			}
		}
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch name {
		case "-":
			continue
		case "":
			name = f.Name
		}
		fields[name] = f.Type
	}
	structs.Store(t, fields)
	return fields, false
}
