package architecture

import (
	"errors"
	"go/build"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// read finds every package below root and what it imports.
//
// It reads the files itself instead of asking `go list`: go test keeps a result until a file that the test opened
// changes, and it does not see what a child process opens.
func read(root string) ([]source, error) {
	var sources []source
	err := filepath.WalkDir(root, func(dir string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return err
		}
		if dir != root && skipped(dir, entry.Name()) {
			return filepath.SkipDir
		}
		found, err := build.Default.ImportDir(dir, 0)
		if _, none := errors.AsType[*build.NoGoError](err); none {
			return nil
		}
		if err != nil {
			return err
		}
		path, err := filepath.Rel(root, dir)
		if err != nil {
			return err
		}
		sources = append(sources, source{
			path: filepath.ToSlash(path), imports: own(found.Imports),
			testImports: own(slices.Concat(found.TestImports, found.XTestImports)),
		})
		return nil
	})
	return sources, err
}

// skipped says which folders the go command does not look into: hidden ones, test data and other modules.
func skipped(dir, name string) bool {
	if strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") || name == "testdata" {
		return true
	}
	_, err := os.Stat(filepath.Join(dir, "go.mod"))
	return err == nil
}

// own shortens the module's own import paths.
func own(imports []string) []string {
	short := make([]string, 0, len(imports))
	for _, path := range imports {
		short = append(short, strings.TrimPrefix(path, module))
	}
	return short
}

func TestReadFindsImports(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	files := map[string]string{
		"a/a.go":            "package a\n\nimport _ \"" + module + "b\"\n",
		"a/a_test.go":       "package a_test\n\nimport _ \"testing\"\n",
		"b/deep/deep.go":    "package deep\n",
		"b/README.md":       "no Go here",
		".hidden/h.go":      "package h\n",
		"a/testdata/t.go":   "package t\n",
		"elsewhere/go.mod":  "module elsewhere\n",
		"elsewhere/main.go": "package main\n",
	}
	for path, body := range files {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	sources, err := read(root)
	if err != nil {
		t.Fatal(err)
	}
	if len(sources) != 2 || sources[0].path != "a" || sources[1].path != "b/deep" {
		t.Fatalf("found %+v, want a and b/deep", sources)
	}
	if !slices.Equal(sources[0].imports, []string{"b"}) || !slices.Equal(sources[0].testImports, []string{"testing"}) {
		t.Errorf("a imports %v and in tests %v", sources[0].imports, sources[0].testImports)
	}
}
