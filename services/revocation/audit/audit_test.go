package audit

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// memory has a chain of pages.
type memory []Stored

func (m memory) Pages(_ context.Context, from, to uint64, yield func(Stored) error) error {
	for _, s := range m {
		if s.Number >= from && s.Number <= to {
			if err := yield(s); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m memory) First(_ context.Context, t time.Time, last uint64) (uint64, error) {
	for _, s := range m[:last] {
		if !s.At.Before(t) {
			return s.Number, nil
		}
	}
	return last + 1, nil
}

func (m memory) bodies() (out [][]byte) {
	for _, s := range m {
		out = append(out, s.Body)
	}
	return out
}

var began = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// chained returns a chain of pages with so many items each, an hour from page to page.
// Every third item is of a tenant, every fifth a record's.
func chained(t testing.TB, pages, items int) memory {
	t.Helper()
	var out memory
	var last Digest
	seq := uint64(0)
	for n := range uint64(pages) {
		at := began.Add(time.Duration(n) * time.Hour)
		p := Page{Number: n + 1, Previous: last}
		for range items {
			seq++
			it := Item{Source: "QUASH_LOG", Sequence: seq, Stored: at, At: at, Type: "dev.quash.log.entry", Actor: fmt.Sprint("actor", seq%2), Reason: "a test", Digest: sha256.Sum256(fmt.Append(nil, seq))}
			tenant := "default"
			if seq%3 == 0 {
				tenant = "acme"
			}
			if seq%5 == 0 {
				it.Type, it.Bucket, it.Key = TypePut, "keys", tenant+".k"
			} else {
				it.Event = fmt.Appendf(nil, `{"data":{"op":"revoke","tenant":%q,"entry":"e%d","targets":[{"issuer":"own","kind":"principal","id":"p%d"}]}}`, tenant, seq, seq)
			}
			p.Items = append(p.Items, it)
		}
		p.Upto = map[string]Place{"QUASH_LOG": {Made: began, Sequence: seq, Stored: at}}
		body, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		last = sha256.Sum256(body)
		out = append(out, Stored{Number: p.Number, At: at, Body: body})
	}
	return out
}

// TestSearchFindsEverythingOnce in either order, by pages of any size, whatever is asked.
func TestSearchFindsEverythingOnce(t *testing.T) {
	const pages, items = 37, 7
	m := chained(t, pages, items)
	for name, c := range map[string]struct {
		filter Filter
		want   func(seq int) bool
	}{
		"all":             {Filter{}, func(int) bool { return true }},
		"a tenant":        {Filter{Tenant: "acme"}, func(n int) bool { return n%3 == 0 }},
		"an actor":        {Filter{Actor: "actor1"}, func(n int) bool { return n%2 == 1 }},
		"a type":          {Filter{Type: TypePut}, func(n int) bool { return n%5 == 0 }},
		"a bucket":        {Filter{Record: "keys"}, func(n int) bool { return n%5 == 0 }},
		"a record":        {Filter{Record: "keys/acme.k"}, func(n int) bool { return n%15 == 0 }},
		"another record":  {Filter{Record: "keys/acme"}, func(int) bool { return false }},
		"a target":        {Filter{Target: "principal:p101"}, func(n int) bool { return n == 101 }},
		"its other form":  {Filter{Target: "principal:p%3101"}, func(n int) bool { return n == 101 }},
		"since":           {Filter{Since: began.Add(20 * time.Hour)}, func(n int) bool { return n > 20*items }},
		"until":           {Filter{Until: began.Add(20 * time.Hour)}, func(n int) bool { return n <= 21*items }},
		"between":         {Filter{Since: began.Add(3 * time.Hour), Until: began.Add(4 * time.Hour)}, func(n int) bool { return n > 3*items && n <= 5*items }},
		"a tenant's wall": {Filter{Tenant: "acme", Target: "principal:p101"}, func(int) bool { return false }},
	} {
		var want []uint64
		for n := 1; n <= pages*items; n++ {
			if c.want(n) {
				want = append(want, uint64(n))
			}
		}
		for _, newest := range []bool{false, true} {
			for _, limit := range []int{1, 10, 1000} {
				q := Query{Filter: c.filter, Newest: newest, Limit: limit, Last: pages}
				var got []uint64
				for more := true; more; {
					a, err := Search(t.Context(), m, q)
					if err != nil {
						t.Fatal(err)
					}
					for _, f := range a.Found {
						got = append(got, f.Sequence)
					}
					if len(a.Found) > limit || a.More && len(a.Found) < limit {
						t.Fatalf("%s: %d items, more: %t", name, len(a.Found), a.More)
					}
					q.After, more = a.Next, a.More
				}
				if newest {
					slices.Reverse(got)
				}
				if !slices.Equal(got, want) {
					t.Errorf("%s, newest %t, limit %d: %v, want %v", name, newest, limit, got, want)
				}
			}
		}
	}
}

// TestSearchLooksAtItsShareAndGoesOn: what finds nothing in it says so, and where to go on.
func TestSearchLooksAtItsShareAndGoesOn(t *testing.T) {
	m := chained(t, 40, 1)
	for _, newest := range []bool{false, true} {
		q, asked, found := Query{Filter: Filter{Target: "principal:p22"}, Newest: newest, Limit: 1, Last: 40, share: 10 * len(m[0].Body)}, 0, 0
		for more := true; more; asked++ {
			a, err := Search(t.Context(), m, q)
			if err != nil {
				t.Fatal(err)
			}
			found += len(a.Found)
			q.After, more = a.Next, a.More
		}
		if asked < 2 || found != 1 {
			t.Errorf("newest %t: found %d in %d questions", newest, found, asked)
		}
	}
}

// TestSearchOfADamagedTrailIsNoShortAnswer.
func TestSearchOfADamagedTrailIsNoShortAnswer(t *testing.T) {
	for name, m := range map[string]memory{
		"missing":    slices.Delete(chained(t, 20, 2), 8, 9),
		"cut off":    chained(t, 20, 2)[:19],
		"unreadable": func() memory { m := chained(t, 20, 2); m[8].Body = []byte("{"); return m }(),
		"another":    func() memory { m := chained(t, 20, 2); m[8].Body = m[7].Body; return m }(),
	} {
		for _, newest := range []bool{false, true} {
			var broken *Broken
			if _, err := Search(t.Context(), m, Query{Newest: newest, Limit: 1000, Last: 20}); !errors.As(err, &broken) {
				t.Errorf("%s, newest %t: %v", name, newest, err)
			}
		}
		var broken *Broken
		if err := Export(t.Context(), m, Filter{}, 1, 20, func(*Found) error { return nil }); !errors.As(err, &broken) {
			t.Errorf("%s, export: %v", name, err)
		}
	}
}

func keys(t testing.TB, name string) (note.Signer, note.Verifier) {
	t.Helper()
	private, public, err := note.GenerateKey(rand.Reader, name)
	if err != nil {
		t.Fatal(err)
	}
	s, err := note.NewSigner(private)
	if err != nil {
		t.Fatal(err)
	}
	v, err := note.NewVerifier(public)
	if err != nil {
		t.Fatal(err)
	}
	return s, v
}

func verify(bodies [][]byte, first, had uint64, prepare func(*Verifier)) error {
	v := NewVerifier(nil)
	if prepare != nil {
		prepare(v)
	}
	for i, b := range bodies {
		if err := v.Page(first+uint64(i), b); err != nil {
			return err
		}
	}
	return v.End(had)
}

// TestCheckpointTellsAnotherTrailAndAShorterOne.
func TestCheckpointTellsAnotherTrailAndAShorterOne(t *testing.T) {
	signer, verifier := keys(t, "quash.test/audit")
	m := chained(t, 9, 3)
	signed, err := CheckpointOf("quash.test/audit", m[4]).Sign(signer)
	if err != nil {
		t.Fatal(err)
	}
	c, err := OpenCheckpoint(signed, note.VerifierList(verifier))
	if err != nil {
		t.Fatal(err)
	}
	if want := CheckpointOf("quash.test/audit", m[4]); c != want {
		t.Errorf("%+v, want %+v", c, want)
	}
	other := memory{}
	for n := range 9 { // whole in itself
		other = append(other, chained(t, 9, 4)[n])
	}
	against := func(v *Verifier) { v.Against(c) }
	begin := func(v *Verifier) { v.Begin(c) }
	all := m.bodies()
	for name, x := range map[string]struct {
		err  error
		page uint64 // 0: good
	}{
		"the trail":                {verify(all, 1, 9, against), 0},
		"just up to it":            {verify(all[:5], 1, 5, against), 0},
		"cut off below it":         {verify(all[:3], 1, 3, against), 4},
		"another trail":            {verify(other.bodies(), 1, 9, against), 5},
		"from it":                  {verify(all[4:], 5, 9, begin), 0},
		"from it, cut off":         {verify(nil, 5, 3, begin), 4},
		"from it, another":         {verify(other.bodies()[4:], 5, 9, begin), 5},
		"from it, the next gone":   {verify(append([][]byte{all[4]}, all[6:]...), 5, 9, begin), 6},
		"from it, the last gone":   {verify(all[4:8], 5, 9, begin), 9},
		"without it, another":      {verify(other.bodies(), 1, 9, nil), 0},
		"without it, the end gone": {verify(all[:8], 1, 9, nil), 9},
	} {
		var broken *Broken
		if (x.page == 0) != (x.err == nil) || x.page > 0 && (!errors.As(x.err, &broken) || broken.Number != x.page) {
			t.Errorf("%s: %v, want page %d", name, x.err, x.page)
		}
	}
	_, stranger := keys(t, "quash.test/audit")
	for name, open := range map[string]func() error{
		"of another key": func() error { _, err := OpenCheckpoint(signed, note.VerifierList(stranger)); return err },
		"changed": func() error {
			_, err := OpenCheckpoint(bytes.Replace(signed, []byte("\n5\n"), []byte("\n6\n"), 1), note.VerifierList(verifier))
			return err
		},
		"too long": func() error {
			_, err := OpenCheckpoint(append(slices.Clone(signed), make([]byte, maxCheckpoint)...), note.VerifierList(verifier))
			return err
		},
	} {
		if open() == nil {
			t.Errorf("a checkpoint that is %s is taken", name)
		}
	}
}

func TestCheckpointHasOneSpelling(t *testing.T) {
	good := "quash.test/audit\n5\n" + strings.Repeat("A", 43) + "=\n"
	for text, ok := range map[string]bool{
		good:                                      true,
		good + "an extension\n":                   true,
		good + "\n":                               false,
		strings.Replace(good, "5", "05", 1):       false,
		strings.Replace(good, "5", "+5", 1):       false,
		strings.Replace(good, "5", "0", 1):        false,
		strings.Replace(good, "5", "5 ", 1):       false,
		strings.Replace(good, "A=", "=", 1):       false,
		strings.Replace(good, "A=", "B=", 1):      false, // bits that say nothing
		strings.TrimSuffix(good, "\n"):            false,
		strings.TrimPrefix(good, "quash.test"):    true,
		"\n5\n" + strings.Repeat("A", 43) + "=\n": false,
		"": false,
	} {
		var c Checkpoint
		err := c.UnmarshalText([]byte(text))
		if (err == nil) != ok {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func FuzzCheckpoint(f *testing.F) {
	f.Add("quash.test/audit\n5\n" + strings.Repeat("A", 43) + "=\n")
	f.Add("a\n18446744073709551615\n" + strings.Repeat("A", 43) + "=\nextension\n")
	f.Fuzz(func(t *testing.T, text string) {
		var c, again Checkpoint
		if c.UnmarshalText([]byte(text)) != nil {
			return
		}
		out, err := c.MarshalText()
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if !strings.HasPrefix(text, string(out)) {
			t.Errorf("%q is written %q", text, out)
		}
		if err := again.UnmarshalText(out); err != nil || again != c {
			t.Errorf("%q: %+v, again %+v, %v", text, c, again, err)
		}
	})
}

// FuzzVerifier changes one page of a good chain: nothing panics, and whatever is taken is
// the very page.
func FuzzVerifier(f *testing.F) {
	m := chained(f, 3, 2)
	for i, s := range m {
		f.Add(i, s.Body)
	}
	f.Add(1, []byte(`{"number":2,"items":[{"source":"QUASH_LOG","type":"dev.quash.source.restart"}],"upto":null}`))
	f.Add(2, []byte(`{"number":3,"items":null}`))
	f.Fuzz(func(t *testing.T, at int, body []byte) {
		if at < 0 || at >= len(m) {
			return
		}
		bodies := m.bodies()
		bodies[at] = body
		err := verify(bodies, 1, 3, nil)
		same := bytes.Equal(body, m[at].Body)
		var broken *Broken
		switch {
		case same && err != nil, err != nil && !errors.As(err, &broken):
			t.Errorf("page %d, %q: %v", at+1, body, err)
		case err == nil && !same && at < len(m)-1: // another last page can be good: only a checkpoint tells
			t.Errorf("page %d, %q is taken", at+1, body)
		}
		_, _ = Search(t.Context(), memory{{1, began, bodies[0]}, {2, began, bodies[1]}, {3, began, bodies[2]}}, Query{Newest: true, Limit: 10, Last: 3, Filter: Filter{Target: "principal:p1"}})
	})
}

// BenchmarkVerify verifies pages as full as the follower makes them, beside SHA-256 of as
// many bytes, which no verifier can do without.
func BenchmarkVerify(b *testing.B) {
	const pages, items = 40, 256
	bodies := chained(b, pages, items).bodies()
	size := 0
	for _, body := range bodies {
		size += len(body)
	}
	b.Run("chain", func(b *testing.B) {
		b.SetBytes(int64(size))
		for b.Loop() {
			if err := verify(bodies, 1, pages, nil); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.N)*pages*items/b.Elapsed().Seconds(), "entries/s")
	})
	b.Run("sha256", func(b *testing.B) {
		b.SetBytes(int64(size))
		for b.Loop() {
			for _, body := range bodies {
				sha256.Sum256(body)
			}
		}
		b.ReportMetric(float64(b.N)*pages*items/b.Elapsed().Seconds(), "entries/s")
	})
}
