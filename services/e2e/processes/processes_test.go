package processes

import (
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// shared are the tests that can have one Quash together. Those that kill, restart
// or damage theirs, or look into its directory, run on quash dev alone; package
// deployment kills processes.
var shared = []string{
	"TestStory", "TestOAuthClient", "TestRevokedCredentialComesBackOnlyWhenMadeAnew", "TestHoldAndRelease", "TestRotationRefusesNoValidToken",
	"TestExitCodes", "TestPastedSecretIsRecognized", "TestSameRequestIsSameRevocation",
	"TestRecordsAreListedShownAndDeleted", "TestCompletionsKnowRealIDs", "TestWatchShowsWhatHappens",
	"TestBreakGlassOpensAHeldTenant", "TestBreakGlassOpensAHeldRole", "TestBreakGlassMakesAnOperator", "TestBreakGlassPromotesAKey", "TestBreakGlassIsForItsIdentityAlone",
	"TestTraceGoesFromTheRequestToCommitAndGuard", "TestDoctorLooksAtAllOfIt",
	"TestReaderInAnotherLanguageRefusesWhatIsRevoked",
	"TestOAuth4webapi", "TestJose", "TestGoClientExchangesAKey",
}

func TestTheSameHoldsBetweenProcesses(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "go", "test", "-vet=off", "-count=1", "-json", "-timeout", "8m", "-run", "^("+strings.Join(shared, "|")+")$", "..")
	cmd.Env = append(os.Environ(), "QUASH_TEST_ON=processes")
	out, err := cmd.CombinedOutput()
	told, passed := read(out)
	for _, name := range shared {
		if !passed[name] {
			t.Errorf("%s failed or did not run:\n%s", name, told[name])
		}
	}
	if err != nil {
		t.Errorf("%v\n%s", err, told[""])
	}
}

// read returns what each test printed, with its subtests, and which passed. What
// belongs to no test stands under "".
func read(out []byte) (told map[string]string, passed map[string]bool) {
	told, passed = map[string]string{}, map[string]bool{}
	for line := range strings.Lines(string(out)) {
		var e struct{ Action, Test, Output string }
		if json.Unmarshal([]byte(line), &e) != nil {
			told[""] += line // of the go command itself
			continue
		}
		name, _, sub := strings.Cut(e.Test, "/")
		told[name] += e.Output
		if e.Action == "pass" && !sub {
			passed[name] = true
		}
	}
	return told, passed
}
