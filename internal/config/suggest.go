package config

import (
	"maps"
	"reflect"
	"slices"
	"strings"
)

// unknown words the problem with a key that no field has.
func unknown(name string, fields map[string]reflect.Value) string {
	known := slices.Sorted(maps.Keys(fields))
	if near := nearest(name, known); near != "" {
		return "unknown key; did you mean " + near + "?"
	}
	return "unknown key; known here: " + strings.Join(known, ", ")
}

// nearest returns the known key that a typing mistake would have turned into name, or "".
func nearest(name string, known []string) string {
	best, limit := "", max(1, len(name)/3)
	for _, candidate := range known {
		if d := distance(strings.ToLower(name), candidate); d <= limit {
			best, limit = candidate, d-1
		}
	}
	return best
}

// distance counts the insertions, deletions and replacements of bytes between two words (Levenshtein).
func distance(a, b string) int {
	// A word this long is no typing mistake, and the work grows with the product of the lengths.
	const longest = 64
	if len(a) > longest || len(b) > longest {
		return longest
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
