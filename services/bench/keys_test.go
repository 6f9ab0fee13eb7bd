package bench

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/quash-project/quash/services/issuer"
	"github.com/quash-project/quash/services/issuer/kvstore"
	"github.com/quash-project/quash/shared/apikey"
	"github.com/quash-project/quash/shared/endings"
	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/identity"
)

const (
	// keysOfOwner is how many keys each owner has.
	keysOfOwner = 100
	// starts is how often the issuer starts beside a bare reader, each time.
	starts = 3
	// lists is how often the keys of an owner are listed.
	lists = 200
)

// BenchmarkKeys: an issuer with a million API keys, in a process of its own: until it
// is ready, what a key takes of its memory, and the list of one owner's. The peer is a
// process that reads the same bucket into a Go map, and for the list a bare read of as
// many records from the bucket, one after the other. The issuer without any keys is
// started, too: what it takes is not the keys'.
func BenchmarkKeys(b *testing.B) {
	n := storedOr(1_000_000)
	owners := max(n/keysOfOwner, 1)
	dir := b.TempDir()
	w := newIssuing(b, enginetest.NATSIn(b, dir))
	emptyIssuer, emptyBucket := w.startsOf(b)
	w.nats.Stop()
	ids := make([]string, n)
	fill(b, dir, n, func(ctx context.Context, s *kvstore.Store, i int) error {
		k, err := storedKey(fmt.Sprintf("user-%d", i%owners))
		if err != nil {
			return err
		}
		ids[i] = k.ID
		return s.Keys.Create(ctx, issuer.RecordKey(k.Tenant, k.ID), k)
	})
	w.nats.Start(b)
	enginetest.Eventually(b, "the log is followed again", w.ledger.Ready)
	for b.Loop() {
		ours, bare := w.startsOf(b)
		per := func(full, empty int64) float64 { return float64(full-empty) / float64(n) }
		b.ReportMetric(float64(n), "keys")
		b.ReportMetric(ours.ReadyMS, "ready-ms")
		b.ReportMetric(emptyIssuer.ReadyMS, "empty-ms")
		b.ReportMetric(bare.ReadyMS, "bare-ms")
		b.ReportMetric(per(ours.Heap, emptyIssuer.Heap), "heap-B/key")
		b.ReportMetric(per(bare.Heap, emptyBucket.Heap), "bare-heap-B/key")
		b.ReportMetric(per(ours.RSS, emptyIssuer.RSS), "rss-B/key")
		b.ReportMetric(per(bare.RSS, emptyBucket.RSS), "bare-rss-B/key")
		w.listings(b, ids, owners)
	}
}

// storedKey is a key as the API makes it.
func storedKey(owner string) (issuer.Key, error) {
	secret, err := apikey.Generate(rand.Reader, apikey.Key)
	if err != nil {
		return issuer.Key{}, err
	}
	at := time.Now().UTC().Truncate(time.Millisecond)
	return issuer.Key{
		ID: apikey.ID(secret.Reveal()), Kind: issuer.APIKey, Tenant: "default", Hash: apikey.HashOf(secret.Reveal()),
		Name: "nightly export", Creator: "operator", Owner: owner, Scopes: []string{"orders:read", "orders:write"},
		Created: at, Expires: at.Add(issuer.DefaultKeyLife), Meta: endings.Meta{Actor: "operator", Reason: "ticket 4711", At: at},
	}, nil
}

// startsOf starts issuer and bare reader in turns, and returns the median of each
// figure.
func (w *issuing) startsOf(b *testing.B) (ours, bare started) {
	b.Helper()
	var issuers, readers []started
	for range starts {
		s, end := w.child(b, "issuer")
		end()
		issuers = append(issuers, s)
		s, end = w.child(b, "bucket")
		end()
		readers = append(readers, s)
	}
	return medians(issuers), medians(readers)
}

func medians(of []started) started {
	var ready []time.Duration
	var rss, heap []int64
	for _, s := range of {
		ready = append(ready, time.Duration(s.ReadyMS*float64(time.Millisecond)))
		rss, heap = append(rss, s.RSS), append(heap, s.Heap)
	}
	return started{ReadyMS: millis(quantile(ready, 0.5)), RSS: quantile(rss, 0.5), Heap: quantile(heap, 0.5)}
}

// listings lists the keys of one owner after the other, in turns with bare reads of as
// many keys.
func (w *issuing) listings(b *testing.B, ids []string, owners int) {
	b.Helper()
	s, end := w.child(b, "issuer")
	defer end()
	w.url = s.URL
	w.signIn(b)
	js, err := jetstream.New(w.nats.Dial(b, identity.Issuer))
	if err != nil {
		b.Fatal(err)
	}
	bucket, err := js.KeyValue(b.Context(), "keys")
	if err != nil {
		b.Fatal(err)
	}
	var ours, theirs []time.Duration
	for i := range lists {
		owner := i * 7919 % owners // not those that were written one after the other
		var page struct{ Items []struct{ ID string } }
		t0 := time.Now()
		w.api(b, http.MethodGet, fmt.Sprintf("/v1/keys?limit=%d&owner=user-%d", 2*keysOfOwner, owner), nil, http.StatusOK, &page)
		ours = append(ours, time.Since(t0))
		want := (len(ids) - owner + owners - 1) / owners
		if len(page.Items) != want {
			b.Fatalf("user-%d has %d keys of %d", owner, len(page.Items), want)
		}
		t0 = time.Now()
		for k := owner; k < len(ids); k += owners {
			if _, err := bucket.Get(b.Context(), issuer.RecordKey("default", ids[k])); err != nil {
				b.Fatal(err)
			}
		}
		theirs = append(theirs, time.Since(t0))
	}
	o, t := quantile(ours, 0.5), quantile(theirs, 0.5)
	b.ReportMetric(millis(o), "list-ms")
	b.ReportMetric(millis(t), "bare-list-ms")
	b.ReportMetric(float64(o)/float64(t), "list-ratio")
}
