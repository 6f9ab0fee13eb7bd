package natsteller

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// TestJunkCrowdsOutNoSecret: anybody can send requests that are refused; what certainly is a
// secret is told of all the same, and the log is not filled.
func TestJunkCrowdsOutNoSecret(t *testing.T) {
	core, said := observer.New(zapcore.DebugLevel)
	teller := New(nil, zap.New(core))
	leaks := teller.Leaks()
	r := httptest.NewRequest(http.MethodGet, "/v1/nothing", nil)
	for range 10 * queue {
		leaks.Suspected(r, "somewhere", []string{strings.Repeat("x", 20)})
	}
	leaks.Told(r, "somewhere", []string{strings.Repeat("y", 20)})
	if len(teller.certain) != 1 || len(teller.guessed) > guess {
		t.Errorf("%d and %d wait", len(teller.certain), len(teller.guessed))
	}
	if said.Len() > 1 {
		t.Errorf("%d lines are in the log", said.Len())
	}
}
