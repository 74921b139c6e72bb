package telemetry

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestNewLogger(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ level, format, want string }{
		"defaults":     {"", "", "level=INFO msg=info n=1\nlevel=WARN msg=warn n=1\n"},
		"debug, text":  {"debug", "text", "level=DEBUG msg=debug n=1\nlevel=INFO msg=info n=1\nlevel=WARN msg=warn n=1\n"},
		"warn":         {"warn", "text", "level=WARN msg=warn n=1\n"},
		"in capitals":  {"WARN", "", "level=WARN msg=warn n=1\n"},
		"errors alone": {"error", "text", ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			logger, err := NewLogger(&out, test.level, test.format)
			if err != nil {
				t.Fatal(err)
			}
			logAll(logger)
			var got strings.Builder
			for line := range strings.Lines(out.String()) {
				_, rest, _ := strings.Cut(line, " ") // the time
				got.WriteString(rest)
			}
			if got.String() != test.want {
				t.Errorf("got %q", got.String())
			}
		})
	}
}

func logAll(logger *slog.Logger) {
	logger.Debug("debug", "n", 1)
	logger.Info("info", "n", 1)
	logger.Warn("warn", "n", 1)
}

func TestNewLoggerJSON(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	logger, err := NewLogger(&out, "warn", "json")
	if err != nil {
		t.Fatal(err)
	}
	logAll(logger)
	var line struct {
		Level, Msg string
		N          int
	}
	if err := json.Unmarshal(out.Bytes(), &line); err != nil || line.Level != "WARN" || line.Msg != "warn" || line.N != 1 {
		t.Errorf("%q: %+v, %v", out.String(), line, err)
	}
}

func TestNewLoggerRefuses(t *testing.T) {
	t.Parallel()
	for _, test := range [][2]string{{"loud", "text"}, {"info", "xml"}, {"info+1", "json"}} {
		if _, err := NewLogger(&bytes.Buffer{}, test[0], test[1]); err == nil || !strings.Contains(err.Error(), "use ") {
			t.Errorf("%v: %v", test, err)
		}
	}
}

func TestNewRegistry(t *testing.T) {
	t.Parallel()
	registry := NewRegistry("primaryd", "v1.2.3")
	for _, name := range []string{"antipode_build_info", "go_goroutines", "process_start_time_seconds"} {
		if n, err := testutil.GatherAndCount(registry, name); n != 1 || err != nil {
			t.Errorf("%s: %d, %v", name, n, err)
		}
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		text := family.String()
		if family.GetName() == "antipode_build_info" &&
			(!strings.Contains(text, `"v1.2.3"`) || !strings.Contains(text, `"primaryd"`)) {
			t.Errorf("labels: %s", text)
		}
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	setting := func(key, value string) debug.BuildSetting { return debug.BuildSetting{Key: key, Value: value} }
	const commit = "0123456789abcdef0123456789abcdef01234567"
	tests := map[string]struct {
		info debug.BuildInfo
		want string
	}{
		"installed by version": {debug.BuildInfo{Main: debug.Module{Version: "v1.2.3"}}, "v1.2.3"},
		"commit": {debug.BuildInfo{
			Main: debug.Module{Version: "(devel)"}, Settings: []debug.BuildSetting{setting("vcs.revision", commit)},
		}, "devel-0123456789ab"},
		"changed since": {debug.BuildInfo{
			Settings: []debug.BuildSetting{setting("vcs.revision", commit), setting("vcs.modified", "true")},
		}, "devel-0123456789ab+dirty"},
		"nothing known": {debug.BuildInfo{}, "unknown"},
	}
	for name, test := range tests {
		if got := buildVersion(&test.info); got != test.want {
			t.Errorf("%s: %q", name, got)
		}
	}
	if Version() == "" {
		t.Error("this program has no version at all")
	}
}
