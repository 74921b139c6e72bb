package deploy

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/unit"
)

// hardened is what each unit must say.
var hardened = map[string]string{
	"User": "antipode", "NoNewPrivileges": "yes", "ProtectSystem": "strict", "ProtectHome": "yes",
	"CapabilityBoundingSet": "", "StateDirectory": "antipode", "Restart": "always", "KillSignal": "SIGTERM",
	"SystemCallFilter": "@system-service", "LimitNOFILE": "65536",
}

func TestSystemd(t *testing.T) {
	t.Parallel()
	for _, daemon := range []string{"primaryd", "secondaryd"} {
		t.Run(daemon, func(t *testing.T) {
			t.Parallel()
			text := read(t, "systemd/"+daemon+".service")
			options, err := unit.DeserializeOptions(strings.NewReader(text))
			if err != nil {
				t.Fatal(err)
			}
			service := map[string]string{}
			for _, option := range options {
				service[option.Name] = option.Value
			}
			for name, want := range hardened {
				if got, found := service[name]; !found || got != want {
					t.Errorf("%s=%s, want %s", name, got, want)
				}
			}
			if seconds, err := time.ParseDuration(service["TimeoutStopSec"] + "s"); err != nil || seconds < stopsWithin {
				t.Errorf("TimeoutStopSec=%s: %v", service["TimeoutStopSec"], err)
			}
			verify(t, daemon, text)
		})
	}
}

// verify has systemd judge the unit, where there is one: a machine without it deploys nothing by it. What is started is
// replaced by a program that is here.
func verify(t *testing.T, daemon, text string) {
	t.Helper()
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Log("no systemd-analyze here; the unit was parsed, not verified")
		return
	}
	path := filepath.Join(t.TempDir(), daemon+".service")
	text = strings.Replace(text, "/usr/local/bin/"+daemon, program(t, daemon), 1)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	output, err := exec.CommandContext(t.Context(), analyze, "verify", "--man=no", path).CombinedOutput()
	if err != nil || strings.Contains(string(output), daemon+".service") {
		t.Errorf("%v: %s", err, output)
	}
}
