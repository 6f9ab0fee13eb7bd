package cli

import (
	"github.com/spf13/cobra"

	"github.com/quash-project/quash/shared/client/api"
)

func (a *app) canCmd() *cobra.Command {
	return &cobra.Command{
		Use: "can SUBJECT SCOPE", Short: "May a principal, a client (client_...) or an API key (key_...) do something, and why",
		Long: "May a principal, a client (client_...) or an API key (key_...) do something, and why.\nExit code: 0 yes, 1 no.",
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.connect()
			if err != nil {
				return err
			}
			is, err := cl.GetAbility(cmd.Context(), &api.GetAbilityParams{Subject: args[0], Scope: args[1]})
			if err != nil {
				return err
			}
			err = a.print(is.Raw, func() { a.showAbility(args[0], args[1], is.Value) })
			if err == nil && !is.Value.Allowed {
				return &exit{Failed, nil}
			}
			return err
		},
	}
}

func (a *app) showAbility(subject, scope string, is api.Ability) {
	answer := "yes"
	if !is.Allowed {
		answer = "no"
	}
	a.fields(answer, subject+" "+scope, "subject", string(is.State), "hit by", words(is.HitBy))
	if len(is.Ways) == 0 {
		a.note("Nothing gives it that scope. To give it a role that has it: quash role bind %s ROLE --reason TEXT", subject)
		return
	}
	rows := make([][]string, len(is.Ways))
	for i, w := range is.Ways {
		by := "its own scope"
		if w.Role != "" {
			by = "role " + w.Role
		}
		rows[i] = []string{by, w.Holder, string(w.State), orNever(w.ExpiresAt), words(w.HitBy)}
	}
	a.table([]string{"BY", "OF", "STATE", "EXPIRES", "HIT BY"}, rows)
}
