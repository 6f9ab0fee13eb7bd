package natsapi

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/httpapi"
	"github.com/quash-project/quash/shared/problem"
	"github.com/quash-project/quash/shared/tracing"
)

// TestOneLineARequestAndTheTraceGoesOn: as over HTTP, whatever the case of the
// header; and what stands for a wildcard is in no span.
func TestOneLineARequestAndTheTraceGoesOn(t *testing.T) {
	n := enginetest.NATS(t)
	core, lines := observer.New(zap.InfoLevel)
	spans := tracetest.NewInMemoryExporter()
	p := sdk.NewTracerProvider(sdk.WithSyncer(spans))
	seen := make(chan string, 1)
	serve(t, n, Config{Log: zap.New(core), Traces: p}, On("*", httpapi.Public, func(ctx context.Context, r echo) (echo, error) {
		seen <- tracing.ID(ctx)
		if r.Text == "bad" {
			return echo{}, problem.New(problem.Invalid, "alice is not right")
		}
		return r, nil
	}))
	asker := n.Conn(t, "orders")
	const trace = "0af7651916cd43dd8448eb211c80319c"

	line := func() map[string]any {
		t.Helper()
		enginetest.Eventually(t, "a line and a span", func() error {
			if lines.Len() != 1 || len(spans.GetSpans()) != 1 {
				return errors.New("not there, or too many")
			}
			return nil
		})
		s := spans.GetSpans()[0]
		if s.Name != "answer "+wire.APIRevocation+"*" || s.SpanContext.TraceID().String() != trace {
			t.Errorf("span %s of trace %s", s.Name, s.SpanContext.TraceID())
		}
		text, err := json.Marshal(s)
		if err != nil || strings.Contains(string(text), "alice") {
			t.Errorf("%v in the span %s", err, text)
		}
		l := lines.TakeAll()[0].ContextMap()
		spans.Reset()
		if l["trace_id"] != trace || l["request_id"] == "" {
			t.Errorf("the line %v has not trace and request", l)
		}
		return l
	}

	m := &nats.Msg{Subject: wire.APIRevocation + "alice", Data: []byte(`{"text":"bad"}`), Header: nats.Header{"TraceParent": {"00-" + trace + "-b7ad6b7169203331-01"}}}
	answer, err := asker.RequestMsg(m, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if got := <-seen; got != trace {
		t.Errorf("the handler is in trace %q", got)
	}
	var doc problem.Document
	if err := json.Unmarshal(answer.Data, &doc); err != nil || doc.RequestID == "" || doc.RequestID != line()["request_id"] {
		t.Errorf("%v: the error is of request %q, the line of another", err, doc.RequestID)
	}

	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	client := sdk.NewTracerProvider() // that of another process
	ctx, span := tracing.Begin(ctx, client, "asker", map[string][]string{"traceparent": {"00-" + trace + "-b7ad6b7169203331-01"}})
	defer span.End()
	if _, err := Call[echo](ctx, asker, wire.APIRevocation+"alice", "", echo{Text: "x"}); err != nil {
		t.Fatal(err)
	}
	if got := <-seen; got != trace {
		t.Errorf("Call hands on trace %q", got)
	}
	line()
}
