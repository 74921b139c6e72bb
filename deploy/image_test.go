package deploy

import (
	"bufio"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// built are the daemons as the image has them, made once by the command in the Dockerfile.
var built struct {
	once sync.Once
	dir  string
	err  error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if built.dir != "" {
		if err := os.RemoveAll(built.dir); err != nil {
			fmt.Fprintln(os.Stderr, "deploy:", err)
			code = 1
		}
	}
	os.Exit(code)
}

// program is the path of a daemon.
func program(t *testing.T, name string) string {
	t.Helper()
	built.once.Do(func() { built.dir, built.err = build(stages(t)[0]) })
	if built.err != nil {
		t.Fatal(built.err)
	}
	return filepath.Join(built.dir, name)
}

// build runs the image's own build command here.
func build(stage []instruction) (dir string, err error) {
	if dir, err = os.MkdirTemp("", "antipode-deploy-"); err != nil {
		return "", err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return dir, err
	}
	for _, i := range stage {
		if i.name != "RUN" || !strings.Contains(i.rest, "go build") {
			continue
		}
		command := exec.Command("sh", "-c", strings.ReplaceAll(i.rest, "/out/", dir+"/")) //nolint:noctx // bounded by the tests
		command.Dir, command.Env = "..", append(os.Environ(), "VERSION=test")
		if output, err := command.CombinedOutput(); err != nil {
			return dir, fmt.Errorf("%s: %w: %s", i.rest, err, output)
		}
		return dir, nil
	}
	return dir, fmt.Errorf("the Dockerfile builds nothing")
}

// instruction is one of a Dockerfile, in upper case, with what follows.
type instruction struct{ name, rest string }

// stages reads the Dockerfile, which uses neither continued lines nor here-documents, and refuses what it does not know.
func stages(t *testing.T) [][]instruction {
	t.Helper()
	known := []string{"FROM", "WORKDIR", "COPY", "RUN", "ARG", "ENV", "USER", "STOPSIGNAL", "ENTRYPOINT", "CMD"}
	var all [][]instruction
	for line := range strings.Lines(read(t, "Dockerfile")) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		name, rest, _ := strings.Cut(line, " ")
		if !slices.Contains(known, name) || strings.HasSuffix(line, "\\") {
			t.Fatalf("the Dockerfile has a line that this test cannot read: %s", line)
		}
		if name == "FROM" {
			all = append(all, nil)
		}
		if len(all) == 0 {
			t.Fatalf("before the first stage: %s", line)
		}
		all[len(all)-1] = append(all[len(all)-1], instruction{name, rest})
	}
	return all
}

func TestDockerfile(t *testing.T) {
	t.Parallel()
	all := stages(t)
	last := map[string]string{}
	for _, i := range all[len(all)-1] {
		last[i.name] += i.rest + "\n"
	}
	for name, want := range map[string]string{
		"FROM": `^scratch\n$`, "USER": `^[1-9][0-9]*:[1-9][0-9]*\n$`, "STOPSIGNAL": `^SIGTERM\n$`,
		"ENTRYPOINT": `^\["/usr/local/bin/primaryd"\]\n$`, "COPY": `--from=build .*ca-certificates\.crt`,
	} {
		if !regexp.MustCompile(want).MatchString(last[name]) {
			t.Errorf("the image's %s is %q, want %s", name, last[name], want)
		}
	}
	if first := all[0][0].rest; !strings.HasSuffix(first, " AS build") {
		t.Errorf("the first stage is %q", first)
	}
	version := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(read(t, "../go.mod"))
	if !strings.HasPrefix(all[0][0].rest, "golang:"+version[1]+"-") {
		t.Errorf("it builds with %s, the module wants Go %s", all[0][0].rest, version[1])
	}
}

// TestStatic: in an image from scratch there is no loader and no library.
func TestStatic(t *testing.T) {
	t.Parallel()
	for _, daemon := range []string{"primaryd", "secondaryd"} {
		file, err := elf.Open(program(t, daemon))
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		for _, segment := range file.Progs {
			if segment.Type == elf.PT_INTERP || segment.Type == elf.PT_DYNAMIC {
				t.Errorf("%s is not static: %s", daemon, segment.Type)
			}
		}
	}
}

// readable is a temporary folder that other users can read.
func readable(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func bufioReader(text string) *bufio.Reader { return bufio.NewReader(strings.NewReader(text)) }
