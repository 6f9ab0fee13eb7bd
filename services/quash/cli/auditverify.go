package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/quash-project/quash/services/revocation/audit"
	"github.com/quash-project/quash/shared/client"
	"github.com/quash-project/quash/shared/client/api"
)

func (a *app) auditCheckpointCmd() *cobra.Command {
	return &cobra.Command{
		Use: "checkpoint", Short: "Print what the audit trail is now, signed, to be kept elsewhere", Args: cobra.NoArgs,
		Long: `Print a checkpoint of the audit trail: a C2SP signed note with the number of its pages
and the digest of the last of them. Keep it where nobody who can write the trail can
write: quash audit verify --checkpoint FILE then finds a trail that was cut off or made
anew since.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := a.connect()
			if err != nil {
				return err
			}
			resp, err := cl.ShowAuditCheckpoint(client.Patient(cmd.Context(), auditPatience))
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			_, err = io.Copy(a.env.Out, resp.Body)
			return err
		},
	}
}

// verified is what quash audit verify has found.
type verified struct {
	OK     bool    `json:"ok"`
	Pages  uint64  `json:"pages"`
	Items  uint64  `json:"items"`
	Digest string  `json:"digest"` // of the last good page
	Broken *damage `json:"broken,omitempty"`
	Behind string  `json:"behind,omitempty"`
}

// damage is where the trail breaks.
type damage struct {
	Page uint64 `json:"page"`
	Why  string `json:"why"`
}

func (a *app) auditVerifyCmd() *cobra.Command {
	var file, keys string
	var only bool
	c := &cobra.Command{
		Use: "verify", Short: "Verify the whole audit trail here, trusting no service", Args: cobra.NoArgs,
		Long: `Verify the audit trail: every page of it is read as it is stored, and held here against
those before it. What was removed, changed, swapped, inserted or cut off is named, with
the page. That the end is missing, or that all of it was made anew, only a checkpoint
can tell that was kept elsewhere: --checkpoint, with the keys that may have signed it.
Keep those beside it (quash receipt keys): who can write the trail could also answer
with other keys.

Exit codes: 0 it is whole, 1 it is not, or it does not have everything yet that was
committed before.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := audit.NewVerifier(nil)
			from := uint64(1)
			switch {
			case file == "" && (keys != "" || only):
				return usage("--checkpoint is missing")
			case file != "":
				c, err := a.openCheckpoint(cmd.Context(), file, keys)
				if err != nil {
					return err
				}
				v.Against(c)
				if only {
					v.Begin(c)
					from = c.Size
				}
			}
			cl, err := a.connect()
			if err != nil {
				return err
			}
			out, err := verifyPages(cmd, cl, v, from)
			if err != nil {
				return err
			}
			if err := a.print(out, func() { a.tellVerified(out) }); err != nil {
				return err
			}
			if !out.OK {
				return &exit{Failed, nil}
			}
			return nil
		},
	}
	c.Flags().StringVar(&file, "checkpoint", "", "a file with a checkpoint that was kept: the trail must still have what it says")
	c.Flags().StringVar(&keys, "keys", "", "a file with the key set that was kept (default: ask the service)")
	c.Flags().BoolVar(&only, "from-checkpoint", false, "begin with the page of the checkpoint, and trust what is before")
	return c
}

// maxCheckpoint is how many bytes a checkpoint may have: it has some three hundred.
const maxCheckpoint = 64 << 10

// openCheckpoint reads a checkpoint and the keys that may have signed it. What is wrong
// with it is said, and is a failure: it is what was to be verified.
func (a *app) openCheckpoint(ctx context.Context, file, keys string) (audit.Checkpoint, error) {
	text, err := a.readText(file, maxCheckpoint)
	if err != nil {
		return audit.Checkpoint{}, err
	}
	signed := []byte(text)
	set, err := a.proofKeys(ctx, keys)
	if err != nil {
		return audit.Checkpoint{}, err
	}
	// The origin is the first line, and the name of whose key has signed it.
	origin, _, _ := strings.Cut(text, "\n")
	known, err := set.NoteVerifiers(origin)
	if err != nil {
		return audit.Checkpoint{}, &exit{Failed, fmt.Errorf("%s: %w", file, err)}
	}
	c, err := audit.OpenCheckpoint(signed, known)
	if err != nil {
		return c, &exit{Failed, fmt.Errorf("%s: %w", file, err)}
	}
	return c, nil
}

// verifyPages gives all pages from one on to the verifier.
func verifyPages(cmd *cobra.Command, cl *client.Client, v *audit.Verifier, from uint64) (*verified, error) {
	first := strconv.FormatUint(from, 10)
	resp, err := cl.ReadAuditPages(client.Patient(cmd.Context(), auditPatience), &api.ReadAuditPagesParams{From: &first})
	if err != nil {
		return nil, err
	}
	var ends *api.TrailEnds
	err = eachLine(resp, func(text []byte) error {
		if ends == nil {
			ends = &api.TrailEnds{}
			return json.Unmarshal(text, ends)
		}
		var p struct {
			Number uint64 `json:"number"`
			Body   []byte `json:"body"`
		}
		if err := json.Unmarshal(text, &p); err != nil {
			return err
		}
		return v.Page(p.Number, p.Body)
	})
	if err == nil && ends == nil {
		err = errors.New("the answer does not say how many pages there should be")
	}
	if err == nil {
		err = v.End(uint64(ends.Pages))
	}
	broken := (*audit.Broken)(nil)
	if err != nil && !errors.As(err, &broken) {
		return nil, err
	}
	sum := v.Summary()
	out := &verified{Pages: sum.Pages, Items: sum.Items, Digest: sum.Last.String()}
	if broken != nil {
		out.Broken = &damage{broken.Number, broken.Why}
	}
	if ends != nil {
		out.Behind = ends.Behind
	}
	out.OK = out.Broken == nil && out.Behind == ""
	return out, nil
}

func (a *app) tellVerified(v *verified) {
	a.fields("pages", fmt.Sprint(v.Pages), "items", fmt.Sprint(v.Items), "digest", v.Digest)
	if v.Broken != nil {
		a.note("the audit trail is broken at page %d: %s", v.Broken.Page, v.Broken.Why)
	}
	if v.Behind != "" {
		a.note("it does not have everything that was committed: %s", v.Behind)
	}
	if v.OK {
		a.note("the audit trail is whole")
	}
}
