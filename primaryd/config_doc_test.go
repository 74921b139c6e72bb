package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/antipode-registry/antipode/internal/reference"
)

// TestConfigurationIsDocumented says whether the reference is what the settings give; make docs writes it.
func TestConfigurationIsDocumented(t *testing.T) {
	t.Parallel()
	keys, err := reference.Keys(defaults(t), ".")
	if err != nil {
		t.Fatal(err)
	}
	if err := reference.Current("../docs/configuration.md", "primaryd keys", reference.KeyTable(keys)); err != nil {
		t.Error(err)
	}
}

// defaults are the settings of a file that says nothing, which is refused but leaves them as they were.
func defaults(t *testing.T) *settings {
	t.Helper()
	empty := filepath.Join(t.TempDir(), "empty.yaml")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := loadSettings(empty)
	if err == nil {
		t.Fatal("an empty file was taken")
	}
	return s
}

// TestCommandsAreDocumented compares the command line with its reference, and its uses in all documents with it.
func TestCommandsAreDocumented(t *testing.T) {
	t.Parallel()
	const document = "../docs/commands.md"
	rows, err := reference.Rows(document, "primaryd")
	if err != nil {
		t.Fatal(err)
	}
	for _, problem := range reference.CheckCommands(document, rows, newRoot()) {
		t.Error(problem)
	}
	for _, pattern := range []string{"../*.md", "../docs/*.md"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("no documents match %s: %v", pattern, err)
		}
		for _, file := range files {
			problems, err := reference.CheckUses(file, newRoot())
			if err != nil {
				t.Fatal(err)
			}
			for _, problem := range problems {
				t.Error(problem)
			}
		}
	}
}
