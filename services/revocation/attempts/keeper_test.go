package attempts

import (
	"fmt"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// TestTheLogHasNoAddress: attempts end after 90 days because they have addresses of people;
// nobody knows how long a log is kept.
func TestTheLogHasNoAddress(t *testing.T) {
	core, lines := observer.New(zap.DebugLevel)
	k := New(Config{Log: zap.New(core)})
	r := &Record{Receipt: "receipt", Version: 1}
	r.hear("one", told(at, 1, at, network("192.0.2.1", at, at, 1)), at)
	k.written(r, 1)
	text := fmt.Sprint(lines.All())
	if !strings.Contains(text, "somebody tries") || !strings.Contains(text, "orders") || strings.Contains(text, "192.0.2.1") {
		t.Errorf("the log has %s", text)
	}
}
