package audit

import (
	"cmp"
	"context"
	"errors"
	"math"
	"slices"
	"time"
)

// Endless is after every page.
const Endless = math.MaxUint64

// Pages are where a trail is kept.
type Pages interface {
	// Pages calls yield for each page that is there, from one number to another, in
	// order; to Endless: and for each that is appended, until ctx ends.
	Pages(ctx context.Context, from, to uint64, yield func(Stored) error) error
	// First returns the number of the first page up to last that was not stored
	// before t.
	First(ctx context.Context, t time.Time, last uint64) (uint64, error)
}

// Bounds of one Search: how much of the trail is looked through, and how much is
// answered with.
const (
	maxLooked  = 64 << 20
	maxAnswer  = 4 << 20
	blockPages = 16
	// clocks is how far the clocks of the broker's servers may be apart.
	clocks = 10 * time.Minute
)

// Query is one question to a trail, up to a page of it.
type Query struct {
	Filter
	Newest bool // first; otherwise the oldest
	Limit  int
	Last   uint64 // the last page that is looked at
	After  Spot   // where the answer before has ended; the zero Spot: nowhere

	share int // bytes that are looked through; 0: maxLooked
}

// Answer is what was found, in the order that was asked for. If More is set, the search
// goes on after Next: it has looked at its share of the trail, and may have found less
// than the limit, or nothing.
type Answer struct {
	Found []Found
	Next  Spot
	More  bool
}

// errEnough ends the reading of pages.
var errEnough = errors.New("enough")

// Search looks for items.
func Search(ctx context.Context, in Pages, q Query) (Answer, error) {
	from, err := FirstSince(ctx, in, q.Since, q.Last)
	if err != nil {
		return Answer{}, err
	}
	s := searching{Query: q, in: in}
	s.share = cmp.Or(q.share, maxLooked)
	if q.Newest {
		err = s.backward(ctx, from)
	} else {
		err = s.forward(ctx, max(from, q.After.Page))
	}
	return s.answer, err
}

// FirstSince returns the first page up to last that can have what was stored at t or
// later: a page has nothing that was stored after it.
func FirstSince(ctx context.Context, in Pages, t time.Time, last uint64) (uint64, error) {
	if t.IsZero() {
		return 1, nil
	}
	return in.First(ctx, t.Add(-clocks), last)
}

type searching struct {
	Query
	in     Pages
	answer Answer
	looked int // bytes
	bytes  int // of the answer
}

// forward looks from a page on.
func (s *searching) forward(ctx context.Context, from uint64) error {
	err := each(ctx, s.in, from, s.Last, func(p Page, size int) error {
		for i, it := range p.Items {
			at := Spot{p.Number, i}
			if s.After.Page > 0 && !s.After.Less(at) {
				continue
			}
			if !s.take(at, it) {
				return errEnough
			}
		}
		return s.passed(Spot{p.Number, len(p.Items)}, size)
	})
	return s.end(err)
}

// backward looks from the last page down to another one, some pages at a time.
func (s *searching) backward(ctx context.Context, down uint64) error {
	to := s.Last
	if s.After.Page > 0 {
		to = min(to, s.After.Page)
	}
	for to >= down {
		from := down
		if to >= blockPages {
			from = max(down, to-blockPages+1)
		}
		var pages []Page
		size := 0
		err := each(ctx, s.in, from, to, func(p Page, n int) error {
			pages, size = append(pages, p), size+n
			return nil
		})
		if err != nil {
			return err
		}
		for _, p := range slices.Backward(pages) {
			for i, it := range slices.Backward(p.Items) {
				at := Spot{p.Number, i}
				if s.After.Page > 0 && !at.Less(s.After) {
					continue
				}
				if !s.take(at, it) {
					return nil
				}
			}
		}
		if from == down {
			break
		}
		if err := s.passed(Spot{from, 0}, size); err != nil {
			return s.end(err)
		}
		to = from - 1
	}
	return nil
}

// take takes an item if it is looked for, and reports whether there is room for it.
func (s *searching) take(at Spot, it Item) bool {
	f := foundOf(at, it)
	if !s.Matches(&f) {
		return true
	}
	size := len(it.Event) + 512
	if n := len(s.answer.Found); n > 0 && (n >= s.Limit || s.bytes+size > maxAnswer) {
		s.answer.Next, s.answer.More = s.answer.Found[n-1].Place, true
		return false
	}
	s.answer.Found = append(s.answer.Found, f)
	s.bytes += size
	return true
}

// passed says that everything up to a spot was looked at.
func (s *searching) passed(at Spot, size int) error {
	if s.looked += size; s.looked < s.share {
		return nil
	}
	s.answer.Next, s.answer.More = at, true
	return errEnough
}

func (s *searching) end(err error) error {
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// each reads pages, none of which may be missing.
func each(ctx context.Context, in Pages, from, to uint64, yield func(p Page, size int) error) error {
	want := from
	err := in.Pages(ctx, from, to, func(s Stored) error {
		if s.Number != want {
			return &Broken{want, "it is missing"}
		}
		want++
		p, err := s.Page()
		if err != nil {
			return err
		}
		return yield(p, len(s.Body))
	})
	if err == nil && to != Endless && want <= to {
		err = &Broken{want, "it is missing"}
	}
	return err
}

// Export calls yield for each item that is looked for, the oldest first, from a page to
// another; to Endless: and for each that comes, until ctx ends. It keeps one page in memory.
func Export(ctx context.Context, in Pages, f Filter, from, to uint64, yield func(*Found) error) error {
	err := each(ctx, in, max(from, 1), to, func(p Page, _ int) error {
		for i, it := range p.Items {
			x := foundOf(Spot{p.Number, i}, it)
			if !f.Matches(&x) {
				continue
			}
			if err := yield(&x); err != nil {
				return err
			}
		}
		return nil
	})
	if ctx.Err() != nil && to == Endless {
		return nil
	}
	return err
}
