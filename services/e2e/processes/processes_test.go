package processes

import (
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
}

func TestTheSameHoldsBetweenProcesses(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "go", "test", "-vet=off", "-count=1", "-v", "-timeout", "8m", "-run", "^("+strings.Join(shared, "|")+")$", "..")
	cmd.Env = append(os.Environ(), "QUASH_TEST_ON=processes")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, name := range shared {
		if !strings.Contains(string(out), "--- PASS: "+name+" ") {
			t.Errorf("%s did not run", name)
		}
	}
}
