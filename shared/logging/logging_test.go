package logging

import (
	"bytes"
	"encoding/json"
	"testing"

	"go.uber.org/zap"
)

func TestLinesAreJSONAtTheLevelThatWasChosen(t *testing.T) {
	var b bytes.Buffer
	log := New(Config{Level: "warn"}, &b)
	log.Info("no")
	log.Named("ledger").Warn("yes", zap.Int("sequence", 7))
	var line struct {
		Level, Logger, Msg, Time string
		Sequence                 int
	}
	if err := json.Unmarshal(b.Bytes(), &line); err != nil {
		t.Fatalf("%q: %v", b.String(), err)
	}
	if line.Level != "warn" || line.Logger != "ledger" || line.Msg != "yes" || line.Sequence != 7 || line.Time == "" {
		t.Errorf("got %+v", line)
	}
	if (Config{Level: "loud"}).Validate() == nil {
		t.Error("an unknown level was accepted")
	}
}
