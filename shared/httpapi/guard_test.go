package httpapi_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/quash-project/quash/shared/guard"
	"github.com/quash-project/quash/shared/guard/guardtest"
	"github.com/quash-project/quash/shared/httpapi"
	"github.com/quash-project/quash/shared/problem"
	"github.com/quash-project/quash/shared/rights"
)

// Whatever a tenant's token says of the installation, by a fault or by a stolen signing key
// of that tenant: it rules nothing but the tenant.
func TestScopesOfTheInstallationCountInItsOwnTenantAlone(t *testing.T) {
	q := guardtest.New(t)
	g := q.Guard()
	token := q.Token(guardtest.Token{Scopes: rights.All()})
	for _, scope := range rights.All() {
		c, err := httpapi.ByGuard(g, guardtest.Tenant).Authorize(t.Context(), token, []string{scope})
		if err != nil || !c.Has(scope) {
			t.Errorf("%s in the home tenant: %+v, %v", scope, c, err)
		}
		c, err = httpapi.ByGuard(g, "another").Authorize(t.Context(), token, []string{scope})
		switch {
		case rights.OfInstallation(scope) && problem.KindOf(err) != problem.Forbidden:
			t.Errorf("%s of another tenant: %+v, %v", scope, c, err)
		case !rights.OfInstallation(scope) && (err != nil || slices.ContainsFunc(c.Scopes, rights.OfInstallation)):
			t.Errorf("%s of another tenant: %+v, %v", scope, c, err)
		}
	}
}

// TestStreamsEndWithTheirToken: what Handle has admitted learns that its token was hit.
func TestStreamsEndWithTheirToken(t *testing.T) {
	q := guardtest.New(t)
	mux := http.NewServeMux()
	api := httpapi.New(mux, "test", httpapi.ByGuard(q.Guard(), guardtest.Tenant), nil)
	began, ended := make(chan struct{}), make(chan error, 1)
	api.Handle(huma.Operation{OperationID: "stream", Method: http.MethodGet, Path: "/v1/stream"}, rights.AuditRead, func(_ http.ResponseWriter, r *http.Request) {
		close(began)
		<-r.Context().Done()
		ended <- context.Cause(r.Context())
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	req := httptest.NewRequestWithContext(ctx, http.MethodGet, "/v1/stream", nil)
	req.Header.Set("Authorization", "Bearer "+q.Token(guardtest.Token{Scopes: []string{rights.AuditRead}}))
	go httpapi.Handler(mux, nil, nil).ServeHTTP(httptest.NewRecorder(), req)
	select {
	case <-began:
	case <-ctx.Done():
		t.Fatal("the request was not admitted")
	}
	q.Revoke("principal:alice")
	if err := <-ended; !errors.Is(err, guard.ErrHit) {
		t.Errorf("the stream of a revoked token ended with %v, want %v", err, guard.ErrHit)
	}
}
