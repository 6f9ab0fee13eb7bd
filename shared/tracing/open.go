package tracing

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/apikey"
)

// Config is where spans are sent.
type Config struct {
	// Endpoint is the base URL of an OTLP collector (HTTP, protobuf), to which
	// /v1/traces is added. Empty: OTEL_EXPORTER_OTLP_ENDPOINT; without that there
	// are no traces.
	Endpoint string `koanf:"endpoint"`
}

// Validate says what is wrong.
func (c Config) Validate() error {
	if c.Endpoint == "" {
		return nil
	}
	u, err := url.Parse(c.Endpoint)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.RawQuery != "" || u.Fragment != "":
		return errors.New("trace.endpoint: want the base URL of an OTLP collector, as in https://collector.example.com:4318")
	case u.User != nil:
		return errors.New("trace.endpoint: has a password or user; what the collector wants to see goes in OTEL_EXPORTER_OTLP_HEADERS")
	}
	return nil
}

// flushTime bounds how long a service waits for its last spans at its end.
const flushTime = 2 * time.Second

// Open returns the provider of a service, or nil if traces are off: no endpoint, in
// the configuration or in the standard variables, which getenv reads. All other
// settings are those of the OpenTelemetry SDK (OTEL_TRACES_SAMPLER and so on). Stop
// sends what is left; it can be called with traces off. A collector that is away is
// said in the log and holds nothing up.
func Open(c Config, service string, getenv func(string) string, log *zap.Logger) (p trace.TracerProvider, stop func(), err error) {
	nothing := func() {}
	on, err := wanted(c, getenv)
	if err != nil || !on {
		return nil, nothing, err
	}
	var opts []otlptracehttp.Option
	if c.Endpoint != "" {
		full, err := url.JoinPath(c.Endpoint, "v1", "traces")
		if err != nil {
			return nil, nothing, err
		}
		opts = append(opts, otlptracehttp.WithEndpointURL(full))
	}
	ctx := context.Background()
	// New does not connect yet.
	exporter, err := otlptracehttp.New(ctx, opts...)
	if err != nil {
		return nil, nothing, fmt.Errorf("traces: %w", err)
	}
	// What the operator says of the service in the environment wins. No detector
	// of the process: it would tell the command line.
	about, err := resource.New(ctx, resource.WithTelemetrySDK(), resource.WithAttributes(attribute.String("service.name", service)), resource.WithFromEnv())
	if err != nil {
		return nil, nothing, fmt.Errorf("traces: %w", err)
	}
	// The SDK hands its errors to one handler of the process.
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		log.Warn("traces could not be sent, or not all of them", zap.String("error", apikey.Redact(err.Error())))
	}))
	// A panic's text can have anything in it.
	provider := sdk.NewTracerProvider(sdk.WithBatcher(exporter), sdk.WithResource(about), sdk.WithoutPanicRecording())
	return provider, func() {
		ctx, cancel := context.WithTimeout(context.Background(), flushTime)
		defer cancel()
		if err := provider.Shutdown(ctx); err != nil {
			log.Warn("the last traces could not be sent", zap.String("error", apikey.Redact(err.Error())))
		}
	}, nil
}

// wanted tells whether there is an endpoint, and refuses what is not spoken.
func wanted(c Config, getenv func(string) string) (bool, error) {
	if strings.EqualFold(getenv("OTEL_SDK_DISABLED"), "true") || getenv("OTEL_TRACES_EXPORTER") == "none" {
		return false, nil
	}
	if c.Endpoint == "" && getenv("OTEL_EXPORTER_OTLP_ENDPOINT") == "" && getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") == "" {
		return false, nil
	}
	for _, name := range []string{"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"} {
		switch v := getenv(name); v {
		case "":
			continue
		case "http/protobuf":
			return true, nil
		default:
			return false, fmt.Errorf("%s %.40q: only http/protobuf is spoken; take the collector's HTTP port, mostly 4318, and leave it out", name, v)
		}
	}
	return true, nil
}
