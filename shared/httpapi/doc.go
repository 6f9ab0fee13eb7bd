// Package httpapi is the frame of the services' management APIs: huma for the
// OpenAPI document and the typing, and around it what huma leaves open. Bodies
// and query parameters are read strictly, errors are the documents of package
// problem and repeat no value, every answer is no-store and has a request id,
// and an operation without a scope can't be registered.
//
//	api := httpapi.New(mux, "issuer", httpapi.ByGuard(g, "default"), log)
//	httpapi.Register(api, huma.Operation{
//		OperationID: "createKey", Method: "POST", Path: "/v1/keys", DefaultStatus: 201,
//	}, rights.KeysWrite, func(ctx context.Context, in *createInput) (*createOutput, error) {
//		who := httpapi.CallerOf(ctx)
//		...
//	})
//	handler := httpapi.Handler(mux, log, traces) // 404 and 405 as problems, request ids, one log line a request
//
// Input and output types are huma's: a field Body, fields with the tags path,
// query and header, a field Status. Handlers return errors of package problem.
package httpapi
