package cli

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/quash-project/quash/shared/client"
	"github.com/quash-project/quash/shared/client/api"
	"github.com/quash-project/quash/shared/guard/revoke"
)

// completeIDs completes the ids that a list has.
func (a *app) completeIDs(l listing) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, prefix string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return a.ids(cmd, l, "", prefix), cobra.ShellCompDirectiveNoFileComp
	}
}

// ids returns what begins with prefix, with kind before each; none when Quash
// does not answer, since a completion has nowhere to say why.
func (a *app) ids(cmd *cobra.Command, l listing, kind, prefix string) []cobra.Completion {
	items, err := a.list(cmd.Context(), l, nil)
	if err != nil {
		return nil
	}
	var out []cobra.Completion
	for _, it := range items {
		id, about := l.name(it)
		if id == "" {
			continue
		}
		if id = kind + id; strings.HasPrefix(id, prefix) {
			out = append(out, cobra.CompletionWithDesc(id, clean(about)))
		}
	}
	return out
}

// completeTargets completes the kind first, and then the ids of that kind.
func (a *app) completeTargets(cmd *cobra.Command, _ []string, prefix string) ([]cobra.Completion, cobra.ShellCompDirective) {
	name, _, ok := strings.Cut(prefix, ":")
	if !ok {
		var out []cobra.Completion
		for _, k := range revoke.Kinds() {
			if strings.HasPrefix(k.String(), prefix) {
				out = append(out, k.String()+":")
			}
		}
		return out, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	}
	kind, err := revoke.ParseKind(name)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	if l, ok := listed[kind]; ok {
		return a.ids(cmd, l, name+":", prefix), cobra.ShellCompDirectiveNoFileComp
	}
	if kind == revoke.KindPrincipal || kind == revoke.KindSignIns {
		return a.owners(cmd, name+":", prefix), cobra.ShellCompDirectiveNoFileComp
	}
	return nil, cobra.ShellCompDirectiveNoFileComp
}

// owners completes the principals that have a record or own API keys.
func (a *app) owners(cmd *cobra.Command, kind, prefix string) []cobra.Completion {
	written := func(id string) string {
		return strings.TrimPrefix(revoke.Target{Kind: revoke.KindPrincipal, ID: id}.String(), "principal:")
	}
	seen := map[string]bool{}
	var out []cobra.Completion
	for _, l := range []listing{
		listOf((*client.Client).ListPrincipals, func(p api.Principal) (id, about string) { return written(p.ID), "" }),
		listOf((*client.Client).ListKeys, func(k api.Key) (id, about string) { return written(k.Owner), "" }),
	} {
		for _, c := range a.ids(cmd, l, kind, prefix) {
			if !seen[c] {
				seen[c] = true
				out = append(out, c)
			}
		}
	}
	return out
}

// completeRotated completes what a schedule rotates.
func (a *app) completeRotated(cmd *cobra.Command, args []string, prefix string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if strings.Contains(prefix, ":") {
		return a.completeTargets(cmd, args, prefix)
	}
	return []cobra.Completion{"signing-key", "key:", "client:"}, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}

// completed gives a flag its completion.
func completed(c *cobra.Command, flag string, by cobra.CompletionFunc) {
	if err := c.RegisterFlagCompletionFunc(flag, by); err != nil {
		panic(err) // there is no such flag, or it has one
	}
}

// completeOne completes an argument with one of a few words.
func completeOne(words ...string) cobra.CompletionFunc {
	return func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return words, cobra.ShellCompDirectiveNoFileComp
	}
}
