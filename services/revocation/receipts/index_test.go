package receipts

import (
	"fmt"
	"slices"
	"testing"

	"github.com/quash-project/quash/shared/guard/revoke"
)

// TestAPageOfTheListIsAllThatIsRead: whatever else is kept, of whoever.
func TestAPageOfTheListIsAllThatIsRead(t *testing.T) {
	x := newIndex(nil, nil)
	const each = 1000
	for seq := uint64(2 * each); seq > 0; seq-- { // they come in any order
		x.take(fmt.Sprint("id", seq), note{Tenant: []string{"acme", "default"}[seq%2], Epoch: 1 + seq/each, Sequence: seq, Complete: seq%4 == 0})
	}
	x.take("id4", note{Tenant: "acme", Epoch: 1, Sequence: 4}) // an older version, late
	if all, incomplete := x.counts(); all != 2*each || incomplete != 2*each*3/4 {
		t.Errorf("%d receipts, %d incomplete", all, incomplete)
	}
	var got []uint64
	for after := (item{}); ; {
		page, _ := x.of("acme", after, 7)
		if len(page) > 8 || cap(page) > 8 {
			t.Fatalf("a page of 7 has %d, and room for %d", len(page), cap(page))
		}
		page, more := page[:min(7, len(page))], len(page) > 7
		for _, it := range page {
			if it.tenant != "acme" {
				t.Fatalf("%+v is in the list of acme", it)
			}
			got = append(got, it.at.Seq)
		}
		if !more {
			break
		}
		after = item{at: page[6].at, id: page[6].id}
		x.drop(page[6]) // what a page ends with may end
	}
	var want []uint64
	for seq := uint64(2 * each); seq > 0; seq -= 2 {
		want = append(want, seq)
	}
	if !slices.Equal(got, want) {
		t.Errorf("read %d, want %d, newest first", len(got), len(want))
	}
	if none, _ := x.of("nobody", item{}, 7); len(none) > 0 {
		t.Errorf("nobody has %v", none)
	}
	if all, _ := x.counts(); all != 2*each-each/7 {
		t.Errorf("%d are left", all)
	}
}

func TestWhatIsDroppedIsOfNoIncident(t *testing.T) {
	x := newIndex(nil, nil)
	for seq := range uint64(3) {
		x.take(fmt.Sprint("id", seq), note{Tenant: "acme", Epoch: 1, Sequence: 1 + seq, Incident: fmt.Sprint("inc", seq/2)})
	}
	for seq := range uint64(3) {
		it, _ := x.find(revoke.Stamp{Epoch: 1, Seq: 1 + seq})
		x.drop(it)
		if want := []int{1, 1, 0}[seq] + []int{1, 0, 0}[seq]; len(x.incidents) != want {
			t.Errorf("after %d: %d incidents are left, want %d", seq, len(x.incidents), want)
		}
	}
}
