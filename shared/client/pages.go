package client

import (
	"context"
	"encoding/json"
	"errors"
	"net/url"

	"github.com/quash-project/quash/shared/client/api"
)

// All asks for every page of a list and returns them as one: what stands beside the
// items is that of the first.
//
//	keys, err := client.All(func(page api.RequestEditorFn) (api.Answer[api.ListKey], error) {
//		return c.ListKeys(ctx, &api.ListKeysParams{Owner: new("alice")}, page)
//	})
func All[T any](ask func(page api.RequestEditorFn) (api.Answer[T], error)) (api.Answer[T], error) {
	var first api.Answer[T]
	var whole map[string]json.RawMessage
	items, query := []json.RawMessage{}, url.Values{}
	for {
		answer, err := ask(Query(query))
		if err != nil {
			return api.Answer[T]{}, err
		}
		var page map[string]json.RawMessage
		var some []json.RawMessage
		var next string
		if err := json.Unmarshal(answer.Raw, &page); err != nil {
			return api.Answer[T]{}, err
		}
		if err := errors.Join(orNone(page["items"], &some), orNone(page["next_page"], &next)); err != nil {
			return api.Answer[T]{}, err
		}
		if whole == nil {
			first, whole = answer, page
		}
		items = append(items, some...)
		if next == "" {
			break
		}
		query.Set("page", next)
	}
	var err error
	if whole["items"], err = json.Marshal(items); err != nil {
		return api.Answer[T]{}, err
	}
	whole["next_page"] = json.RawMessage(`""`)
	if first.Raw, err = json.Marshal(whole); err != nil {
		return api.Answer[T]{}, err
	}
	var value T
	err = json.Unmarshal(first.Raw, &value)
	first.Value = value
	return first, err
}

// Fleet is the whole fleet, with what is said beside the guards.
func (c *Client) Fleet(ctx context.Context) (api.Answer[api.Fleet], error) {
	return All(func(page api.RequestEditorFn) (api.Answer[api.Fleet], error) { return c.ListFleet(ctx, nil, page) })
}

func orNone(text json.RawMessage, v any) error {
	if len(text) == 0 {
		return nil
	}
	return json.Unmarshal(text, v)
}
