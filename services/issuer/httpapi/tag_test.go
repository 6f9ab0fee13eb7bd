package httpapi

import (
	"testing"

	frame "github.com/quash-project/quash/shared/httpapi"
)

// TestAKeyThatIsUsedIsTheSame: a condition on a key that is in use could never be met
// if each use were another key.
func TestAKeyThatIsUsedIsTheSame(t *testing.T) {
	tag := func(k Key) string {
		out, err := frame.Tag(k)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	at := frame.Millis(1)
	k := Key{ID: "x", State: "active"}
	used, held := k, k
	used.LastUsedAt, used.LastUsedFrom, held.State = &at, "192.0.2.1", "held"
	if tag(used) != tag(k) {
		t.Error("a use gave the key another tag")
	}
	if tag(held) == tag(k) {
		t.Error("a key that is held has the tag that it had before")
	}
	if used.LastUsedAt == nil {
		t.Error("the tag took the use from what is shown")
	}
}
