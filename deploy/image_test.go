package deploy

import (
	"bufio"
	"debug/buildinfo"
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

	cyclonedx "github.com/CycloneDX/cyclonedx-go"
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

// build runs the image's own commands that make what goes into it here.
func build(stage []instruction) (dir string, err error) {
	if dir, err = os.MkdirTemp("", "antipode-deploy-"); err != nil {
		return "", err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return dir, err
	}
	made := 0
	for _, i := range stage {
		if i.name != "RUN" || !strings.Contains(i.rest, "/out/") {
			continue
		}
		made++
		command := exec.Command("sh", "-c", strings.ReplaceAll(i.rest, "/out/", dir+"/")) //nolint:noctx // bounded by the tests
		command.Dir, command.Env = "..", append(os.Environ(), "VERSION=test")
		if output, err := command.CombinedOutput(); err != nil {
			return dir, fmt.Errorf("%s: %w: %s", i.rest, err, output)
		}
	}
	if made != 2 {
		return dir, fmt.Errorf("the Dockerfile makes something by %d commands, not by two", made)
	}
	return dir, nil
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

// TestSBOM: the image says what its programs are made of, in a format that scanners know.
func TestSBOM(t *testing.T) {
	t.Parallel()
	var copied string
	all := stages(t)
	for _, i := range all[len(all)-1] {
		if i.name == "COPY" {
			copied += i.rest + "\n"
		}
	}
	for _, daemon := range []string{"primaryd", "secondaryd"} {
		if !strings.Contains(copied, "/out/"+daemon+".cdx.json") {
			t.Errorf("the image has no list for %s: %s", daemon, copied)
		}
		info, err := buildinfo.ReadFile(program(t, daemon))
		if err != nil {
			t.Fatal(err)
		}
		var bom cyclonedx.BOM
		text := strings.NewReader(read(t, program(t, daemon)+".cdx.json"))
		if err := cyclonedx.NewBOMDecoder(text, cyclonedx.BOMFileFormatJSON).Decode(&bom); err != nil {
			t.Fatal(err)
		}
		if bom.BOMFormat != cyclonedx.BOMFormat || bom.Metadata.Component.Name != daemon {
			t.Errorf("%s of %s", bom.BOMFormat, bom.Metadata.Component.Name)
		}
		listed := map[string]bool{}
		for _, c := range *bom.Components {
			listed[c.PackageURL] = true
		}
		if len(listed) != len(info.Deps)+1 || !listed["pkg:golang/std@"+strings.TrimPrefix(info.GoVersion, "go")] {
			t.Errorf("%s lists %d parts for %d modules and Go", daemon, len(listed), len(info.Deps))
		}
		for _, module := range info.Deps {
			if !listed["pkg:golang/"+module.Path+"@"+module.Version] {
				t.Errorf("%s does not list %s %s", daemon, module.Path, module.Version)
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
