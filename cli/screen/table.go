package screen

import (
	"bytes"
	"io"
	"strings"
)

// gap is what stands between two columns.
const gap = 2

// Table aligns cells that are ended by tabs, as text/tabwriter does, but by the columns that they
// take on a terminal: wide characters, as of Chinese, take two. A column is what stands in lines
// one below the other; what follows a line's last tab is no cell. Lines end without spaces. Nothing
// is written before Flush.
type Table struct {
	out io.Writer
	buf bytes.Buffer
}

// NewTable makes a table that is written to out.
func NewTable(out io.Writer) *Table { return &Table{out: out} }

// Write implements io.Writer. It never fails.
func (t *Table) Write(p []byte) (int, error) { return t.buf.Write(p) }

// Flush writes everything.
func (t *Table) Flush() error {
	var lines [][]string
	for line := range strings.Lines(t.buf.String()) {
		lines = append(lines, strings.Split(strings.TrimSuffix(line, "\n"), "\t"))
	}
	t.buf.Reset()
	widths := make([][]int, len(lines))
	for i := range lines {
		widths[i] = make([]int, len(lines[i])-1)
	}
	for i := range lines {
		for column := range widths[i] {
			if widths[i][column] == 0 {
				measure(lines, widths, i, column)
			}
		}
	}
	var text strings.Builder
	for i, cells := range lines {
		var line strings.Builder
		for column, cell := range cells[:len(cells)-1] {
			line.WriteString(cell)
			line.WriteString(strings.Repeat(" ", widths[i][column]-Width(cell)))
		}
		line.WriteString(cells[len(cells)-1])
		text.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	_, err := io.WriteString(t.out, text.String())
	return err
}

// measure gives a column the width of its widest cell, from the line where it begins.
func measure(lines [][]string, widths [][]int, from, column int) {
	width, end := 0, from
	for ; end < len(lines) && column < len(widths[end]); end++ {
		width = max(width, Width(lines[end][column])+gap)
	}
	for i := from; i < end; i++ {
		widths[i][column] = width
	}
}

// Width is how many columns of a terminal a text takes.
func Width(text string) (columns int) {
	for _, r := range text {
		columns += runeWidth(r)
	}
	return columns
}
