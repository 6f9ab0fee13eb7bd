package cli

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/quash-project/quash/shared/client"
	"github.com/quash-project/quash/shared/client/api"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// many is above how many targets a person confirms.
const many = 10

// wideKinds are the kinds of target with an unknown number of things under them.
var wideKinds = []revoke.Kind{revoke.KindTenant, revoke.KindIssuer, revoke.KindSigningKey, revoke.KindRole, revoke.KindClient, revoke.KindPrincipal}

// wide returns what a person has to type before so much is cut; empty for what is narrow.
func wide(targets []string) string {
	if len(targets) == 1 {
		name, id, _ := strings.Cut(targets[0], ":")
		if k, err := revoke.ParseKind(name); err == nil && slices.Contains(wideKinds, k) {
			return id
		}
		return ""
	}
	if len(targets) > many || slices.ContainsFunc(targets, func(t string) bool { return wide([]string{t}) != "" }) {
		return strconv.Itoa(len(targets))
	}
	return ""
}

// previewed is what several parts would hit.
type previewed struct {
	api.Preview
	parts int
}

// lastAdminKnown: what cuts the last one off in one part does so in all; who is left in each
// may be cut in another.
func (p previewed) lastAdminKnown() bool { return p.parts <= 1 || p.CutsLastAdmin }

// clientsKnown: what a part has left out of its list is missing in the sum.
func (p previewed) clientsKnown() bool { return p.parts <= 1 || p.MoreClients == 0 }

func (p previewed) MarshalJSON() ([]byte, error) {
	all := struct {
		api.Preview
		CutsLastAdmin      *bool `json:"cuts_last_admin,omitempty"`
		CutsLastAdminExact bool  `json:"cuts_last_admin_exact"`
		ByClientExact      bool  `json:"by_client_exact"`
	}{p.Preview, nil, p.lastAdminKnown(), p.clientsKnown()}
	if p.lastAdminKnown() {
		all.CutsLastAdmin = &p.CutsLastAdmin
	}
	return json.Marshal(all)
}

// preview asks what the targets would hit, in as many parts as it takes, and returns the
// plan of each. The sum of several parts is shown as one.
func (a *app) preview(ctx context.Context, cl *client.Client, op string, targets []string, f revokeFlags) (sum previewed, raw json.RawMessage, plans []string, err error) {
	for part := range slices.Chunk(targets, wire.MaxTargets) {
		body := api.PreviewRevocationJSONRequestBody{Op: api.PreviewInputBodyOp(op), Targets: part, Issuer: f.issuer, Tenant: f.tenant, Then: f.then, Incident: f.incident}
		if f.hold > 0 {
			body.For = f.hold.String()
		}
		shown, err := cl.PreviewRevocation(client.Patient(ctx, patience), body)
		if a.refusedKept(err, &body.Incident) {
			f.incident = ""
			shown, err = cl.PreviewRevocation(client.Patient(ctx, patience), body)
		}
		if err != nil {
			return sum, nil, nil, err
		}
		a.notGathered(shown.Value.NotGathered)
		plans = append(plans, shown.Value.Plan)
		if len(plans) == 1 {
			sum.Preview, raw, sum.parts = shown.Value, shown.Raw, 1
			continue
		}
		sum.parts++
		add(&sum.Preview, &shown.Value)
		a.note("previewed %d of %d targets", min(len(plans)*wire.MaxTargets, len(targets)), len(targets))
	}
	if len(plans) > 1 {
		// Only keys are apart from one another: of anything else one record may be hit twice.
		if slices.ContainsFunc(targets, func(t string) bool { return !strings.HasPrefix(t, revoke.KindKey.String()+":") }) {
			for _, c := range counts(&sum.Preview) {
				c.Exact = false
			}
		}
		sum.Plan = ""
		raw, err = json.Marshal(sum)
	}
	return sum, raw, plans, err
}

func counts(p *api.Preview) []*api.Count {
	return []*api.Count{&p.APIKeys, &p.ClientSecrets, &p.Clients, &p.Roles, &p.Bindings, &p.Narrowed, &p.Sessions, &p.Grants}
}

// add adds what another part hits.
func add(sum, part *api.Preview) {
	for i, c := range counts(part) {
		to := counts(sum)[i]
		to.Count += c.Count
		to.Exact = to.Exact && c.Exact
	}
	sum.Targets = append(sum.Targets, part.Targets...)
	sum.Unknown = append(sum.Unknown, part.Unknown...)
	sum.Tokens.AtMost += part.Tokens.AtMost
	if sum.Tokens.Bounded = sum.Tokens.Bounded && part.Tokens.Bounded; !sum.Tokens.Bounded {
		sum.Tokens.AtMost = 0
	}
	sum.CutsCaller = sum.CutsCaller || part.CutsCaller
	sum.CutsLastAdmin = sum.CutsLastAdmin || part.CutsLastAdmin
	if part.FencedBy.After(sum.FencedBy) {
		sum.FencedBy = part.FencedBy
	}
	sum.ByClient = merged(sum.ByClient, part.ByClient, func(c api.ClientHits) string { return c.ClientID }, func(a, b api.ClientHits) api.ClientHits {
		a.Keys += b.Keys
		return a
	})
	addServers(sum, part)
	sum.MoreClients = max(sum.MoreClients, part.MoreClients)
	slices.SortFunc(sum.ByClient, func(a, b api.ClientHits) int { return cmp.Compare(b.Keys, a.Keys) })
	sum.ByTenant = merged(sum.ByTenant, part.ByTenant, func(t api.TenantHits) string { return t.Tenant }, func(a, b api.TenantHits) api.TenantHits {
		a.Keys, a.Clients = a.Keys+b.Keys, a.Clients+b.Clients
		return a
	})
}

// addServers adds what resource servers have said to another part: one has seen the whole if
// it has seen a part of it, and has not if it has seen none.
func addServers(sum, part *api.Preview) {
	sum.ResourceServersSeen = sum.ResourceServersSeen && part.ResourceServersSeen
	sum.ResourceServers = merged(sum.ResourceServers, part.ResourceServers, func(r api.ResourceServer) string { return r.Instance }, func(a, b api.ResourceServer) api.ResourceServer {
		switch {
		case a.Seen == api.ResourceServerSeenYes && b.Seen == api.ResourceServerSeenYes:
			a.WrongPpm = min(a.WrongPpm, b.WrongPpm)
		case a.Seen == api.ResourceServerSeenYes:
		case b.Seen == api.ResourceServerSeenYes, b.Seen == api.ResourceServerSeenUnknown:
			return b
		}
		if b.RemembersSince.After(a.RemembersSince) {
			a.RemembersSince = b.RemembersSince
		}
		return a
	})
}

// seenBy tells a person which resource servers have accepted what would be cut.
func seenBy(p *api.Preview) (lines []string) {
	if !p.ResourceServersSeen {
		return []string{"seen by", "not asked: the fleet can't be asked now whose tokens it has accepted"}
	}
	var none, silent int
	for _, r := range p.ResourceServers {
		switch r.Seen {
		case api.ResourceServerSeenYes:
			text := fmt.Sprintf("%s, of what it remembers since %s", guard(r.Name, r.Instance), at(r.RemembersSince))
			if r.WrongPpm > 0 {
				text += fmt.Sprintf("; wrong in %d of a million", r.WrongPpm)
			}
			lines = append(lines, "seen by", text)
		case api.ResourceServerSeenNo:
			none++
		default:
			silent++
			if silent <= many {
				lines = append(lines, "not said", guard(r.Name, r.Instance))
			}
		}
	}
	if silent > many {
		lines = append(lines, "not said", fmt.Sprintf("%d in all", silent))
	}
	return append(lines, "not seen by", strconv.Itoa(none))
}

// merged adds to each in a what b has of the same name.
func merged[T any](a, b []T, name func(T) string, sum func(a, b T) T) []T {
	at := map[string]int{}
	for i, x := range a {
		at[name(x)] = i
	}
	for _, x := range b {
		if i, is := at[name(x)]; is {
			a[i] = sum(a[i], x)
		} else {
			at[name(x)] = len(a)
			a = append(a, x)
		}
	}
	return a
}

// showPreview tells a person what would be hit.
func (a *app) showPreview(p previewed, f revokeFlags) []string {
	count := func(c api.Count) string {
		if c.Count == 0 && c.Exact {
			return ""
		}
		if !c.Exact {
			return fmt.Sprintf("%d, or others: there are no records of all", c.Count)
		}
		return strconv.FormatInt(c.Count, 10)
	}
	tokens := "nothing bounds how many; all of them have expired by " + at(p.Tokens.GoneBy)
	if p.Tokens.Bounded {
		tokens = fmt.Sprintf("%d at most", p.Tokens.AtMost)
	}
	var clients []string
	for i, c := range p.ByClient {
		if i == many {
			clients = append(clients, "and others")
			break
		}
		clients = append(clients, fmt.Sprintf("%s (%d)", cmp.Or(c.ClientID, "none"), c.Keys))
	}
	if !p.clientsKnown() && len(clients) > 0 {
		clients[0] = "at least " + clients[0]
	}
	what := string(p.Op)
	if f.then == "revoke" {
		what = "hold, and revoke after " + f.hold.String() + " unless it is released before: what a revocation would hit"
	}
	lines := []string{
		"op", what, "targets", strconv.Itoa(len(p.Targets)), "API keys", count(p.APIKeys), "client secrets", count(p.ClientSecrets), "clients", count(p.Clients),
		"roles", count(p.Roles), "bindings", count(p.Bindings), "lose a role", count(p.Narrowed), "by client", strings.Join(clients, ", "), "tokens", tokens,
		"guards", fmt.Sprintf("%d have joined; those that can be reached follow at once, the others refuse by %s", len(p.ResourceServers), at(p.FencedBy)),
	}
	lines = append(lines, seenBy(&p.Preview)...)
	for _, u := range p.Unreachable {
		lines = append(lines, "not reached", unconfirmed(u))
	}
	for _, t := range p.Unknown[:min(len(p.Unknown), many)] {
		lines = append(lines, "no record of", t)
	}
	if p.CutsCaller {
		lines = append(lines, "WARNING", "it cuts you off yourself: your own credential would be refused")
	}
	if p.CutsLastAdmin {
		lines = append(lines, "WARNING", "nobody would be left who rules the tenant; break-glass lets somebody in again")
	}
	if !p.lastAdminKnown() {
		lines = append(lines, "cuts last admin", "not known: it was judged part by part")
	}
	return append(lines, "plan", p.Plan)
}

// confirmed shows a person at the terminal what so much would hit, and lets them type its
// name. It returns the plans of what was shown: none where nobody is there, or it is narrow.
func (a *app) confirmed(ctx context.Context, cl *client.Client, op string, targets []string, f revokeFlags) ([]string, error) {
	name := wide(targets)
	if f.confirm != "" {
		if want := cmp.Or(name, strconv.Itoa(len(targets))); f.confirm != want {
			return nil, usage("--confirm %.60q: this is about %q; nothing was done", f.confirm, want)
		}
		return nil, nil
	}
	if name == "" || op == "release" || f.plan != "" || a.env.Terminal == nil || !a.env.Terminal() {
		return nil, nil
	}
	sum, _, plans, err := a.preview(ctx, cl, op, targets, f)
	if err != nil {
		return nil, err
	}
	lines := a.showPreview(sum, f)
	for i := 0; i+1 < len(lines); i += 2 {
		if lines[i+1] != "" {
			a.note("%-15s %s", lines[i], clean(lines[i+1]))
		}
	}
	fmt.Fprintf(a.env.Err, "To %s this, type %s: ", op, clean(name))
	typed, _ := bufio.NewReader(a.env.In).ReadString('\n') // its end is no answer
	if strings.TrimSpace(typed) != name {
		return nil, &exit{Failed, fmt.Errorf("%s was not typed: nothing was done", name)}
	}
	return plans, nil
}
