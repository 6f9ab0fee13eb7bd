package natstrail

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/quash-project/quash/services/revocation/audit"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/identity"
	"github.com/quash-project/quash/shared/kv"
)

func (w *world) reader() *Reader {
	w.t.Helper()
	r, err := NewReader(w.nats.Conn(w.t, identity.Revocation), w.nats.Conn(w.t, identity.ControlReader))
	w.must(err)
	return r
}

// reasons are those of all items up to a page.
func (w *world) reasons(r *Reader, last uint64) (out []string) {
	w.t.Helper()
	w.must(audit.Export(w.t.Context(), r, audit.Filter{}, 1, last, func(f *audit.Found) error {
		out = append(out, f.Reason)
		return nil
	}))
	return out
}

// TestWhatWasCommittedBeforeIsInTheTrail that was waited for: of the log and of buckets,
// whatever comes after that the audit leaves out.
func TestWhatWasCommittedBeforeIsInTheTrail(t *testing.T) {
	w := newWorld(t)
	r := w.reader()
	w.follower("a")
	want := []string{w.event(), w.record()}
	for range 15 {
		want = append(want, w.event(), w.record())
		_, err := w.keys.Put(t.Context(), kv.BeatPrefix+"replica", []byte("{}"))
		w.must(err)
		last, err := r.Await(t.Context(), time.Minute)
		w.must(err)
		if got := w.reasons(r, last.Number); !slices.Contains(got, want[len(want)-1]) || !slices.Contains(got, want[len(want)-2]) {
			t.Fatalf("the trail has %q, and lacks %q", got, want[len(want)-2:])
		}
	}
}

// TestTrailThatIsBehindIsNoAnswer: nobody writes it, or it has been read of another stream.
func TestTrailThatIsBehindIsNoAnswer(t *testing.T) {
	w := newWorld(t)
	r := w.reader()
	behind := func(source string) {
		t.Helper()
		var b *audit.Behind
		if _, err := r.Await(t.Context(), 50*time.Millisecond); source == "" && err != nil || source != "" && (!errors.As(err, &b) || b.Source != source) {
			t.Errorf("%v: want that it lacks what %q has", err, source)
		}
	}
	behind("") // there is nothing
	w.event()
	behind(wire.Stream)
	stop := w.follower("a")
	_, err := r.Await(t.Context(), time.Minute)
	w.must(err)
	stop()
	behind("")
	_, err = w.log.Publish(t.Context(), wire.LogTick, nil)
	w.must(err)
	_, err = w.keys.Put(t.Context(), kv.BeatPrefix+"replica", []byte("{}"))
	w.must(err)
	behind("") // these are left out
	w.record()
	behind("KV_keys")
	stop = w.follower("b")
	_, err = r.Await(t.Context(), time.Minute)
	w.must(err)
	stop()
	// The log is made anew, and has grown past what the trail has read of it.
	js, err := jetstream.New(w.admin())
	w.must(err)
	w.must(js.DeleteStream(t.Context(), wire.Stream))
	w.makeLog()
	for range 5 {
		w.event()
	}
	behind(wire.Stream)
}

// TestRecordsThatHaveEndedAreNotWaitedFor: the newest message of a bucket may be gone.
func TestRecordsThatHaveEndedAreNotWaitedFor(t *testing.T) {
	w := newWorld(t)
	w.record()
	js, err := jetstream.New(w.nats.Admin(t, identity.Control))
	w.must(err)
	s, err := js.Stream(t.Context(), "KV_keys")
	w.must(err)
	w.must(s.Purge(t.Context()))
	if _, err := w.reader().Await(t.Context(), 50*time.Millisecond); err != nil {
		t.Error(err)
	}
}

// TestTrailWhoseEndWasCutOffIsBroken also where the broker still knows how many pages it
// has had; and one without that can be read all the same.
func TestTrailWhoseEndWasCutOffIsBroken(t *testing.T) {
	w := newWorld(t)
	stop := w.follower("a")
	var want []string
	for range 4 {
		want = append(want, w.event())
		w.has(want...)
	}
	stop()
	pages := w.pages()
	js, err := jetstream.New(w.admin())
	w.must(err)
	w.must(js.DeleteStream(t.Context(), audit.Stream))
	cfg := streamConfig(1)
	cfg.DenyDelete, cfg.DenyPurge = false, false
	s, err := js.CreateStream(t.Context(), cfg)
	w.must(err)
	for _, p := range pages {
		_, err := js.Publish(t.Context(), audit.Subject, p)
		w.must(err)
	}
	if _, err := w.items(); err != nil {
		t.Fatal(err)
	}
	for n := uint64(len(pages)); n > 0; n-- {
		w.must(s.DeleteMsg(t.Context(), n))
		var broken *audit.Broken
		items, err := w.items()
		if !errors.As(err, &broken) || broken.Number != n || len(items) != int(n)-1 {
			t.Errorf("page %d and those after it are gone: %d items, %v", n, len(items), err)
		}
	}
}

// TestFirstPageSinceATime is the first that was not stored before it.
func TestFirstPageSinceATime(t *testing.T) {
	w := newWorld(t)
	stop := w.follower("a")
	var want []string
	for range 4 {
		want = append(want, w.event())
		w.has(want...)
	}
	stop()
	r := w.reader()
	var pages []audit.Stored
	last, _, err := r.Last(t.Context())
	w.must(err)
	w.must(r.Pages(t.Context(), 1, last.Number, func(s audit.Stored) error {
		pages = append(pages, s)
		return nil
	}))
	for i, p := range pages {
		for shift, page := range map[time.Duration]uint64{0: p.Number, 1: p.Number + 1} {
			if got, err := r.First(t.Context(), p.At.Add(shift), last.Number); err != nil || got != page {
				t.Errorf("page %d: %d, %v, want %d", i+1, got, err, page)
			}
		}
	}
	if len(pages) < 4 {
		t.Fatalf("%d pages", len(pages))
	}
}
