package cli

import (
	"bytes"
	"io"
	"os"
	"unicode/utf8"
)

// width is how many columns the terminal behind w has; 0 where there is none.
func width(w io.Writer) int {
	switch w := w.(type) {
	case *screen:
		return w.width
	case *os.File:
		return columns(w)
	}
	return 0
}

// fitted cuts lines that are longer than the terminal is wide. The last column gives way, and "…" says so.
type fitted struct {
	io.Writer

	width int
}

// Write takes whole lines, as a table's writer flushes them.
func (f fitted) Write(text []byte) (int, error) {
	var b bytes.Buffer
	for line := range bytes.Lines(text) {
		b.Write(cut(line, f.width))
	}
	_, err := f.Writer.Write(b.Bytes())
	return len(text), err
}

func cut(line []byte, width int) []byte {
	body := bytes.TrimSuffix(line, []byte("\n"))
	if width <= 0 || utf8.RuneCount(body) <= width {
		return line
	}
	short := append([]rune(string(body))[:width-1], '…')
	return append([]byte(string(short)), line[len(body):]...)
}
