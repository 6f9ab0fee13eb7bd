package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quash-project/quash/services/revocation/proof"
	"github.com/quash-project/quash/services/revocation/receipts"
	"github.com/quash-project/quash/shared/client"
	"github.com/quash-project/quash/shared/client/api"
	"github.com/quash-project/quash/shared/guard/token"
)

// asHTML is a form that receipts alone have: a page to read or to print.
const asHTML = "html"

func (a *app) receiptCmd() *cobra.Command {
	return group("receipt", "Signed proofs of how far revocations have come",
		a.receiptShowCmd(), a.receiptListCmd(), a.receiptVerifyCmd(), a.receiptWaitCmd(), a.receiptKeysCmd(), a.receiptAttemptsCmd())
}

func (a *app) receiptShowCmd() *cobra.Command {
	c := &cobra.Command{
		Use: "show ID", Short: "Print a receipt: the signed form alone, or with -o json or html", Args: cobra.ExactArgs(1),
		Long: `Print a receipt, by the id that quash revoke prints: the compact JWS alone, to be kept
and verified later with quash receipt verify. With -o json what it says stands beside
it; with -o html it is a page to read or to print.`,
		ValidArgsFunction: a.completeIDs(receiptList),
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if all := append([]string{asHTML}, forms...); !slices.Contains(all, a.output) {
				return usage("-o %q: want one of %s", a.output, strings.Join(all, ", "))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.connect()
			if err != nil {
				return err
			}
			if a.output == asHTML {
				return a.receiptPage(cmd.Context(), cl, args[0])
			}
			r, err := cl.GetReceipt(cmd.Context(), args[0], nil)
			if err != nil {
				return err
			}
			return a.print(r.Raw, func() { fmt.Fprintln(a.env.Out, r.Value.Jws) })
		},
	}
	return c
}

func (a *app) receiptPage(ctx context.Context, cl *client.Client, id string) error {
	resp, err := cl.Requests.GetReceipt(ctx, id, &api.GetReceiptParams{Format: new(api.GetReceiptParamsFormat(asHTML))})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(a.env.Out, resp.Body)
	return err
}

func (a *app) receiptListCmd() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "All receipts, newest first", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := a.connect()
			if err != nil {
				return err
			}
			all, err := client.All(func(page api.RequestEditorFn) (api.Answer[api.ListReceiptSummary], error) {
				return cl.ListReceipts(cmd.Context(), nil, page)
			})
			if err != nil {
				return err
			}
			return a.print(all.Raw, func() {
				var rows [][]string
				for _, r := range all.Value.Items {
					target := r.Target
					if r.Targets > 1 {
						target += fmt.Sprintf(" and %d more", r.Targets-1)
					}
					rows = append(rows, []string{at(r.CommittedAt), string(r.Op), target, yes(r.Complete), r.Actor, r.Reason, r.ID})
				}
				a.table([]string{"COMMITTED", "OP", "TARGET", "COMPLETE", "BY", "REASON", "ID"}, rows)
			})
		},
	}
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func (a *app) receiptWaitCmd() *cobra.Command {
	var wait time.Duration
	c := &cobra.Command{
		Use: "wait ID", Short: "Wait until a receipt is complete, and print its signed form", Args: cobra.ExactArgs(1),
		ValidArgsFunction: a.completeIDs(receiptList),
		RunE: func(cmd *cobra.Command, args []string) error {
			if wait < 0 {
				return usage("--wait %s: it is not negative", wait)
			}
			cl, err := a.connect()
			if err != nil {
				return err
			}
			r, err := cl.GetReceipt(cmd.Context(), args[0], &api.GetReceiptParams{Wait: new(turn(wait))})
			end := a.env.Now().Add(wait)
			for err == nil && !r.Value.Complete && cmd.Context().Err() == nil {
				left := end.Sub(a.env.Now())
				if left <= 0 {
					break
				}
				next, again := cl.GetReceipt(cmd.Context(), args[0], &api.GetReceiptParams{Wait: new(turn(left))})
				if again != nil {
					pause(cmd.Context(), left)
					continue
				}
				r = next
			}
			if err != nil {
				return err
			}
			if err := a.print(r.Raw, func() { fmt.Fprintln(a.env.Out, r.Value.Jws) }); err != nil {
				return err
			}
			if !r.Value.Complete {
				for _, u := range r.Value.Unconfirmed {
					a.note("not confirmed: %s", stillOpen(u.Name, u.Instance, u.Open, u.Fenced, at(u.FencedBy)))
				}
				return &exit{Unconfirmed, nil}
			}
			return nil
		},
	}
	c.Flags().DurationVar(&wait, "wait", time.Minute, "wait so long; exit code 3 if it is not complete then")
	return c
}

func stillOpen(name, instance string, open, fenced bool, by string) string {
	switch {
	case open:
		return guard(name, instance) + " is open: it allows past its limit, and nothing bounds it"
	case fenced:
		return guard(name, instance) + ", fenced since " + by
	}
	return guard(name, instance) + ", fenced by " + by
}

func (a *app) receiptKeysCmd() *cobra.Command {
	return &cobra.Command{
		Use: "keys", Short: "Print the key set by which receipts are verified, to be kept", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := a.connect()
			if err != nil {
				return err
			}
			set, err := cl.GetReceiptKeys(cmd.Context())
			if err != nil {
				return err
			}
			form := a.output
			if form == asTable {
				form = asJSON // there is no other form to keep it in
			}
			text, err := encode(set.Raw, form)
			if err == nil {
				_, err = a.env.Out.Write(text)
			}
			return err
		},
	}
}

func (a *app) receiptVerifyCmd() *cobra.Command {
	var keys string
	c := &cobra.Command{
		Use: "verify FILE|-", Short: "Tell whether a receipt is genuine, and what it proves", Args: cobra.ExactArgs(1),
		Long: `Tell whether a receipt is genuine, and what it proves: a file, or standard input, with
the compact JWS that quash receipt show prints.

With --keys nobody is asked: the file has what quash receipt keys printed once. Exit
codes: 0 it is genuine, whether complete or not; 1 it is not.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := a.readText(args[0], proof.MaxJWS)
			if err != nil {
				return err
			}
			set, err := a.proofKeys(cmd.Context(), keys)
			if err != nil {
				return err
			}
			s, signed, err := receipts.Verify(strings.TrimSpace(text), set)
			if err != nil {
				return &exit{Failed, fmt.Errorf("not genuine: %w", err)}
			}
			return a.print(json.RawMessage(signed.Payload), func() { a.tellReceipt(s, signed) })
		},
	}
	c.Flags().StringVar(&keys, "keys", "", "a file with the key set that was kept (default: ask the service)")
	return c
}

// proofKeys reads a kept key set, or asks for it.
func (a *app) proofKeys(ctx context.Context, file string) (proof.KeySet, error) {
	var data []byte
	if file == "" {
		cl, err := a.connect()
		if err != nil {
			return proof.KeySet{}, err
		}
		set, err := cl.GetReceiptKeys(ctx)
		if err != nil {
			return proof.KeySet{}, err
		}
		data = set.Raw
	} else {
		text, err := a.readText(file, 1<<20)
		if err != nil {
			return proof.KeySet{}, err
		}
		data = []byte(text)
	}
	var set proof.KeySet
	if token.CheckJSON(strings.TrimSpace(string(data))) != nil || json.Unmarshal(data, &set) != nil || len(set.Keys) == 0 {
		return set, usage("--keys %s: this is no key set: want what quash receipt keys prints", file)
	}
	return set, nil
}

// readText reads a file, or standard input for "-".
func (a *app) readText(file string, most int64) (string, error) {
	in := a.env.In
	if file != "-" {
		f, err := openFile(file)
		if err != nil {
			return "", usage("%w", err)
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, most+1))
	switch {
	case err != nil:
		return "", usage("%s: %w", file, err)
	case int64(len(data)) > most:
		return "", usage("%s has more than %d bytes", file, most)
	}
	return string(data), nil
}

// tellReceipt says in words what a genuine receipt proves.
func (a *app) tellReceipt(s receipts.Statement, signed proof.Signed) {
	d := s.Document
	past := map[string]string{"revoke": "revoked", "hold": "held", "release": "released"}[d.Op]
	what := strings.Join(d.Targets[:min(len(d.Targets), 5)], ", ")
	if more := len(d.Targets) - 5; more > 0 {
		what += fmt.Sprintf(" and %d more", more)
	}
	a.fields("genuine", "signed by "+s.Installation+" with key "+signed.Key.KeyID+" at "+at(signed.At),
		"proves", fmt.Sprintf("that %s had %s %s", d.Actor, past, what), "tenant", d.Tenant, "of issuer", d.Issuer, "because", d.Reason, "code", d.Code, "incident", d.Incident,
		"committed", fmt.Sprintf("%s at %d.%d", d.CommittedAt, d.Epoch, d.Sequence), "id", d.ID)
	judged := "nobody had judged it"
	if d.JudgedAt != nil {
		judged = "as it was at " + d.JudgedAt.String()
	}
	if d.Complete {
		a.fields("complete", "yes, "+judged+": every resource server had confirmed, was out, or refused by itself")
	} else {
		a.fields("complete", "NOT COMPLETE, "+judged+": it does not prove that it had taken effect everywhere")
	}
	a.fields("confirmed", strconv.Itoa(len(d.Confirmed))+" servers")
	for _, u := range d.Unconfirmed {
		by := ""
		if u.FencedBy != nil {
			by = u.FencedBy.String()
		}
		a.fields("not confirmed", stillOpen(u.Name, u.Instance, u.Open, u.Fenced, by))
	}
	for _, o := range d.Out {
		a.fields("out", guard(o.Name, o.Instance)+", found gone at "+o.At.String())
	}
	for _, r := range d.Running {
		text := "none under this entry any more"
		if r.Count > 0 {
			text = fmt.Sprintf("%d requests that were admitted before", r.Count)
		}
		a.fields("runs on", fmt.Sprintf("%s: %s, heard at %s", guard(r.Name, r.Instance), text, r.At))
	}
	if d.Redis != nil {
		applied := "not yet applied"
		if d.Redis.AppliedAt != nil {
			applied = "applied at " + d.Redis.AppliedAt.String()
		}
		a.fields("redis", applied+", fenced by "+d.Redis.FencedBy.String())
	}
}
