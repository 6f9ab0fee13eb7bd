package chaos

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/quash-project/quash/services/deployment"
)

// fsckTime is how long everything may take to agree once all is quiet. The audit trail
// looks at a source that is another one only every half minute.
const fsckTime = 2 * time.Minute

// fsck wants log, buckets, audit trail, Redis view and guards to agree in the end.
func (w *world) fsck(ctx context.Context) error {
	return until(ctx, time.Now().Add(fsckTime), func() error {
		cmd := exec.CommandContext(ctx, filepath.Join(w.dir, "bin", "quash"), deployment.Fsck(w.dir)...)
		cmd.Env = os.Environ()
		for name, value := range w.env {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("quash fsck: %w: %s", err, out)
		}
		return nil
	})
}
