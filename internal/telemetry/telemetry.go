// Package telemetry is how the daemons are seen from outside: logs, metrics, traces, the version, and the HTTP server
// that shows them.
//
// It guarantees that nothing is registered or logged behind the caller's back: each logger, each metrics registry and
// each tracer is made here and handed on, and OpenTelemetry's globals are left alone. Spans wait in a queue of bounded
// length, and nobody waits for a collector. It refuses unknown log levels and formats.
package telemetry

import (
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// version is what a release build sets, the one way that the linker can:
//
//	go build -ldflags "-X github.com/antipode-registry/antipode/internal/telemetry.version=v1.2.3"
var version string

// Version returns the release's version or else what the Go toolchain recorded about the module or the commit;
// "unknown" when it recorded nothing.
func Version() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	return buildVersion(info)
}

func buildVersion(info *debug.BuildInfo) string {
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	var revision, suffix string
	for _, setting := range info.Settings {
		switch setting.Key {
		case "vcs.revision":
			revision = setting.Value
		case "vcs.modified":
			if setting.Value == "true" {
				suffix = "+dirty"
			}
		}
	}
	const short = 12
	if len(revision) > short {
		revision = revision[:short]
	}
	if revision == "" {
		return "unknown"
	}
	return "devel-" + revision + suffix
}

// NewLogger returns a logger that writes to w. Level is debug, info, warn or error; format is text or json; empty means
// info and text. A line whose context is of a sampled trace has its trace_id and span_id.
func NewLogger(w io.Writer, level, format string) (*slog.Logger, error) {
	threshold, err := parseLevel(level)
	if err != nil {
		return nil, err
	}
	options := &slog.HandlerOptions{Level: threshold}
	switch format {
	case "", "text":
		return slog.New(joined{slog.NewTextHandler(w, options)}), nil
	case "json":
		return slog.New(joined{slog.NewJSONHandler(w, options)}), nil
	default:
		return nil, fmt.Errorf("log format %q: use text or json", format)
	}
}

func parseLevel(level string) (slog.Level, error) {
	switch strings.ToLower(level) {
	case "debug":
		return slog.LevelDebug, nil
	case "", "info":
		return slog.LevelInfo, nil
	case "warn":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	default:
		return 0, fmt.Errorf("log level %q: use debug, info, warn or error", level)
	}
}

// NewRegistry returns a metrics registry with the Go runtime's and the process's metrics and antipode_build_info, whose
// labels name the component ("primaryd", "secondaryd"), its version and the Go version.
func NewRegistry(component, version string) *prometheus.Registry {
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace:   "antipode",
		Name:        "build_info",
		Help:        "Always 1. The labels say which program this is.",
		ConstLabels: prometheus.Labels{"component": component, "version": version, "go_version": runtime.Version()},
	})
	info.Set(1)
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		info,
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return registry
}
