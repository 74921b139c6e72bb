package reference

import (
	"fmt"
	"os"
	"strings"
)

// writes is the variable that makes Current and CurrentFile write instead of compare: `make docs` sets it to "write".
const writes = "ANTIPODE_DOCS"

func writing() bool { return os.Getenv(writes) == "write" }

// Current says whether the table between a document's markers is the one that the code gives, and with ANTIPODE_DOCS=write
// puts it there. The markers are HTML comments: "generated: NAME" before the table, "end of NAME" behind it. What stands
// outside of them is written by hand and left alone. Tables of one document must not be written at the same time.
func Current(document, name, table string) error {
	content, err := os.ReadFile(document)
	if err != nil {
		return fmt.Errorf("reference: %w", err)
	}
	first, last := "<!-- generated: "+name+" -->\n", "<!-- end of "+name+" -->"
	before, rest, begins := strings.Cut(string(content), first)
	found, after, ends := strings.Cut(rest, last)
	switch {
	case !begins || !ends:
		return fmt.Errorf("reference: %s has no markers for %s", document, name)
	case found == table:
		return nil
	case !writing():
		return fmt.Errorf("reference: %s of %s is not what the code says, run make docs: %s", name, document, differing(found, table))
	}
	if err := os.WriteFile(document, []byte(before+first+table+last+after), 0o600); err != nil {
		return fmt.Errorf("reference: %w", err)
	}
	return nil
}

// CurrentFile is Current for a file that is made whole.
func CurrentFile(path, content string) error {
	if writing() {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			return fmt.Errorf("reference: %w", err)
		}
		return nil
	}
	found, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("reference: %w", err)
	}
	if string(found) != content {
		return fmt.Errorf("reference: %s is not what it is made from: %s", path, differing(string(found), content))
	}
	return nil
}

// differing shows the first line that is not the same.
func differing(found, table string) string {
	old, made := strings.Split(found, "\n"), strings.Split(table, "\n")
	for i := range min(len(old), len(made)) {
		if old[i] != made[i] {
			return fmt.Sprintf("it has\n%s\nfor\n%s", old[i], made[i])
		}
	}
	return fmt.Sprintf("it has %d lines for %d", len(old), len(made))
}

// table renders rows as Markdown, a bar in a cell as \|.
func table(columns []string, rows [][]string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "| %s |\n|%s\n", strings.Join(columns, " | "), strings.Repeat("---|", len(columns)))
	for _, row := range rows {
		b.WriteString("|")
		for _, cell := range row {
			b.WriteString(strings.TrimRight(" "+strings.ReplaceAll(cell, "|", `\|`), " ") + " |")
		}
		b.WriteString("\n")
	}
	return b.String()
}

func code(text string) string { return "`" + text + "`" }

func codes(texts []string) string {
	if len(texts) == 0 {
		return "none"
	}
	list := make([]string, len(texts))
	for i, text := range texts {
		list[i] = code(text)
	}
	return strings.Join(list, ", ")
}
