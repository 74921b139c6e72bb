package reference

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// documents are the files whose links are checked, from the module's root.
func documents(t *testing.T) (root string, files []string) {
	t.Helper()
	root = filepath.Join("..", "..")
	for _, pattern := range []string{"*.md", filepath.Join("docs", "*.md")} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil || len(found) == 0 {
			t.Fatalf("no documents match %s: %v", pattern, err)
		}
		files = append(files, found...)
	}
	return root, files
}

func TestLinksLeadSomewhere(t *testing.T) {
	t.Parallel()
	_, files := documents(t)
	for _, file := range files {
		for _, problem := range brokenLinks(t, file) {
			t.Error(problem)
		}
	}
}

// brokenLinks says which relative links of a Markdown file lead to no file, or to no heading in one.
func brokenLinks(t *testing.T, file string) []string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var problems []string
	link := regexp.MustCompile(`\[[^\]]*\]\(([^)\s]+)\)`)
	for i, line := range strings.Split(outsideCode(string(text)), "\n") {
		for _, found := range link.FindAllStringSubmatch(line, -1) {
			if problem := checkLink(file, found[1]); problem != "" {
				problems = append(problems, fmt.Sprintf("%s:%d: %s", file, i+1, problem))
			}
		}
	}
	return problems
}

func checkLink(file, target string) string {
	if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
		return ""
	}
	path, anchor, _ := strings.Cut(target, "#")
	at := file
	if path != "" {
		at = filepath.Join(filepath.Dir(file), path)
	}
	if filepath.IsAbs(path) {
		return target + " is a path of one machine"
	}
	text, err := os.ReadFile(at)
	var directory *fs.PathError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return target + " leads to no file"
	case errors.As(err, &directory) && anchor == "":
		return "" // a folder
	case err != nil:
		return target + ": " + err.Error()
	case anchor != "" && !anchors(string(text))[anchor]:
		return target + " leads to no heading"
	}
	return ""
}

// outsideCode blanks fenced blocks, and keeps the lines' numbers.
func outsideCode(text string) string {
	lines := strings.Split(text, "\n")
	fenced := false
	for i, line := range lines {
		fence := strings.HasPrefix(strings.TrimSpace(line), "```")
		if fence {
			fenced = !fenced
		}
		if fenced || fence {
			lines[i] = ""
		}
	}
	return strings.Join(lines, "\n")
}

// anchors are the fragments of a file's headings, as forges make them: lower case, spaces to hyphens, no punctuation,
// and a number behind what comes again.
func anchors(text string) map[string]bool {
	set := map[string]bool{}
	for line := range strings.SplitSeq(outsideCode(text), "\n") {
		level, title := heading(line)
		if level == 0 {
			continue
		}
		slug := strings.ReplaceAll(strings.ToLower(title), " ", "-")
		slug = regexp.MustCompile(`[^\p{L}\p{N}_-]`).ReplaceAllString(slug, "")
		name := slug
		for n := 1; set[name]; n++ {
			name = fmt.Sprintf("%s-%d", slug, n)
		}
		set[name] = true
	}
	return set
}

// TestEveryDocumentIsLinked keeps a new document from being written and never found.
func TestEveryDocumentIsLinked(t *testing.T) {
	t.Parallel()
	root, files := documents(t)
	linked := map[string]bool{"README.md": true}
	link := regexp.MustCompile(`\[[^\]]*\]\(([^)#\s]+)`)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range link.FindAllStringSubmatch(outsideCode(string(text)), -1) {
			if path, err := filepath.Rel(root, filepath.Join(filepath.Dir(file), found[1])); err == nil {
				linked[path] = true
			}
		}
	}
	for _, file := range files {
		if path, err := filepath.Rel(root, file); err != nil || !linked[path] {
			t.Errorf("no document links to %s", path)
		}
	}
}

// TestEveryRPCHasItsCallers looks for each RPC of the contract in the table of who may call it.
func TestEveryRPCHasItsCallers(t *testing.T) {
	t.Parallel()
	protos, err := filepath.Glob(filepath.Join("..", "..", "proto", "antipode", "v1", "*_service.proto"))
	if err != nil || len(protos) == 0 {
		t.Fatalf("no services: %v", err)
	}
	var real []string
	for _, path := range protos {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		service := regexp.MustCompile(`(?m)^service (\w+)`).FindStringSubmatch(string(text))
		if service == nil {
			t.Fatalf("%s has no service", path)
		}
		for _, rpc := range regexp.MustCompile(`(?m)^  rpc (\w+)`).FindAllStringSubmatch(string(text), -1) {
			real = append(real, service[1]+"/"+rpc[1])
		}
	}
	document := filepath.Join("..", "..", "docs", "security.md")
	rows, err := Rows(document, "Who may call what")
	if err != nil {
		t.Fatal(err)
	}
	var documented []string
	for _, row := range rows {
		documented = append(documented, Code(row.Cells["RPC"]))
	}
	for _, problem := range Differences(document, documented, real) {
		t.Error(problem)
	}
}
