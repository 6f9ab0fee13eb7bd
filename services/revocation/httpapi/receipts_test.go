package httpapi

import (
	"testing"

	"github.com/quash-project/quash/shared/problem"
)

func TestAPageOfReceiptsBeginsAfterOneAlone(t *testing.T) {
	if l, err := listedAt("12.7.abc"); err != nil || l.Epoch != 12 || l.Sequence != 7 || l.ID != "abc" {
		t.Errorf("%+v, %v", l, err)
	}
	for _, text := range []string{"x", "1", "1.2", "1.2.", ".2.a", "-1.2.a", "1.x.a", "99999999999999999999.1.a"} {
		if l, err := listedAt(text); problem.KindOf(err) != problem.Invalid {
			t.Errorf("%q: %+v, %v", text, l, err)
		}
	}
}
