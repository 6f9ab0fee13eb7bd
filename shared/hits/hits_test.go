package hits

import (
	"strconv"
	"testing"
)

func TestBoxesTellWhatIsNewFromWhatIsGone(t *testing.T) {
	var all, fewer, another Boxes
	for i := range 10_000 {
		id := "key:" + strconv.Itoa(i)
		all.Add(id)
		if i != 77 {
			fewer.Add(id)
			another.Add(id)
		}
	}
	another.Add("key:another")
	switch {
	case all.Grown(&all), fewer.Grown(&all):
		t.Error("a set has not grown when some have left it")
	case !all.Grown(&fewer):
		t.Error("one more is not seen")
	case !another.Grown(&all):
		t.Error("another one in the place of one that has left is not seen")
	}
}

func FuzzBoxesAreReadAsTheyWereWritten(f *testing.F) {
	var b Boxes
	for i := range 9 {
		b.Add(strconv.Itoa(i))
	}
	text, err := b.MarshalText()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(""))
	f.Add([]byte("_____________w8B"))
	f.Fuzz(func(t *testing.T, text []byte) {
		var b, again Boxes
		if b.UnmarshalText(text) != nil {
			return
		}
		out, err := b.MarshalText()
		if err != nil || again.UnmarshalText(out) != nil || again != b {
			t.Fatalf("%q: %v", text, err)
		}
	})
}
