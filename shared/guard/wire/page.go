package wire

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"iter"

	"github.com/quash-project/quash/shared/guard/revoke"
)

// Bounds of a whole state.
const (
	MaxPage  = 512 << 10 // bytes of a page
	MaxPages = 1 << 16
)

// The form of a page, version 1. Numbers of fixed size are big-endian, others
// unsigned LEB128 in their shortest form.
//
//	"QSP" 0x01 | snapshot id, 16 bytes | page, 4 | pages, 4 | records, 4 | records... | CRC-32 (IEEE) of all before, 4
//
//	epoch   0x01, number, D's epoch, D's sequence, restore (0 or 1)
//	key     0x02, until, length, kid, length, jws
//	state   0x10 + parts, target key (16 bytes), the parts that its bits say, until
//	        1: cut: epoch, sequence, at   2: ended (nothing more)   4: held: epoch, sequence   8: released: epoch, sequence
//
// The checksum is there because a flipped bit in a target key would lose a
// revocation without anybody noticing.
const (
	pageMagic  = "QSP\x01"
	pageHead   = len(pageMagic) + 16 + 3*4
	pageTail   = 4
	recEpoch   = 0x01
	recKey     = 0x02
	recState   = 0x10
	hasCut     = 0x01
	hasEnd     = 0x02
	hasHold    = 0x04
	hasRelease = 0x08
)

// ErrPage is what DecodePage says of a page that is not whole and well-formed.
var ErrPage = errors.New("malformed page")

// Snapshot is a whole state: all that a reader folds from the log. Merged into
// what another reader knows it brings that one to the same position.
type Snapshot struct {
	ID     string // NewID
	Epochs revoke.Epochs
	Keys   []KeyMessage
	States iter.Seq2[revoke.Key, revoke.State] // View.All
}

// KeyMessage is what a whole state keeps of the newest key message of a kid.
type KeyMessage struct {
	KeyID string
	Until int64 // Unix seconds
	JWS   string
}

// Page is one decoded page. What it says is merged; its order means nothing.
type Page struct {
	Snapshot      string
	Number, Pages int
	Epochs        []revoke.Epoch
	Keys          []KeyMessage
	States        []TargetState
}

// TargetState is the state of one target.
type TargetState struct {
	Key   revoke.Key
	State revoke.State
}

// EncodePages returns the pages of a snapshot, one at least, MaxPage bytes each
// at most. An error is a fault of the caller.
func EncodePages(s Snapshot) ([][]byte, error) {
	id, err := revoke.ParseKey(s.ID)
	if err != nil {
		return nil, fmt.Errorf("snapshot id: %w", err)
	}
	w := pageWriter{id: id}
	for _, e := range s.Epochs {
		if e.Number == 0 || e.Number > MaxEpoch || e.D.Epoch >= e.Number {
			return nil, fmt.Errorf("epoch %d with D %s can't be in a page", e.Number, e.D)
		}
		w.add(appendEpoch(w.rec[:0], e))
	}
	for _, k := range s.Keys {
		m := Message{Kind: KindKey, KeyID: k.KeyID, JWS: k.JWS, Until: k.Until}
		if err := m.checkKey(); err != nil || k.Until < 0 || k.Until > maxMillis/1000 {
			return nil, fmt.Errorf("key %.40q can't be in a page: until %d: %w", k.KeyID, k.Until, err)
		}
		w.add(appendKey(w.rec[:0], k))
	}
	if s.States != nil {
		for k, st := range s.States {
			if err := checkState(st); err != nil {
				return nil, fmt.Errorf("target %s can't be in a page: %w", k, err)
			}
			w.add(appendState(w.rec[:0], k, st))
		}
	}
	return w.finish()
}

func checkState(s revoke.State) error {
	switch {
	case s.Cut.IsZero() && s.CutAt != 0:
		return errors.New("the time of a cut without its position")
	case s.CutAt < 0, s.CutAt > maxMillis, s.Until < 0, s.Until > maxMillis/1000:
		return errors.New("a time out of range")
	case max(s.Cut.Epoch, s.Held.Epoch, s.Released.Epoch) > MaxEpoch:
		return errors.New("an epoch out of range")
	}
	return nil
}

type pageWriter struct {
	id    revoke.Key
	pages [][]byte
	page  []byte
	n     uint32
	rec   []byte
}

func (w *pageWriter) add(rec []byte) {
	w.rec = rec
	if len(w.page)+len(rec)+pageTail > MaxPage {
		w.flush()
	}
	if w.page == nil {
		w.begin()
	}
	w.page = append(w.page, rec...)
	w.n++
}

func (w *pageWriter) begin() {
	w.page = append(make([]byte, 0, MaxPage/8), pageMagic...)
	w.page = append(w.page, w.id[:]...)
	w.page = binary.BigEndian.AppendUint32(w.page, uint32(len(w.pages)))
	w.page = append(w.page, 0, 0, 0, 0, 0, 0, 0, 0) // pages and records: known later
}

func (w *pageWriter) flush() {
	binary.BigEndian.PutUint32(w.page[pageHead-4:], w.n)
	w.pages = append(w.pages, w.page)
	w.page, w.n = nil, 0
}

func (w *pageWriter) finish() ([][]byte, error) {
	if w.page == nil {
		w.begin()
	}
	if w.flush(); len(w.pages) > MaxPages {
		return nil, fmt.Errorf("whole state of %d pages: %d at most", len(w.pages), MaxPages)
	}
	for i, p := range w.pages {
		binary.BigEndian.PutUint32(p[pageHead-8:], uint32(len(w.pages)))
		w.pages[i] = binary.BigEndian.AppendUint32(p, crc32.ChecksumIEEE(p))
	}
	return w.pages, nil
}

func appendEpoch(b []byte, e revoke.Epoch) []byte {
	b = binary.AppendUvarint(append(b, recEpoch), e.Number)
	b = appendStamp(b, e.D)
	if e.Restore {
		return append(b, 1)
	}
	return append(b, 0)
}

func appendKey(b []byte, k KeyMessage) []byte {
	b = binary.AppendUvarint(append(b, recKey), uint64(k.Until))
	b = append(binary.AppendUvarint(b, uint64(len(k.KeyID))), k.KeyID...)
	return append(binary.AppendUvarint(b, uint64(len(k.JWS))), k.JWS...)
}

func appendState(b []byte, k revoke.Key, s revoke.State) []byte {
	at := len(b)
	b = append(append(b, recState), k[:]...)
	if !s.Cut.IsZero() {
		b[at] |= hasCut
		b = binary.AppendUvarint(appendStamp(b, s.Cut), uint64(s.CutAt))
	}
	if s.Ended {
		b[at] |= hasEnd
	}
	if !s.Held.IsZero() {
		b[at] |= hasHold
		b = appendStamp(b, s.Held)
	}
	if !s.Released.IsZero() {
		b[at] |= hasRelease
		b = appendStamp(b, s.Released)
	}
	return binary.AppendUvarint(b, uint64(s.Until))
}

func appendStamp(b []byte, s revoke.Stamp) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(b, s.Epoch), s.Seq)
}

// DecodePage reads one page, all of it or nothing.
func DecodePage(data []byte) (Page, error) {
	if len(data) > MaxPage {
		return Page{}, fmt.Errorf("%w: %d bytes, %d at most", ErrPage, len(data), MaxPage)
	}
	if len(data) < pageHead+pageTail || string(data[:len(pageMagic)]) != pageMagic {
		return Page{}, fmt.Errorf("%w: not a page of version 1", ErrPage)
	}
	body, sum := data[:len(data)-pageTail], data[len(data)-pageTail:]
	if crc32.ChecksumIEEE(body) != binary.BigEndian.Uint32(sum) {
		return Page{}, fmt.Errorf("%w: the checksum differs", ErrPage)
	}
	head := body[len(pageMagic)+16:]
	number, pages, records := binary.BigEndian.Uint32(head), binary.BigEndian.Uint32(head[4:]), binary.BigEndian.Uint32(head[8:])
	if pages > MaxPages || number >= pages {
		return Page{}, fmt.Errorf("%w: page %d of %d", ErrPage, number, pages)
	}
	p := Page{
		Snapshot: base64.RawURLEncoding.EncodeToString(body[len(pageMagic) : len(pageMagic)+16]),
		Number:   int(number), Pages: int(pages),
	}
	r := pageReader{b: body[pageHead:]}
	if minState := 16 + 2; int(records) <= len(r.b)/minState {
		p.States = make([]TargetState, 0, records) // most records are states
	}
	for i := uint32(0); i < records && !r.bad; i++ {
		r.record(&p)
	}
	if !r.bad && len(r.b) != 0 {
		return Page{}, fmt.Errorf("%w: something follows the last record", ErrPage)
	}
	if r.bad {
		return Page{}, fmt.Errorf("%w: a record that is cut off or out of range", ErrPage)
	}
	return p, nil
}

// pageReader reads records; after the first fault it reads nothing more.
type pageReader struct {
	b   []byte
	bad bool
}

func (r *pageReader) record(p *Page) {
	tag := r.bytes(1)
	if r.bad {
		return
	}
	switch {
	case tag[0] == recEpoch:
		e := revoke.Epoch{Number: r.uint(MaxEpoch), D: r.stamp(), Restore: r.uint(1) == 1}
		r.bad = r.bad || e.Number == 0 || e.D.Epoch >= e.Number
		p.Epochs = append(p.Epochs, e)
	case tag[0] == recKey:
		k := KeyMessage{Until: int64(r.uint(maxMillis / 1000))}
		k.KeyID = string(r.bytes(r.uint(maxKeyID)))
		k.JWS = string(r.bytes(r.uint(maxJWS)))
		m := Message{KeyID: k.KeyID, JWS: k.JWS, Until: k.Until}
		r.bad = r.bad || m.checkKey() != nil
		p.Keys = append(p.Keys, k)
	case tag[0]&^0x0f == recState:
		p.States = append(p.States, r.state(tag[0]))
	default:
		r.bad = true
	}
}

func (r *pageReader) state(parts byte) (t TargetState) {
	copy(t.Key[:], r.bytes(16))
	s := &t.State
	if parts&hasCut != 0 {
		s.Cut, s.CutAt = r.stamp(), int64(r.uint(maxMillis))
	}
	s.Ended = parts&hasEnd != 0
	if parts&hasHold != 0 {
		s.Held = r.stamp()
	}
	if parts&hasRelease != 0 {
		s.Released = r.stamp()
	}
	s.Until = int64(r.uint(maxMillis / 1000))
	r.bad = r.bad || checkState(*s) != nil ||
		s.Cut.IsZero() == (parts&hasCut != 0) ||
		s.Held.IsZero() == (parts&hasHold != 0) ||
		s.Released.IsZero() == (parts&hasRelease != 0)
	return t
}

func (r *pageReader) stamp() revoke.Stamp {
	return revoke.Stamp{Epoch: r.uint(MaxEpoch), Seq: r.uint(1<<64 - 1)}
}

func (r *pageReader) uint(limit uint64) uint64 {
	if r.bad {
		return 0
	}
	n, size := binary.Uvarint(r.b)
	// The shortest form alone, so that one state has one text: a last byte of 0
	// says nothing.
	if size <= 0 || n > limit || size > 1 && r.b[size-1] == 0 {
		r.bad = true
		return 0
	}
	r.b = r.b[size:]
	return n
}

func (r *pageReader) bytes(n uint64) []byte {
	if r.bad || n > uint64(len(r.b)) {
		r.bad = true
		return nil
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}
