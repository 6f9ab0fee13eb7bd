package httpapi

import (
	"context"
	"time"

	frame "github.com/quash-project/quash/shared/httpapi"
)

// Page are the query parameters of a list.
type Page = frame.Page

func questionOf(ctx context.Context, list string, filter any) frame.Question {
	return frame.QuestionOf(ctx, list, filter)
}

func paginate[T any](h *handlers, q frame.Question, items []T, p Page, key func(*T) string) ([]T, string, error) {
	return frame.Paginate(h.pages, q, items, p, key)
}

// sortable writes a time and an id so that texts sort as the pairs do.
func sortable(t time.Time, id string) string { return t.UTC().Format("20060102150405.000") + id }
