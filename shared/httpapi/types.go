package httpapi

import (
	"encoding/json"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

// Time is an instant as our APIs write it: RFC 3339, UTC, milliseconds.
type Time time.Time

const timeLayout = "2006-01-02T15:04:05.000Z"

// Millis returns the Time of so many milliseconds since 1970.
func Millis(ms int64) Time { return Time(time.UnixMilli(ms)) }

// String returns the text.
func (t Time) String() string { return time.Time(t).UTC().Format(timeLayout) }

// MarshalJSON writes the text.
func (t Time) MarshalJSON() ([]byte, error) { return json.Marshal(t.String()) }

// UnmarshalJSON reads any RFC 3339 text.
func (t *Time) UnmarshalJSON(data []byte) error {
	var v time.Time
	if err := json.Unmarshal(data, &v); err != nil {
		return err
	}
	*t = Time(v)
	return nil
}

// Schema tells huma what it looks like.
func (Time) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeString, Format: "date-time"}
}

// List is a page of a list.
type List[T any] struct {
	Items    []T    `json:"items" doc:"never null"`
	NextPage string `json:"next_page" doc:"empty on the last page"`
}

// ListOf returns a page; nil becomes an empty list.
func ListOf[T any](items []T, next string) List[T] {
	if items == nil {
		items = []T{}
	}
	return List[T]{Items: items, NextPage: next}
}
