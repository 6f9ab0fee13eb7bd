// Package guardhttp puts a guard in front of net/http handlers, and answers as
// RFC 6750 says.
//
//	mux.Handle("GET /orders", guardhttp.Require(g, guard.Requirement{
//		Scopes: []string{"orders:read"},
//	})(orders))
//
// What a route asks for beside scopes is built of the conditions of package guard,
// also about the request itself:
//
//	mux.Handle("GET /users/{user}/orders", guardhttp.Require(g, guard.Require(
//		guard.Scopes("orders:read"),
//		guard.Any(guard.SubjectIs(guard.Path("user")), guard.AnyRole("support")),
//	))(orders))
//
// 401 and 403 are about the token, 400 about a request that can't be right; 503
// with Retry-After is about the guard itself, which can't tell now. The token is
// taken from the header Authorization and from nowhere else; an API key, for a guard
// that takes keys, also from the headers of WithKeyHeader. A request with a secret of
// Quash's in its URL is refused, and the guard told of it.
package guardhttp
