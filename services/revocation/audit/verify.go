package audit

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
)

// Broken says where a chain breaks.
type Broken struct {
	Number uint64 // of the page
	Why    string
}

func (b *Broken) Error() string {
	return fmt.Sprintf("the audit trail is broken at page %d: %s", b.Number, b.Why)
}

// Summary is what a whole chain has.
type Summary struct {
	Pages, Items uint64
	Last         Digest // of the last page: whoever keeps it can tell a shorter or another chain
}

// Verifier holds each page of a chain against those before it. Give it every page that
// there is, in the order of the stream, and then the End.
type Verifier struct {
	sum     Summary
	upto    map[string]Place
	yield   func(Item) error
	begin   uint64 // the page that it begins with
	against *Checkpoint
}

// NewVerifier returns one that begins with the first page. It calls yield for each
// item that is good so far, in its order; nil: nobody wants them.
func NewVerifier(yield func(Item) error) *Verifier {
	return &Verifier{upto: map[string]Place{}, yield: yield, begin: 1}
}

// Against wants the chain to have the page that a checkpoint is of. It goes before the
// first page.
func (v *Verifier) Against(c Checkpoint) { v.against = &c }

// Begin makes it begin with the very page of a checkpoint, and trust what is before.
func (v *Verifier) Begin(c Checkpoint) {
	v.against, v.begin = &c, c.Size
	v.sum.Pages = c.Size - 1
}

// Summary tells what was good so far.
func (v *Verifier) Summary() Summary { return v.sum }

// Page takes the page that is stored at a sequence of the stream. An error is Broken,
// or that of yield.
func (v *Verifier) Page(sequence uint64, body []byte) error {
	broken := func(format string, args ...any) error { return &Broken{sequence, fmt.Sprintf(format, args...)} }
	digest := Digest(sha256.Sum256(body))
	var p Page
	err := json.Unmarshal(body, &p)
	first := sequence == v.begin && v.begin > 1
	switch {
	case sequence > v.sum.Pages+1:
		return &Broken{v.sum.Pages + 1, fmt.Sprintf("it is missing: page %d follows", sequence)}
	case sequence <= v.sum.Pages:
		return broken("it comes again after page %d", v.sum.Pages)
	case v.against != nil && sequence == v.against.Size && digest != v.against.Root:
		return broken("it has the digest %s, and the checkpoint says %s: this is another trail, or page %d or one before was changed", digest, v.against.Root, sequence)
	case err != nil:
		return broken("it can't be read: %s", err)
	case p.Number != sequence:
		return broken("it says that it is page %d", p.Number)
	case !first && p.Previous != v.sum.Last:
		return broken("it follows a page with the digest %s, and page %d has %s: one of the two was changed or exchanged", p.Previous, v.sum.Pages, v.sum.Last)
	case first:
		v.upto = maps.Clone(p.Upto) // known by the checkpoint; its items are not held against those before
	default:
		if err := v.order(sequence, &p); err != nil {
			return err
		}
	}
	v.sum.Pages, v.sum.Last = sequence, digest
	for _, it := range p.Items {
		v.sum.Items++
		if v.yield != nil {
			if err := v.yield(it); err != nil {
				return err
			}
		}
	}
	return nil
}

// order wants the items of each source in the order in which the source had them.
func (v *Verifier) order(sequence uint64, p *Page) error {
	for i, it := range p.Items {
		at := v.upto[it.Source]
		switch {
		case it.Type == TypeRestart:
			at = Place{Made: p.Upto[it.Source].Made}
		case it.Sequence <= at.Sequence:
			return &Broken{sequence, fmt.Sprintf("its item %d is %d of %s, which was up to %d", i, it.Sequence, it.Source, at.Sequence)}
		default:
			at.Sequence = it.Sequence
		}
		v.upto[it.Source] = at
	}
	for source, at := range p.Upto {
		if at.Sequence < v.upto[source].Sequence {
			return &Broken{sequence, fmt.Sprintf("it says that %s stands at %d, and has %d", source, at.Sequence, v.upto[source].Sequence)}
		}
		v.upto[source] = at
	}
	return nil
}

// End says that no page follows, of so many that there have been in the stream.
func (v *Verifier) End(pages uint64) error {
	switch {
	case v.sum.Pages < pages:
		return &Broken{v.sum.Pages + 1, fmt.Sprintf("it was cut off: the trail has had %d pages, and ends with page %d", pages, v.sum.Pages)}
	case v.against != nil && v.sum.Pages < v.against.Size:
		return &Broken{pages + 1, fmt.Sprintf("it was cut off: the checkpoint is of page %d, and the trail has %d pages", v.against.Size, pages)}
	}
	return nil
}
