package cli

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quash-project/quash/shared/apikey"
	"github.com/quash-project/quash/shared/client"
	"github.com/quash-project/quash/shared/client/api"
	"github.com/quash-project/quash/shared/guard/revoke"
)

// maxPasted is the longest text in which secrets are looked for, in bytes.
const maxPasted = 64 << 20

// jwt is how a token looks in a text: RFC 7519, 3: base64url parts, of which the first two
// are JSON objects.
var jwt = regexp.MustCompile(`eyJ[A-Za-z0-9_-]+\.eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+`)

// fewWords is how long a text can be of which each word may be a secret of another system.
const fewWords = 100

// secretsIn returns the secrets of a text, each once, in their order, and whether it is a
// list of secrets, one a line. Of a list, and of a text that has none of ours and few words,
// each word may be a key that another system has given out.
func secretsIn(text string) (secrets []string, list bool) {
	known := map[string]bool{}
	add := func(found ...string) {
		for _, s := range found {
			if !known[s] {
				known[s] = true
				secrets = append(secrets, s)
			}
		}
	}
	list = true
	var words []string
	for _, line := range strings.Split(text, "\n") {
		on := slices.DeleteFunc(strings.Fields(line), func(word string) bool { // pasted with its header
			return strings.EqualFold(word, "bearer") || strings.EqualFold(word, "authorization:")
		})
		list = list && len(on) <= 1
		words = append(words, on...)
		add(apikey.Find(line)...)
		add(jwt.FindAllString(line, -1)...)
	}
	if list || len(secrets) == 0 && len(words) <= fewWords {
		secrets = nil
		clear(known)
		add(words...)
	}
	return secrets, list
}

// pasted finds out what the secrets on standard input are. In a text there may be tokens of
// others beside ours; of a list each has to be one of ours.
func (a *app) pasted(ctx context.Context) ([]string, error) {
	text, err := a.pastedText("-")
	if err != nil {
		return nil, err
	}
	secrets, list := secretsIn(text)
	var out []string
	for n, secret := range secrets {
		t, err := a.recognize(ctx, secret)
		if err != nil && !list && len(secrets) > 1 && codeOf(err) == Usage {
			a.note("passed over: %v", err)
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("secret %d on standard input: %w", n+1, err)
		}
		a.note("recognized: %s", clean(t))
		out = append(out, t)
	}
	if len(out) == 0 {
		return nil, usage("the text has no secret of this Quash: keys of another system that were imported are taken one a line")
	}
	return out, nil
}

func (a *app) pastedText(file string) (string, error) {
	in := a.env.In
	if file != "-" {
		f, err := openFile(file)
		if err != nil {
			return "", &exit{Usage, err}
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, maxPasted+1))
	switch {
	case err != nil:
		return "", usage("the text: %w", err)
	case len(data) > maxPasted:
		return "", usage("the text has more than %d MiB: give it in parts", maxPasted>>20)
	case strings.TrimSpace(string(data)) == "":
		return "", usage("the text is empty: it should have what has leaked")
	}
	return string(data), nil
}

// recognize returns the target of a secret.
func (a *app) recognize(ctx context.Context, secret string) (string, error) {
	if jwt.FindString(secret) == secret {
		return a.tokenTarget(secret)
	}
	// Whether it is a key of another system that was imported is known by the issuer alone.
	cl, err := a.connect()
	if err != nil {
		return "", err
	}
	found, err := cl.Lookup(ctx, api.LookupJSONRequestBody{Secret: secret})
	if err != nil {
		return "", err
	}
	if found.Value.Target == "" {
		return "", errors.New("the issuer's answer has no target")
	}
	if next := found.Value.Successors; len(next) > 0 {
		a.note("It was rotated: whoever had it may have made key:%s", strings.Join(next, ", key:"))
	}
	return found.Value.Target, nil
}

// tokenTarget reads the jti of a leaked token. It is not verified: a token that
// nobody signed has an id that hits nothing.
func (a *app) tokenTarget(token string) (string, error) {
	part := strings.Split(token, ".")[1]
	data, err := base64.RawURLEncoding.DecodeString(part)
	var claims struct {
		ID  string `json:"jti"`
		Iss string `json:"iss"`
	}
	if err == nil {
		err = json.Unmarshal(data, &claims)
	}
	if err != nil || claims.ID == "" {
		return "", usage("it looks like a token, but has no jti that can be read")
	}
	if cl, err := a.connect(); err == nil && claims.Iss != cl.Base() {
		return "", usage("the token is of the issuer %.100q, not of %s", claims.Iss, cl.Base())
	}
	t, err := revoke.NewTarget("default", "", revoke.KindToken, claims.ID)
	if err != nil {
		return "", &exit{Usage, err}
	}
	return t.String(), nil
}

// inspected is what is told of a secret, which is not in it.
type inspected struct {
	Line   int      `json:"line"` // of the text, the first that has it
	What   string   `json:"what"`
	Target string   `json:"target,omitempty"` // what to revoke
	State  string   `json:"state"`
	Owner  string   `json:"owner,omitempty"`
	Client string   `json:"client_id,omitempty"`
	Scopes []string `json:"scopes,omitempty"`
	Roles  []string `json:"roles,omitempty"`
	Until  string   `json:"until,omitempty"` // its end, as RFC 3339
	Note   string   `json:"note,omitempty"`
}

func (a *app) findCmd() *cobra.Command {
	file := "-"
	c := &cobra.Command{
		Use: "find [-] [--file FILE]", Short: "What secrets a text has, whose they are, what they can do and whether they live",
		Long: `Tell of each API key, client secret, refresh token and access token in a text what it
is: a pasted secret, an excerpt of a log, a source file. No secret is printed, and
nothing is cut: quash revoke does that, with the targets or the same text.`,
		Args: cobra.MaximumNArgs(1), ValidArgs: []string{"-"},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 && args[0] != "-" {
				return usage("want - for standard input, or --file FILE")
			}
			text, err := a.pastedText(file)
			if err != nil {
				return err
			}
			return a.find(cmd.Context(), text)
		},
	}
	c.Flags().StringVar(&file, "file", "-", "the text; - is standard input")
	return c
}

func (a *app) find(ctx context.Context, text string) error {
	cl, err := a.connect()
	if err != nil {
		return err
	}
	found := []inspected{}
	secrets, _ := secretsIn(text)
	for _, secret := range secrets {
		i, err := a.look(ctx, cl, secret)
		if err != nil {
			return err
		}
		before, _, _ := strings.Cut(text, secret)
		i.Line = strings.Count(before, "\n") + 1
		found = append(found, i)
	}
	return a.print(found, func() {
		var rows [][]string
		for _, i := range found {
			can := strings.Join(append(slices.Clone(i.Scopes), i.Roles...), " ")
			rows = append(rows, []string{fmt.Sprint(i.Line), i.What, i.Target, i.State, i.Owner, i.Client, can, i.Until, i.Note})
		}
		a.table([]string{"LINE", "WHAT", "TARGET", "STATE", "OWNER", "CLIENT", "CAN", "UNTIL", "NOTE"}, rows)
	})
}

// look finds out about one secret. An error is one of asking; what is no secret of this
// Quash is told as such.
func (a *app) look(ctx context.Context, cl *client.Client, secret string) (inspected, error) {
	if jwt.FindString(secret) == secret {
		return a.lookAtToken(ctx, cl, secret)
	}
	found, err := cl.Lookup(ctx, api.LookupJSONRequestBody{Secret: secret})
	if refusedAs(err, http.StatusUnprocessableEntity) {
		return inspected{What: "nothing of this Quash", State: "unknown"}, nil
	}
	if err != nil {
		return inspected{}, err
	}
	f := found.Value
	i := inspected{What: map[api.FoundKind]string{
		api.FoundKindKey: "API key", api.FoundKindSecret: "client secret", api.FoundKindRefresh: "refresh token",
	}[f.Kind], Target: f.Target, Owner: f.Owner, Client: f.ClientID, State: "unknown"}
	if !f.Known {
		i.Note = "there is no record of it: it was removed, or is of another tenant"
		return i, nil
	}
	k, err := cl.GetKey(ctx, f.ID)
	if refusedAs(err, http.StatusNotFound) {
		i.Note = "its record has just been removed"
		return i, nil
	}
	if err != nil {
		return inspected{}, err
	}
	i.State, i.Scopes, i.Roles, i.Until = string(k.Value.State), k.Value.Scopes, k.Value.Roles, at(k.Value.ExpiresAt)
	if k.Value.Leaked != nil {
		i.Note = "was told to have leaked already"
	}
	return i, nil
}

func (a *app) lookAtToken(ctx context.Context, cl *client.Client, token string) (inspected, error) {
	i := inspected{What: "access token", State: "unknown"}
	d, err := cl.Decide(ctx, api.DecideJSONRequestBody{Token: token})
	if refusedAs(err, http.StatusUnprocessableEntity) {
		i.What, i.Note = "token", "it is none that a guard would read"
		return i, nil
	}
	if err != nil {
		return i, err
	}
	if !d.Value.Proved {
		i.What, i.Note = "token", "nobody that is trusted here has signed it"
		return i, nil
	}
	if i.Target, err = a.tokenTarget(token); err != nil {
		i.Note = err.Error()
	}
	i.State = "active"
	if !d.Value.Allowed {
		i.State, i.Note = "refused", d.Value.Reason
	}
	text := func(name string) string { s, _ := d.Value.Claims[name].(string); return s }
	i.Owner, i.Client, i.Scopes = text("sub"), text("client_id"), strings.Fields(text("scope"))
	if exp, ok := d.Value.Claims["exp"].(float64); ok {
		i.Until = at(time.Unix(int64(exp), 0))
	}
	return i, nil
}

func refusedAs(err error, status int) bool {
	var refused *client.Refused
	return errors.As(err, &refused) && refused.Status == status
}
