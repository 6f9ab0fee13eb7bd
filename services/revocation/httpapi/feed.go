package httpapi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/quash-project/quash/services/revocation"
	frame "github.com/quash-project/quash/shared/httpapi"
	"github.com/quash-project/quash/shared/rights"
)

// Happening is one message of the log, readable.
type Happening struct {
	Epoch    uint64     `json:"epoch"`
	Sequence uint64     `json:"sequence"`
	Kind     string     `json:"kind"`
	Op       string     `json:"op,omitempty"`
	Issuer   string     `json:"issuer,omitempty"` // of the targets, if it is not the tenant's own
	Targets  []string   `json:"targets,omitempty"`
	Actor    string     `json:"actor,omitempty"`
	Reason   string     `json:"reason,omitempty"`
	Name     string     `json:"name,omitempty"`
	Instance string     `json:"instance,omitempty"`
	KeyID    string     `json:"kid,omitempty"`
	At       frame.Time `json:"at"`
	Missed   bool       `json:"missed,omitempty"` // some before it were not shown
}

// idle is how often a stream says that it is alive, for what stands in between.
const idle = 15 * time.Second

func (h *handlers) watching(a *frame.API) {
	one := a.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[Happening](), true, "Happening")
	a.Handle(huma.Operation{
		OperationID: "watchFeed", Method: http.MethodGet, Path: "/v1/feed", Tags: []string{"feed"},
		Summary: "What is committed from now on, as server-sent events; the data of each is a " + reflect.TypeFor[Happening]().Name(),
		Responses: map[string]*huma.Response{"200": {
			Description: "a stream that ends with the request",
			Content: map[string]*huma.MediaType{"text/event-stream": {
				Schema: &huma.Schema{Type: huma.TypeString}, Extensions: map[string]any{"x-quash-event": one},
			}},
		}},
	}, rights.AuditRead+"|"+rights.FleetRead, h.watch)
}

// watch streams what is stored from now on as server-sent events.
func (h *handlers) watch(w http.ResponseWriter, r *http.Request) {
	if err := h.s.Ledger.Ready(); err != nil {
		frame.Error(w, r, err, "")
		return
	}
	flusher := http.NewResponseController(w)
	w.Header().Set("Content-Type", "text/event-stream")
	w.WriteHeader(http.StatusOK)
	if _, err := fmt.Fprint(w, ": watching\n\n"); err != nil {
		return
	}
	if flusher.Flush() != nil {
		return
	}
	shown := make(chan revocation.Happening)
	ctx := r.Context()
	go func() {
		defer close(shown)
		// It ends with the request.
		_ = h.feed.Watch(ctx, h.s.Ledger, caller(ctx).Tenant, func(x revocation.Happening) error {
			select {
			case shown <- x:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	alive := time.NewTicker(idle)
	defer alive.Stop()
	for {
		var err error
		select {
		case <-alive.C:
			_, err = fmt.Fprint(w, ": alive\n\n")
		case x, ok := <-shown:
			if !ok {
				return
			}
			err = show(w, x)
		}
		if err != nil || flusher.Flush() != nil {
			return
		}
	}
}

func show(w http.ResponseWriter, x revocation.Happening) error {
	d := x.Event.Data
	data, err := json.Marshal(Happening{
		Epoch: x.At.Epoch, Sequence: x.At.Seq, Kind: x.Kind, Op: d.Op, Issuer: x.Issuer(), Targets: x.Targets(), Actor: d.Actor, Reason: d.Reason,
		Name: d.Name, Instance: d.Instance, KeyID: d.KeyID, At: frame.Time(x.Stored), Missed: x.Missed,
	})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "data: %s\n\n", data)
	return err
}
