package cli

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/quash-project/quash/shared/client/api"
	"github.com/quash-project/quash/shared/strictjson"
)

// importBatch is how many keys go into one request; the API takes no more than twice
// that.
const importBatch = 100

// maxImportLine is the longest line of a file with keys.
const maxImportLine = 64 << 10

// importLine is a line of such a file, and what became of it.
type importLine struct {
	Line    int    `json:"line"`
	ID      string `json:"id,omitempty"`
	Outcome string `json:"outcome"`
	Field   string `json:"field,omitempty"`
	Detail  string `json:"detail,omitempty"`

	key api.ImportKey
}

func (a *app) keyImportCmd() *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use: "import FILE", Short: "Take API keys of another system by the hashes of their secrets",
		Long: `Take API keys of another system, so that whoever has one can go on with it.

FILE (- is standard input) has one key a line, in JSON:
  {"sha256": HASH, "owner": "alice", "scopes": ["orders:read"], "name": "shop"}
HASH is the SHA-256 of the whole secret, in hexadecimal digits: printf %s SECRET | sha256sum.
There can be roles, owner_roles, labels, audiences, networks, rate_limit, and expires, a
time as 2027-01-31T00:00:00Z (default: the life of new keys).

The same hash is the same key: import the file again when it was cut short. A secret that
can be guessed can be guessed here too; give the owners new keys when you can.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			lines, err := a.importLines(args[0])
			if err != nil {
				return err
			}
			err = a.importAll(cmd.Context(), lines, reason)
			return a.imported(lines, err)
		},
	}
	c.Flags().StringVar(&reason, "reason", "", "why, for the audit")
	return c
}

// importLines reads a file. What is wrong with one line stands there.
func (a *app) importLines(file string) ([]*importLine, error) {
	in := a.env.In
	if file != "-" {
		f, err := os.Open(file)
		if err != nil && looksSecret(file) {
			return nil, usage("that is a secret, not a file: keys are imported by the hashes of their secrets")
		}
		if err != nil {
			return nil, usage("keys: %w", err)
		}
		defer f.Close()
		in = f
	}
	var out []*importLine
	s := bufio.NewScanner(in)
	s.Buffer(nil, maxImportLine)
	n := 0
	for s.Scan() {
		n++
		if len(s.Bytes()) == 0 {
			continue
		}
		l := &importLine{Line: n}
		if err := strictjson.Decode(s.Bytes(), &l.key); err != nil {
			l.Outcome, l.Detail = "refused", err.Error()
		}
		out = append(out, l)
	}
	if err := s.Err(); errors.Is(err, bufio.ErrTooLong) {
		return nil, usage("line %d has more than %d bytes: want one key a line, in JSON", n+1, maxImportLine)
	} else if err != nil {
		return nil, usage("keys: %w", err)
	}
	if len(out) == 0 {
		return nil, usage("%s has no keys: want one a line, in JSON; see quash key import --help", nameOf(file))
	}
	return out, nil
}

func nameOf(file string) string {
	if file == "-" {
		return "standard input"
	}
	return file
}

// importAll sends what could be read, and notes what became of it.
func (a *app) importAll(ctx context.Context, lines []*importLine, reason string) error {
	cl, err := a.connect()
	if err != nil {
		return err
	}
	var batch []*importLine
	send := func() error {
		if len(batch) == 0 {
			return nil
		}
		keys := make([]api.ImportKey, len(batch))
		for i, l := range batch {
			keys[i] = l.key
		}
		answer, err := cl.ImportKeys(ctx, api.ImportKeysJSONRequestBody{Keys: keys, Reason: reason})
		if err != nil {
			return err
		}
		items := answer.Value.Items
		if len(items) != len(batch) {
			return io.ErrUnexpectedEOF
		}
		for i, l := range batch {
			l.ID, l.Outcome, l.Field, l.Detail = items[i].ID, string(items[i].Outcome), items[i].Field, items[i].Detail
		}
		batch = batch[:0]
		return nil
	}
	for _, l := range lines {
		if l.Outcome != "" {
			continue
		}
		if batch = append(batch, l); len(batch) == importBatch {
			if err := send(); err != nil {
				return err
			}
		}
	}
	return send()
}

// imported tells what became of each line, also when not all could be sent.
func (a *app) imported(lines []*importLine, err error) error {
	count := map[string]int{}
	var rows [][]string
	for _, l := range lines {
		if l.Outcome == "" {
			l.Outcome = "not sent" // or its answer was lost
		}
		count[l.Outcome]++
		detail := l.Detail
		if l.Field != "" {
			detail = l.Field + ": " + detail
		}
		rows = append(rows, []string{strconv.Itoa(l.Line), l.ID, l.Outcome, detail})
	}
	printed := a.print(map[string]any{"items": lines}, func() { a.table([]string{"LINE", "ID", "OUTCOME", "WHY"}, rows) })
	if printed != nil {
		return printed
	}
	a.note("%d imported, %d were there already, %d refused, %d not sent.", count["imported"], count["exists"], count["refused"], count["not sent"])
	switch {
	case err != nil:
		a.note("Import the file again: what was imported stays as it is.")
		return err
	case count["refused"] > 0:
		return &exit{Failed, nil}
	}
	return nil
}
