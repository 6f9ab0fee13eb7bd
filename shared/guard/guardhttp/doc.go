// Package guardhttp puts a guard in front of net/http handlers, and answers as
// RFC 6750 says.
//
//	mux.Handle("GET /orders", guardhttp.Require(g, guard.Requirement{
//		Scopes: []string{"orders:read"},
//	})(orders))
//
// 401 and 403 are about the token, 400 about a request that can't be right; 503
// with Retry-After is about the guard itself, which can't tell now. The token is
// taken from the header Authorization and from nowhere else.
package guardhttp
