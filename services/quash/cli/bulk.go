package cli

import (
	"bufio"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/quash-project/quash/services/quash/dev"
	"github.com/quash-project/quash/shared/client"
	"github.com/quash-project/quash/shared/client/api"
	"github.com/quash-project/quash/shared/guard/wire"
)

// maxBulk is how many targets one command takes.
const maxBulk = 1_000_000

// part is what is committed at once, and where it stands in the file.
type part struct {
	targets     []string
	first, last int // lines
}

// key is the idempotency key of a part: the same targets under the same key of the whole are
// the same request, wherever a try before has ended.
func (p *part) key(whole string) string {
	sum := sha256.Sum256([]byte(strings.Join(p.targets, "\n")))
	return whole + "." + base64.RawURLEncoding.EncodeToString(sum[:16])
}

// outcomeOf is what the journal says of the lines of a part.
type outcomeOf struct {
	First    int    `json:"first"`
	Last     int    `json:"last"`
	Outcome  string `json:"outcome"` // committed
	ID       string `json:"id"`
	Epoch    uint64 `json:"epoch"`
	Sequence uint64 `json:"sequence"`

	CommittedAt time.Time `json:"committed_at,omitzero"`
}

// journalHead is the journal's first line: what it is the journal of.
type journalHead struct {
	Key    string `json:"key"` // idempotency key of the whole
	Op     string `json:"op"`
	Digest string `json:"digest"` // of the targets and of what is done to them
}

// journal keeps what has become of each line of a file, beside it. A nil one keeps nothing.
type journal struct {
	file *os.File
	head journalHead
	done map[int]outcomeOf // by the first line
}

// openJournal begins one, or goes on with the one that is there. Two runs at once would commit
// the same lines under two keys, and write over one another.
func openJournal(name string, head journalHead) (*journal, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, &exit{Usage, fmt.Errorf("the journal: %w", err)}
	}
	if err := dev.TryLock(f); err != nil {
		if errors.Is(err, dev.ErrLocked) {
			err = &exit{Failed, fmt.Errorf("another run is at it: %s; nothing was done", name)}
		} else {
			err = fmt.Errorf("lock %s: %w", name, err)
		}
		return nil, errors.Join(err, f.Close())
	}
	j := &journal{file: f, head: head, done: map[int]outcomeOf{}}
	if err := j.read(name); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if err := syncDir(filepath.Dir(name)); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return j, nil
}

// read takes what a run before has written. A last line that it could not finish is written
// over: what that was about is asked again, under the same key.
func (j *journal) read(name string) error {
	text, err := io.ReadAll(j.file)
	if err != nil {
		return err
	}
	whole := text[:strings.LastIndexByte(string(text), '\n')+1]
	if err := j.file.Truncate(int64(len(whole))); err != nil {
		return err
	}
	n := 0
	for line := range strings.Lines(string(whole)) {
		n++
		if n > 1 {
			var o outcomeOf
			if err := json.Unmarshal([]byte(line), &o); err != nil || o.ID == "" {
				return usage("the journal %s can't be read at line %d: it is no journal of this command", name, n)
			}
			j.done[o.First] = o
			continue
		}
		var was journalHead
		if err := json.Unmarshal([]byte(line), &was); err != nil || was.Key == "" {
			return usage("%s is no journal of this command: move it away", name)
		}
		if was.Op != j.head.Op || was.Digest != j.head.Digest {
			return usage("the journal %s is of another run: the file, the op, the reason or the code was another; move the journal away to begin anew", name)
		}
		j.head = was
	}
	if n == 0 {
		return j.write(j.head)
	}
	return nil
}

// syncDir makes the name of a new file outlive a power cut.
func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// write adds a line, which is on the disk then.
func (j *journal) write(v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if _, err := j.file.Write(append(text, '\n')); err != nil {
		return err
	}
	return j.file.Sync()
}

// of tells what became of a part.
func (j *journal) of(p part) (outcomeOf, bool) {
	o, is := j.done[p.first]
	return o, is && o.Last == p.last
}

// complete reports whether nothing is left to do, and what was done last. To whom it says so
// may have meant another cut of the same file, of what was made since.
func (j *journal) complete(parts []part) (last outcomeOf, is bool) {
	if j == nil {
		return last, false
	}
	for _, p := range parts {
		if last, is = j.of(p); !is {
			return last, false
		}
	}
	return last, is
}

// readTargets reads a file of targets, one a line; empty lines and those that begin with #
// say nothing. All of it is checked before anything is done.
func (a *app) readTargets(ctx context.Context, f revokeFlags) (targets []string, lines []int, err error) {
	in := a.env.In
	if f.file != "-" {
		file, err := openFile(f.file)
		if err != nil {
			return nil, nil, &exit{Usage, err}
		}
		defer file.Close()
		in = file
	}
	scan := bufio.NewScanner(in)
	n := 0
	for scan.Scan() {
		n++
		text := strings.TrimSpace(scan.Text())
		if text == "" || text[0] == '#' {
			continue
		}
		if looksSecret(text) {
			return nil, nil, usage("line %d is a secret, not a target: quash %s - takes those on standard input", n, f.op)
		}
		if text == "-" {
			return nil, nil, usage("line %d is -, which is no target here: quash %s - takes what has leaked on standard input", n, f.op)
		}
		one, err := a.targets(ctx, []string{text}, f)
		if err != nil {
			return nil, nil, fmt.Errorf("line %d: %w", n, err)
		}
		if len(targets) == maxBulk {
			return nil, nil, usage("more than %d targets: give them in several files", maxBulk)
		}
		targets, lines = append(targets, one...), append(lines, n)
	}
	if err := scan.Err(); err != nil {
		return nil, nil, usage("line %d: %w", n+1, err)
	}
	if len(targets) == 0 {
		return nil, nil, usage("the file has no targets: want one a line, as key:ID")
	}
	return targets, lines, nil
}

// selected lists the targets that a selector names.
func (a *app) selected(ctx context.Context, cl *client.Client, text string) ([]string, error) {
	var out []string
	next := ""
	for {
		params := &api.SelectTargetsParams{Select: text, Limit: new(int64(10_000))}
		if next != "" {
			params.Page = &next
		}
		page, err := cl.SelectTargets(client.Patient(ctx, patience), params)
		if err != nil {
			return nil, err
		}
		for _, t := range page.Value.Items {
			out = append(out, t.Target)
		}
		if len(out) > maxBulk {
			return nil, usage("the selector names more than %d targets: narrow it", maxBulk)
		}
		if next = page.Value.NextPage; next == "" {
			return out, nil
		}
		a.note("selected %d targets so far", len(out))
	}
}

// partsOf cuts a list into what can be committed at once.
func partsOf(targets []string, lines []int) []part {
	var out []part
	at := 0
	for some := range slices.Chunk(targets, wire.MaxTargets) {
		p := part{targets: some, first: at + 1, last: at + len(some)}
		if lines != nil {
			p.first, p.last = lines[at], lines[at+len(some)-1]
		}
		out = append(out, p)
		at += len(some)
	}
	return out
}

// bulk commits part after part, and returns the last entry, which who has it has all of them,
// and the ids of all.
func (a *app) bulk(ctx context.Context, cl *client.Client, parts []part, plans []string, j *journal, body api.Commit, f revokeFlags) (last api.Answer[api.Entry], ids []string, err error) {
	total, done := 0, 0
	for _, p := range parts {
		total += len(p.targets)
	}
	if o, is := j.complete(parts); is {
		return last, nil, &exit{Failed, fmt.Errorf("all %d lines were committed (last %s): nothing was done; move %s away to do it anew", total, cmp.Or(at(o.CommittedAt), o.ID), j.file.Name())}
	}
	if len(parts) > 1 {
		body.Whole = &api.WholePart{ID: f.key, Targets: int64(total)}
	}
	for i, p := range parts {
		if j != nil {
			if o, is := j.of(p); is {
				done, ids = done+len(p.targets), append(ids, o.ID)
				last = api.Answer[api.Entry]{Value: api.Entry{ID: o.ID}} // looked up again below
				continue
			}
		}
		body.Targets, body.Plan = p.targets, f.plan
		if i < len(plans) {
			body.Plan = plans[i]
		}
		var off *api.Pending
		last, off, err = a.commitOne(ctx, cl, &body, p.key(f.key))
		if off != nil { // asked for again, it is what has become of it
			f.waits.parts = append(f.waits.parts, *off)
			done += len(p.targets)
			a.note("%s: %d of %d targets are done, or wait for a second person", f.op, done, total)
			continue
		}
		if err != nil {
			if j == nil && len(parts) > 1 {
				a.note("%d of %d targets are done; the rest follows when it is repeated with --idempotency-key %s", done, total, f.key)
				for _, id := range ids {
					a.note("committed: %s", clean(id))
				}
			}
			return last, ids, err
		}
		ids = append(ids, last.Value.ID)
		if j != nil {
			e := last.Value
			if err := j.write(outcomeOf{First: p.first, Last: p.last, Outcome: "committed", ID: e.ID, Epoch: uint64(e.Epoch), Sequence: uint64(e.Sequence), CommittedAt: e.CommittedAt}); err != nil {
				return last, ids, fmt.Errorf("the journal: %w; run the command again: nothing is done twice", err)
			}
		}
		if done += len(p.targets); len(parts) > 1 {
			a.note("%s %d of %d targets", f.op, done, total)
		}
	}
	if last.Raw == nil && len(f.waits.parts) == 0 { // the last part was done by a run before
		last, err = cl.GetRevocation(ctx, last.Value.ID, nil)
	}
	return last, ids, err
}

// journalOf opens the journal of a file; none for standard input.
func (a *app) journalOf(targets []string, f revokeFlags) (*journal, error) {
	if f.file == "" || f.file == "-" {
		return nil, nil //nolint:nilnil // there is none
	}
	sum := sha256.New()
	for _, s := range append([]string{f.op, f.reason, f.code, f.issuer, f.tenant, f.hold.String(), f.then}, targets...) {
		fmt.Fprintf(sum, "%d:%s", len(s), s)
	}
	key := f.key
	if key == "" {
		key = uuid.NewString()
	}
	return openJournal(f.file+".journal", journalHead{Key: key, Op: f.op, Digest: base64.RawURLEncoding.EncodeToString(sum.Sum(nil))})
}
