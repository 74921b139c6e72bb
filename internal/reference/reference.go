// Package reference keeps the documentation true: it makes the tables of keys and metrics from the code, and compares the
// other tables with it.
//
// It guarantees that a table is read as it is rendered: by its headings and its rows, wherever it stands in a section.
// It knows nothing of what is documented; the tests of each daemon bring what their code has.
//
// It is test support, and refuses to be more: nothing that ships imports it.
package reference

import (
	"fmt"
	"os"
	"slices"
	"strings"
)

// Row is one row of a table: cells by the heading of their column, with the line it stands on.
type Row struct {
	Line  int
	Cells map[string]string
}

// Rows returns the rows of all tables in a section of a Markdown file: from the heading with this text, of whatever
// level, to the next one of the same level or above. A section that is missing or has no row is an error.
func Rows(path, section string) ([]Row, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reference: %w", err)
	}
	var rows []Row
	var columns []string
	inside := 0 // the level of the section's heading; 0 = not in it
	for i, line := range strings.Split(string(text), "\n") {
		if level, title := heading(line); level > 0 {
			switch {
			case title == section:
				inside = level
			case level <= inside:
				inside = 0
			}
			columns = nil
			continue
		}
		cells := cut(line)
		switch {
		case inside == 0:
		case cells == nil:
			columns = nil
		case columns == nil:
			columns = cells
		case !isRule(cells):
			rows = append(rows, Row{Line: i + 1, Cells: pair(columns, cells)})
		}
	}
	if len(rows) == 0 {
		return nil, fmt.Errorf("reference: %s has no table under %q", path, section)
	}
	return rows, nil
}

// heading returns the level and the text of a heading; level 0 for any other line.
func heading(line string) (level int, title string) {
	text := strings.TrimLeft(line, "#")
	level = len(line) - len(text)
	if level == 0 || !strings.HasPrefix(text, " ") {
		return 0, ""
	}
	return level, strings.TrimSpace(text)
}

// cut splits a table's line into its cells; nil when it is none. A bar in a code span is written \| there.
func cut(line string) []string {
	line = strings.TrimSpace(line)
	if !strings.HasPrefix(line, "|") {
		return nil
	}
	const bar = "\x00"
	line = strings.ReplaceAll(line, `\|`, bar)
	cells := strings.Split(strings.Trim(line, "|"), "|")
	for i, cell := range cells {
		cells[i] = strings.ReplaceAll(strings.TrimSpace(cell), bar, "|")
	}
	return cells
}

// isRule tells the line between a table's headings and its rows.
func isRule(cells []string) bool {
	return !slices.ContainsFunc(cells, func(cell string) bool { return strings.Trim(cell, "-:") != "" })
}

func pair(columns, cells []string) map[string]string {
	row := make(map[string]string, len(columns))
	for i, cell := range cells[:min(len(cells), len(columns))] {
		row[columns[i]] = cell
	}
	return row
}

// Code returns the text of a cell that is one code span, and the cell itself where it is none.
func Code(cell string) string {
	if text, ok := strings.CutPrefix(cell, "`"); ok && strings.Count(cell, "`") == 2 {
		return strings.TrimSuffix(text, "`")
	}
	return cell
}

// Differences says what two sets of names do not have in common: what the code has and the document lacks, and what the
// document names and the code has no more. It is empty when they are equal.
func Differences(document string, documented, real []string) []string {
	var list []string
	for _, name := range real {
		if !slices.Contains(documented, name) {
			list = append(list, fmt.Sprintf("%s lacks %s", document, name))
		}
	}
	for _, name := range documented {
		if !slices.Contains(real, name) {
			list = append(list, fmt.Sprintf("%s names %s, which the code does not have", document, name))
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}
