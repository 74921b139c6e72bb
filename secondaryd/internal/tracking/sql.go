package tracking

import (
	"slices"
	"strconv"
	"strings"
)

// batchRows bounds the rows of one statement: SQLite takes 32,766 parameters, Postgres 65,535.
const batchRows = 256

// batches cuts items into batches whose sizes are powers of two, so that there are only a few different statements and
// the driver's cache of prepared ones holds them all.
func batches[T any](items []T) [][]T {
	var result [][]T
	for size := batchRows; len(items) > 0; size /= 2 {
		for len(items) >= size {
			result = append(result, items[:size:size])
			items = items[size:]
		}
	}
	return result
}

// placeholders makes "($1, $2), ($3, $4)" for rows of a multi-row VALUES.
func placeholders(rows, columns int) string {
	var b strings.Builder
	for row := range rows {
		if row > 0 {
			b.WriteString(", ")
		}
		b.WriteString("(" + parameters(row*columns+1, columns) + ")")
	}
	return b.String()
}

// parameters makes "$3, $4, $5" for first 3 and count 3.
func parameters(first, count int) string {
	var b strings.Builder
	for i := range count {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString("$" + strconv.Itoa(first+i))
	}
	return b.String()
}

// unique returns the strings sorted and without repetitions. Statements that touch many rows go through it, since two
// transactions that lock rows in one order cannot deadlock.
func unique(items []string) []string {
	sorted := slices.Clone(items)
	slices.Sort(sorted)
	return slices.Compact(sorted)
}

func anys(items []string) []any {
	result := make([]any, len(items))
	for i, item := range items {
		result[i] = item
	}
	return result
}

// text makes a string storable: what a registry answered may be no UTF-8, or hold zero bytes, which Postgres refuses, and
// a failure that cannot be recorded would be tried again without back-off.
func text(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}
