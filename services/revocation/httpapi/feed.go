package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/quash-project/quash/services/revocation"
	frame "github.com/quash-project/quash/shared/httpapi"
	"github.com/quash-project/quash/shared/problem"
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
	Receipt  string     `json:"receipt,omitempty" doc:"of a first attempt: with what this receipt is of; epoch and sequence are those of its entry"`
	Network  string     `json:"network,omitempty" doc:"from which the attempt came"`
	At       frame.Time `json:"at"`
	Missed   bool       `json:"missed,omitempty"` // some before it were not shown
}

const (
	// idle is how often a stream says that it is alive, for what stands in between.
	idle = 15 * time.Second
	// maxWatch is for how long a stream can be asked for at most: who wants more names no time.
	maxWatch = time.Hour
)

func (h *handlers) watching(a *frame.API) {
	one := a.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[Happening](), true, "Happening")
	a.Handle(huma.Operation{
		OperationID: "watchFeed", Method: http.MethodGet, Path: "/v1/feed", Tags: []string{"feed"},
		Summary: "What is committed from now on, as server-sent events; the data of each is a " + reflect.TypeFor[Happening]().Name(),
		Parameters: []*huma.Param{{
			Name: "for", In: "query", Schema: &huma.Schema{Type: huma.TypeString},
			Description: "end the stream after so long, as in 10s; 1h at most. By default it ends with the request",
		}},
		Responses: map[string]*huma.Response{"200": {
			Description: "a stream",
			Content: map[string]*huma.MediaType{"text/event-stream": {
				Schema: &huma.Schema{Type: huma.TypeString}, Extensions: map[string]any{"x-quash-event": one},
			}},
		}},
	}, rights.AuditRead+"|"+rights.FleetRead, h.watch)
}

// lasts returns for how long a watcher asks; 0: as long as its request.
func lasts(r *http.Request) (time.Duration, error) {
	q := r.URL.Query()
	if !q.Has("for") {
		return 0, nil
	}
	d, err := time.ParseDuration(q.Get("for"))
	if err != nil || d <= 0 || d > maxWatch {
		return 0, problem.FieldError("for", "want a positive duration up to %s, as in 10s", maxWatch)
	}
	return d, nil
}

// errOver ends a stream that was asked for until then.
var errOver = errors.New("the stream has lasted as long as it was asked for")

// over reports whether a stream can't go on: the caller has gone, or may not read any more.
// Nobody may take what was sent for all that there was to be.
func over(ctx context.Context) bool {
	return ctx.Err() != nil && !errors.Is(context.Cause(ctx), errOver)
}

// watch streams what is stored from now on as server-sent events.
func (h *handlers) watch(w http.ResponseWriter, r *http.Request) {
	last, err := lasts(r)
	if err == nil {
		err = h.s.Ledger.Ready()
	}
	who := revocation.Watcher{Tenant: caller(r.Context()).Tenant}
	if who.All = who.Tenant == h.s.Home; err == nil {
		who.Since, err = h.s.Since(r.Context(), who.Tenant)
	}
	if err != nil {
		frame.Error(w, r, err, "")
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	if last > 0 {
		ctx, cancel = context.WithTimeoutCause(ctx, last, errOver)
		defer cancel()
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
	go func() {
		defer close(shown)
		_ = h.feed.Watch(ctx, h.s.Ledger, who, func(x revocation.Happening) error {
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
				if over(ctx) {
					panic(http.ErrAbortHandler)
				}
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
	told := Happening{
		Epoch: x.At.Epoch, Sequence: x.At.Seq, Kind: x.Kind, Op: d.Op, Issuer: x.Issuer(), Targets: x.Targets(), Actor: d.Actor, Reason: d.Reason,
		Name: d.Name, Instance: d.Instance, KeyID: d.KeyID, At: frame.Time(x.Stored), Missed: x.Missed,
	}
	if a := x.Attempt; a != nil {
		told.Targets, told.Name, told.Instance, told.Receipt, told.Network = []string{a.Target}, a.Server, a.Instance, a.Receipt, a.Network
	}
	data, err := json.Marshal(told)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "data: %s\n\n", data)
	return err
}
