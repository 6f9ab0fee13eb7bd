package cli

import (
	"context"
	"encoding/json"

	"github.com/quash-project/quash/shared/client"
	"github.com/quash-project/quash/shared/client/api"
	"github.com/quash-project/quash/shared/guard/revoke"
)

// listing is one list of the API.
type listing struct {
	all  func(ctx context.Context, c *client.Client, with api.RequestEditorFn) (json.RawMessage, error) // its pages as one
	name func(item json.RawMessage) (id, about string)                                                  // for completion
}

// listOf is the list that an operation answers with, whose items have names.
func listOf[P, L, T any](page func(*client.Client, context.Context, *P, ...api.RequestEditorFn) (api.Answer[L], error), name func(T) (id, about string)) listing {
	return listing{
		all: func(ctx context.Context, c *client.Client, with api.RequestEditorFn) (json.RawMessage, error) {
			return raw(client.All(func(next api.RequestEditorFn) (api.Answer[L], error) { return page(c, ctx, nil, with, next) }))
		},
		name: named(name),
	}
}

// The lists of the API.
var (
	principalList  = listOf((*client.Client).ListPrincipals, func(p api.Principal) (id, about string) { return p.ID, p.Name })
	keyList        = listOf((*client.Client).ListKeys, func(k api.Key) (id, about string) { return k.ID, k.Owner })
	clientList     = listOf((*client.Client).ListClients, func(c api.Client) (id, about string) { return c.ClientID, c.Name })
	roleList       = listOf((*client.Client).ListRoles, func(r api.Role) (id, about string) { return r.Name, "" })
	tenantList     = listOf((*client.Client).ListTenants, func(t api.Tenant) (id, about string) { return t.Name, string(t.State) })
	bindingList    = listOf((*client.Client).ListBindings, func(b api.Binding) (id, about string) { return b.Subject, b.Role })
	signingKeyList = listOf((*client.Client).ListSigningKeys, func(k api.SigningKey) (id, about string) { return k.Kid, string(k.State) })
	scheduleList   = listOf((*client.Client).ListSchedules, func(s api.Schedule) (id, about string) { return s.Name, s.Rotate })
	receiptList    = listOf((*client.Client).ListReceipts, func(r api.ReceiptSummary) (id, about string) { return r.ID, string(r.Op) + " " + r.Target })
	fleetList      = listOf((*client.Client).ListFleet, func(g api.Guard) (id, about string) { return g.Instance, g.Name })
)

// listed are the kinds of target whose ids can be listed.
var listed = map[revoke.Kind]listing{
	revoke.KindKey: keyList, revoke.KindClient: clientList,
	revoke.KindRole: roleList, revoke.KindSigningKey: signingKeyList,
}
