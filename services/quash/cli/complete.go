package cli

import (
	"encoding/json"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/quash-project/quash/services/quash/api"
	"github.com/quash-project/quash/shared/guard/revoke"
)

// completeIDs completes the ids that a list has.
func (a *app) completeIDs(path string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, prefix string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return a.ids(cmd, path, "", prefix), cobra.ShellCompDirectiveNoFileComp
	}
}

// ids returns what begins with prefix, with kind before each; none when Quash
// does not answer, since a completion has nowhere to say why.
func (a *app) ids(cmd *cobra.Command, path, kind, prefix string) []cobra.Completion {
	items, err := a.list(cmd.Context(), path, nil)
	if err != nil {
		return nil
	}
	var out []cobra.Completion
	for _, it := range items {
		var r struct {
			ID       string `json:"id"`
			ClientID string `json:"client_id"`
			KeyID    string `json:"kid"`
			Name     string `json:"name"`
			Owner    string `json:"owner"`
			State    string `json:"state"`
			Instance string `json:"instance"`
		}
		if json.Unmarshal(it, &r) != nil {
			continue
		}
		id, about := r.ID, r.Owner
		switch path {
		case "/v1/clients":
			id, about = r.ClientID, r.Name
		case "/v1/roles":
			id, about = r.Name, ""
		case "/v1/signing-keys":
			id, about = r.KeyID, r.State
		case "/v1/fleet":
			id, about = r.Instance, r.Name
		}
		if id = kind + id; strings.HasPrefix(id, prefix) {
			out = append(out, cobra.CompletionWithDesc(id, clean(about)))
		}
	}
	return out
}

// listed are the kinds whose ids can be listed, and where.
var listed = map[revoke.Kind]string{
	revoke.KindKey: "/v1/keys", revoke.KindClient: "/v1/clients",
	revoke.KindRole: "/v1/roles", revoke.KindSigningKey: "/v1/signing-keys",
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
	if path, ok := listed[kind]; ok {
		return a.ids(cmd, path, name+":", prefix), cobra.ShellCompDirectiveNoFileComp
	}
	if kind == revoke.KindPrincipal || kind == revoke.KindSignIns {
		return a.owners(cmd, name+":", prefix), cobra.ShellCompDirectiveNoFileComp
	}
	return nil, cobra.ShellCompDirectiveNoFileComp
}

// owners completes the principals that own API keys.
func (a *app) owners(cmd *cobra.Command, kind, prefix string) []cobra.Completion {
	cl, err := a.api()
	if err != nil {
		return nil
	}
	var page struct {
		Items []keyRecord `json:"items"`
	}
	if cl.Do(cmd.Context(), api.Call{Method: http.MethodGet, Path: "/v1/keys"}, &page) != nil {
		return nil
	}
	seen := map[string]bool{}
	var out []cobra.Completion
	for _, k := range page.Items {
		t := revoke.Target{Kind: revoke.KindPrincipal, ID: k.Owner}.String()
		if id := kind + strings.TrimPrefix(t, "principal:"); strings.HasPrefix(id, prefix) && !seen[id] {
			seen[id] = true
			out = append(out, id)
		}
	}
	return out
}
