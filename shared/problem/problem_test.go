package problem_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/quash-project/quash/shared/problem"
)

const pasted = "quash_key_0123456789012345678901234567890123456789012345678"

// People paste secrets where ids belong, and errors quote what was wrong.
func TestProblemsRepeatNoSecret(t *testing.T) {
	err := fmt.Errorf("while asked: %w", problem.Wrap(problem.Invalid, errors.New("cause "+pasted), "role name %q: no", pasted))
	if strings.Contains(problem.From(err).Error(), pasted[10:]) {
		t.Errorf("the operator's text has it: %v", problem.From(err))
	}
	w := httptest.NewRecorder()
	problem.Write(w, err, "id")
	if strings.Contains(w.Body.String(), pasted[10:]) || !strings.Contains(w.Body.String(), "role name") {
		t.Errorf("the caller's text is %s", w.Body)
	}
	if problem.NoSecret("reason", "leaked "+pasted) == nil || problem.NoSecret("reason", "leaked") != nil {
		t.Error("a secret in a text that is kept is refused, and nothing else")
	}
}

// Whatever nobody classified reveals nothing.
func TestUnknownErrorsRevealNothing(t *testing.T) {
	w := httptest.NewRecorder()
	problem.Write(w, errors.New("password of the database"), "id")
	if w.Code != http.StatusInternalServerError || strings.Contains(w.Body.String(), "database") {
		t.Errorf("status %d, %s", w.Code, w.Body)
	}
}

func TestUnavailableSaysWhenToComeBack(t *testing.T) {
	for _, k := range problem.Kinds() {
		w := httptest.NewRecorder()
		problem.Write(w, problem.New(k, "x"), "")
		want := k == problem.RateLimited || k == problem.Unavailable || k == problem.UnknownOutcome
		if got := w.Header().Get("Retry-After") != ""; got != want {
			t.Errorf("%s: Retry-After %q", k.Name(), w.Header().Get("Retry-After"))
		}
		if problem.ByName(k.Name()) != k {
			t.Errorf("ByName(%q) is another kind", k.Name())
		}
	}
}
