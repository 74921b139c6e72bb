package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/antipode-registry/antipode/internal/registry"
)

// loadBandwidth reads a file with nothing but these lines below replication.bandwidth, and returns the problems that are
// about them.
func loadBandwidth(t *testing.T, lines ...string) (bandwidthSettings, []string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secondary.yaml")
	text := "replication:\n  bandwidth:\n    " + strings.Join(lines, "\n    ") + "\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := loadSettings(path)
	if err == nil {
		t.Fatal("a file without required keys was taken")
	}
	var problems []string
	for line := range strings.SplitSeq(err.Error(), "\n") {
		if _, problem, found := strings.Cut(line, "replication.bandwidth."); found {
			problems = append(problems, problem)
		}
	}
	return s.Replication.Bandwidth, problems
}

func TestBandwidthSettings(t *testing.T) {
	t.Parallel()
	s, problems := loadBandwidth(t, "download: 50MiB", "upload: 0", "windows:",
		`- {from: "08:00", to: "18:00", download: 10MiB, upload: 5MiB}`,
		`- {from: 22:00, to: 06:00, download: 0}`,
		`- {from: "23:00", to: "24:00", upload: 1KiB}`,  // not the same direction
		`- {from: "18:00", to: "20:00", download: 1GB}`) // where another ends
	if len(problems) > 0 {
		t.Fatalf("refused: %q", problems)
	}
	hour := time.Hour
	down := registry.NewBandwidth(50<<20, []registry.Window{
		{From: 8 * hour, To: 18 * hour, BytesPerSecond: 10 << 20},
		{From: 22 * hour, To: 6 * hour},
		{From: 18 * hour, To: 20 * hour, BytesPerSecond: 1e9},
	})
	up := registry.NewBandwidth(0, []registry.Window{
		{From: 8 * hour, To: 18 * hour, BytesPerSecond: 5 << 20}, {From: 23 * hour, To: 24 * hour, BytesPerSecond: 1024},
	})
	for name, pair := range map[string][2]*registry.Bandwidth{"download": {s.download(), down}, "upload": {s.upload(), up}} {
		if !reflect.DeepEqual(pair[0], pair[1]) {
			t.Errorf("%s: %+v, want %+v", name, pair[0], pair[1])
		}
	}
	if s, _ := loadBandwidth(t, "download: 1MiB"); s.download() == nil || s.upload() != nil {
		t.Error("a cap where none is set, or none where one is")
	}
}

func TestBandwidthMistakesAreNamed(t *testing.T) {
	t.Parallel()
	const size = "expected a size such as 1500, 64KiB or 50MB (units: KiB, MiB, GiB, kB, MB, GB), got "
	tests := map[string]struct {
		lines, want []string
	}{
		"sizes": {
			[]string{"download: 50", "upload: 10mb", "windows: [{from: '01:00', to: '02:00', download: -1, upload: 7}]"},
			[]string{
				"download: must be 0 for no cap or at least 1KiB per second, not 50", "upload: " + size + `"10mb"`,
				"windows[0].download: " + size + `"-1"`,
				"windows[0].upload: must be 0 for no cap or at least 1KiB per second, not 7",
			},
		},
		"times": {
			[]string{
				"windows:", "- {from: 8, to: '25:00', upload: 1MB}", "- {to: '02:00', upload: 1MB}",
				"- {from: '02:00', upload: 1MB}", "- {from: '03:00', to: '03:00', upload: 1MB}",
				"- {from: '24:00', to: '01:00', upload: 1MB}",
			},
			[]string{
				`windows[0].from: expected a time of the day such as 08:30, from 00:00 to 24:00, got "8"`,
				`windows[0].to: expected a time of the day such as 08:30, from 00:00 to 24:00, got "25:00"`,
				"windows[1].from: is required", "windows[2].to: is required",
				"windows[3].to: the window ends at 03:00 where it begins; from 00:00 to 24:00 is the whole day",
				"windows[4].from: the day begins at 00:00",
			},
		},
		"windows": {
			[]string{
				"windows:", "- {from: '20:00', to: '06:00', upload: 1MB}", "- {from: '05:00', to: '07:00', upload: 1MB}",
				"- {from: '09:00', to: '10:00'}", "- {from: '21:00', to: '22:00', upload: 2MB, download: 1MB}",
				"- {from: '21:00', to: '22:00', speed: 1MB, download: 1MB}",
			},
			[]string{
				"windows[1]: overlaps windows[0], so that two caps would be in force at once",
				"windows[2]: changes nothing; give it download, upload or both",
				"windows[3]: overlaps windows[0], so that two caps would be in force at once",
				`windows[4].speed: unknown key; known here: download, from, to, upload`,
				"windows[4]: overlaps windows[3], so that two caps would be in force at once",
			},
		},
	}
	for name, test := range tests {
		_, got := loadBandwidth(t, test.lines...)
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}
