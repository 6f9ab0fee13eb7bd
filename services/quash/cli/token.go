package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/quash-project/quash/shared/client"
	"github.com/quash-project/quash/shared/client/api"
)

func (a *app) tokenCmd() *cobra.Command {
	var keyFile, clientID, secretFile, resource string
	var scopes []string
	c := &cobra.Command{
		Use: "token --key-file FILE|-", Short: "Exchange an API key for an access token",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := a.connect()
			if err != nil {
				return err
			}
			form := url.Values{}
			if s := split(scopes); len(s) > 0 {
				form.Set("scope", strings.Join(s, " "))
			}
			if resource != "" {
				form.Set("resource", resource)
			}
			answer, err := a.requestToken(cmd.Context(), cl, form, keyFile, clientID, secretFile)
			if err != nil {
				return err
			}
			var t struct {
				AccessToken string `json:"access_token"`
			}
			if err := json.Unmarshal(answer, &t); err != nil || t.AccessToken == "" {
				return errors.New("the token endpoint's answer has no access_token")
			}
			return a.print(answer, func() { fmt.Fprintln(a.env.Out, t.AccessToken) })
		},
	}
	f := c.Flags()
	f.StringVar(&keyFile, "key-file", "", "a file with the API key, - for standard input (default: that which signs you in)")
	f.StringVar(&clientID, "client-id", "", "ask as this client (client credentials) instead")
	f.StringVar(&secretFile, "secret-file", "", "a file with the client's secret, - for standard input")
	f.StringSliceVar(&scopes, "scope", nil, "ask for these scopes only; repeatable")
	f.StringVar(&resource, "resource", "", "the resource that the token is for (RFC 8707)")
	c.AddCommand(a.inspectCmd())
	return c
}

func (a *app) requestToken(ctx context.Context, cl *client.Client, form url.Values, keyFile, clientID, secretFile string) (json.RawMessage, error) {
	if clientID != "" {
		if secretFile == "" || keyFile != "" {
			return nil, usage("--client-id goes with --secret-file, and not with --key-file")
		}
		secret, err := a.secretFrom(secretFile)
		if err != nil {
			return nil, err
		}
		return cl.ClientCredentials(ctx, clientID, secret, form)
	}
	if keyFile == "" {
		who, err := a.signedIn()
		if err != nil {
			return nil, err
		}
		if keyFile = who.KeyFile; keyFile == "" {
			return nil, usage("--key-file is missing: a file with the API key, or - for standard input")
		}
	}
	key, err := a.secretFrom(keyFile)
	if err != nil {
		return nil, err
	}
	return cl.Exchange(ctx, key, form)
}

func (a *app) decide(ctx context.Context, body api.DecideJSONRequestBody) (api.Answer[api.Decision], error) {
	cl, err := a.connect()
	if err != nil {
		return api.Answer[api.Decision]{}, couldNotAsk(err)
	}
	d, err := cl.Decide(ctx, body)
	if err != nil {
		err = couldNotAsk(err)
	}
	return d, err
}

// couldNotAsk keeps "it said no" apart from "there was no answer".
func couldNotAsk(err error) error {
	var e *exit
	if errors.As(err, &e) && e.code == CouldNotAsk {
		return err
	}
	switch code := codeOf(err); code {
	case Usage, NotAllowed:
		return &exit{code, errors.New(explain(err))}
	}
	return &exit{CouldNotAsk, fmt.Errorf("could not ask: %s", explain(err))}
}

func (a *app) showDecision(d api.Decision) {
	said := "accepted"
	switch {
	case d.Allowed:
	case d.Status == http.StatusServiceUnavailable:
		said = "no answer"
	default:
		said = "refused"
	}
	a.fields("decision", said, "status", fmt.Sprint(d.Status), "error", d.Error, "check", d.Check,
		"because", d.Reason, "target", d.Target, "view", fmt.Sprintf("%d.%d", d.Epoch, d.Sequence), "staleness", d.Staleness)
	for _, h := range d.Hits {
		a.fields("hit by", fmt.Sprintf("%s %s since %d.%d %s", h.How, h.Target, h.Since.Epoch, h.Since.Sequence, at(h.At)))
	}
}

func (a *app) inspectCmd() *cobra.Command {
	return &cobra.Command{
		Use: "inspect -|FILE", Short: "Verify a token; say what hits it and since when",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			token, err := a.secretFrom(args[0])
			if err != nil {
				return err
			}
			d, err := a.decide(cmd.Context(), api.DecideJSONRequestBody{Token: token, Fresh: true})
			if err != nil {
				return err
			}
			err = a.print(d.Raw, func() {
				a.showDecision(d.Value)
				for _, name := range []string{"iss", "sub", "client_id", "aud", "scope", "roles", "jti", "exp", "rseq"} {
					if v, ok := d.Value.Claims[name]; ok {
						a.fields(name, claimText(v))
					}
				}
			})
			if err != nil {
				return err
			}
			return decided(d.Value)
		},
	}
}

func claimText(v any) string {
	if s, ok := v.(string); ok {
		return s
	}
	b, err := json.Marshal(v)
	if err != nil {
		return ""
	}
	return string(b)
}

// decided is the exit code of a decision: 0, 1 refused, 6 no answer.
func decided(d api.Decision) error {
	switch {
	case d.Allowed:
		return nil
	case d.Status == http.StatusServiceUnavailable || d.Status/100 == 5:
		return &exit{CouldNotAsk, nil}
	default:
		return &exit{Failed, nil}
	}
}

func (a *app) checkCmd() *cobra.Command {
	var tokenFile, audience string
	var scopes []string
	var fresh bool
	c := &cobra.Command{
		Use: "check [-|FILE]", Short: "Would a guard take this token, and why",
		Long: "Would a guard take this token, and why.\nExit code: 0 it would, 1 it would not, 6 could not ask.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) == 1 && tokenFile != "":
				return usage("give the token once: as an argument (- or a file) or by --token-file")
			case len(args) == 1:
				tokenFile = args[0]
			case tokenFile == "":
				tokenFile = "-"
			}
			token, err := a.secretFrom(tokenFile)
			if err != nil {
				return err
			}
			d, err := a.decide(cmd.Context(), api.DecideJSONRequestBody{Token: token, Scopes: split(scopes), Audience: audience, Fresh: fresh})
			if err != nil {
				return err
			}
			if err := a.print(d.Raw, func() { a.showDecision(d.Value) }); err != nil {
				return err
			}
			return decided(d.Value)
		},
	}
	f := c.Flags()
	f.StringVar(&tokenFile, "token-file", "", "a file with the token, - for standard input (default)")
	f.StringSliceVar(&scopes, "scope", nil, "a scope that the route wants; repeatable")
	f.StringVar(&audience, "audience", "", "the audience that the resource server has (default: the issuer's own)")
	f.BoolVar(&fresh, "fresh", true, "probe the log's head before deciding")
	return c
}
