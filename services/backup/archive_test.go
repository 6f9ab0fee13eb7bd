package backup

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"time"
)

func sample(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	a := newArchive(&b, time.Unix(1_800_000_000, 0))
	for name, size := range map[string]int{"KV_keys": 3, "QUASH_LOG": 2*partSize + 7, "KV_empty": 0} {
		p := a.begin("LOG", name)
		if _, err := p.Write(bytes.Repeat([]byte(name[:1]), size)); err != nil {
			t.Fatal(err)
		}
		if err := p.end([]byte(`{"config":{}}`), 7); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestArchiveIsTakenWholeOrNotAtAll(t *testing.T) {
	good := sample(t)
	c, err := check(bytes.NewReader(good))
	if err != nil || len(c.Streams) != 3 {
		t.Fatalf("%+v, %v", c, err)
	}
	// Every byte that is cut off or changed is noticed, but for the zeros that fill
	// up and end a tar, and what is not said of a file (its time, say).
	for _, n := range []int{0, 1, 511, 512, 700, len(good) / 2, len(good) - 2048, len(good) - 4096} {
		if _, err := check(bytes.NewReader(good[:n])); !errors.Is(err, errDamaged) {
			t.Errorf("cut off at %d of %d: %v", n, len(good), err)
		}
	}
	for _, s := range c.Streams {
		for _, text := range []string{s.Data[:8], s.Name} {
			i := bytes.LastIndex(good, []byte(text))
			bad := bytes.Clone(good)
			bad[i] ^= 1
			if _, err := check(bytes.NewReader(bad)); !errors.Is(err, errDamaged) {
				t.Errorf("%q changed at %d: %v", text, i, err)
			}
		}
	}
	if _, err := check(bytes.NewReader(append(bytes.Clone(good[:len(good)-1024]), good...))); !errors.Is(err, errDamaged) {
		t.Errorf("two in one: %v", err)
	}
}

func FuzzCheck(f *testing.F) {
	good := sample(f)
	f.Add(good[:2048])
	f.Add([]byte("x"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if c, err := check(bytes.NewReader(data)); err == nil && c.Format != Format {
			t.Error("taken without a manifest")
		}
		_, _ = check(io.LimitReader(bytes.NewReader(good), int64(len(data))))
	})
}
