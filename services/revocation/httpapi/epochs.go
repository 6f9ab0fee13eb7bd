package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/quash-project/quash/services/revocation/ledger"
	"github.com/quash-project/quash/shared/guard/revoke"
	frame "github.com/quash-project/quash/shared/httpapi"
	"github.com/quash-project/quash/shared/problem"
	"github.com/quash-project/quash/shared/rights"
)

// Epoch is a history of the log.
type Epoch struct {
	Epoch    uint64 `json:"epoch"`
	Shared   Place  `json:"shared" doc:"the last position that it shares with the history before; what was made above it counts as made there"`
	Restored bool   `json:"restored" doc:"begun since a backup was restored: sign-ins of before are void"`
}

type epochInput struct {
	frame.Idempotent
	Body struct {
		Reason   string `json:"reason" doc:"why, for the audit"`
		BackupAt string `json:"backup_at,omitempty" doc:"when the backup was made that was restored, as RFC 3339 writes it; by default that is taken from the last silence of the log"`
	}
}

type epochOutput struct{ Body Epoch }

func (h *handlers) epochs(a *frame.API) {
	frame.Register(a, huma.Operation{
		OperationID: "beginEpoch", Method: http.MethodPost, Path: "/v1/epochs", Tags: []string{"log"}, DefaultStatus: http.StatusCreated,
		Summary: "Begin a new epoch, after the log was restored by other means than quash restore", Errors: []int{http.StatusConflict},
	}, rights.EpochsWrite, h.beginEpoch)
}

func (h *handlers) beginEpoch(ctx context.Context, in *epochInput) (*epochOutput, error) {
	o := ledger.EpochOrder{Actor: caller(ctx).Actor, Reason: in.Body.Reason}
	if err := revoke.CheckID("reason", o.Reason); err != nil {
		return nil, problem.FieldError("reason", "%v", err)
	}
	if err := problem.NoSecret("reason", o.Reason); err != nil {
		return nil, err
	}
	if text := in.Body.BackupAt; text != "" {
		at, err := time.Parse(time.RFC3339Nano, text)
		if err != nil || at.After(h.s.Now()) {
			return nil, problem.FieldError("backup_at", "want a time that has passed, as in 2026-01-31T12:00:00Z")
		}
		o.Backup = at
	}
	e, err := h.s.Ledger.BeginEpoch(ctx, o)
	if err != nil {
		return nil, err
	}
	return &epochOutput{EpochOf(e)}, nil
}

// EpochOf writes an epoch as the API does.
func EpochOf(e revoke.Epoch) Epoch {
	return Epoch{Epoch: e.Number, Shared: place(e.D), Restored: e.Restore}
}
