package e2e

import (
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	collect "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"
)

// collectorVariable tells a Quash where traces go.
const collectorVariable = "OTEL_EXPORTER_OTLP_ENDPOINT"

// traces is where those of the processes that all tests share go; nil with quash dev.
var traces *otlp

// otlp is a collector that keeps what it gets.
type otlp struct {
	server *httptest.Server
	mu     sync.Mutex
	spans  []span
	raw    []byte
}

// span is what the tests look at.
type span struct {
	service, name, id, parent, trace string
	attrs                            map[string]string
	events                           []string // the guard of each
}

func startCollector() *otlp {
	o := &otlp{}
	o.server = httptest.NewServer(o)
	return o
}

// collector returns the one to which the Quash of this test sends. Call it before start.
func collector(t *testing.T) *otlp {
	t.Helper()
	if traces != nil {
		return traces
	}
	o := startCollector()
	t.Cleanup(o.server.Close)
	t.Setenv(collectorVariable, o.server.URL)
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "100") // ms; what is not sent is lost in a crash
	return o
}

func (o *otlp) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	var in collect.ExportTraceServiceRequest
	if err == nil {
		err = proto.Unmarshal(body, &in)
	}
	if err != nil || r.URL.Path != "/v1/traces" {
		http.Error(w, fmt.Sprint(r.URL.Path, err), http.StatusBadRequest)
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.raw = append(o.raw, body...)
	for _, rs := range in.ResourceSpans {
		service := ""
		for _, a := range rs.Resource.Attributes {
			if a.Key == "service.name" {
				service = a.Value.GetStringValue()
			}
		}
		for _, ss := range rs.ScopeSpans {
			for _, s := range ss.Spans {
				one := span{
					service: service, name: s.Name, id: hex.EncodeToString(s.SpanId), parent: hex.EncodeToString(s.ParentSpanId),
					trace: hex.EncodeToString(s.TraceId), attrs: map[string]string{},
				}
				for _, a := range s.Attributes {
					one.attrs[a.Key] = a.Value.String()
				}
				for _, e := range s.Events {
					for _, a := range e.Attributes {
						one.events = append(one.events, a.Value.GetStringValue())
					}
				}
				o.spans = append(o.spans, one)
			}
		}
	}
}

// all returns what has come.
func (o *otlp) all() ([]span, []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]span(nil), o.spans...), append([]byte(nil), o.raw...)
}

// of returns the spans of a trace.
func (o *otlp) of(trace string) (list []span) {
	spans, _ := o.all()
	for _, s := range spans {
		if s.trace == trace {
			list = append(list, s)
		}
	}
	return list
}
