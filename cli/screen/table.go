package screen

import (
	"bytes"
	"io"
	"slices"
	"strings"
)

const (
	gap    = 2  // columns between two cells
	indent = 4  // of what did not fit a line
	words  = 24 // columns that text of several words needs at least

	unknown = -1 // a width that was not measured
)

// Table aligns cells that are ended by tabs, as text/tabwriter does, but by the columns that they
// take on a terminal: wide characters, as of Chinese, take two. A column is what stands in lines
// one below the other; what follows a line's last tab belongs to none. Lines end without spaces.
//
// What is wider than the terminal goes on in another line, for all lines of a table at the same
// column; only text of several words is broken within, so that ids can be copied. Cells are cleaned
// (Clean). Nothing is written before Flush.
type Table struct {
	out     io.Writer
	columns int // 0: no terminal
	buf     bytes.Buffer
}

// NewTable makes a table that is written to out, a terminal of so many columns; 0: it is none.
func NewTable(out io.Writer, columns int) *Table { return &Table{out: out, columns: columns} }

// Write implements io.Writer. It never fails.
func (t *Table) Write(p []byte) (int, error) { return t.buf.Write(p) }

// Flush writes everything.
func (t *Table) Flush() error {
	var rows []row
	for line := range strings.Lines(t.buf.String()) {
		cells := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		for i := range cells {
			cells[i] = Clean(cells[i])
		}
		rows = append(rows, row{cells: cells, widths: slices.Repeat([]int{unknown}, len(cells))})
	}
	t.buf.Reset()
	for i := range rows {
		for column := range rows[i].widths {
			if rows[i].widths[column] == unknown {
				measure(rows[i:], column)
			}
		}
	}
	var text strings.Builder
	for i := range rows {
		for n, line := range strings.Split(t.lines(&rows[i]), "\n") {
			// Of what went on in another line, one may have nothing to say.
			if line = strings.TrimRight(line, " "); n == 0 || line != "" {
				text.WriteString(line + "\n")
			}
		}
	}
	_, err := io.WriteString(t.out, text.String())
	return err
}

// row is one line.
type row struct {
	cells  []string
	widths []int // of each cell's column; of the last cell what it needs
}

// measure gives a column the width of its widest cell, from the line where it begins. What follows
// the last tab is measured over lines of as many cells.
func measure(rows []row, column int) {
	last := column == len(rows[0].cells)-1
	width, end := 0, 0
	for ; end < len(rows); end++ {
		cells := rows[end].cells
		if last && len(cells) != column+1 || column > len(cells)-1 ||
			!last && column == len(cells)-1 {
			break
		}
		if last {
			width = max(width, needs(cells[column]))
		} else {
			width = max(width, Width(cells[column])+gap)
		}
	}
	for i := range end {
		rows[i].widths[column] = width
	}
}

// needs is how many columns a text must have.
func needs(text string) int {
	if strings.Contains(text, " ") {
		return min(Width(text), words)
	}
	return Width(text)
}

// lines writes a row, in as many lines as it takes.
func (t *Table) lines(r *row) string {
	var text strings.Builder
	x := 0
	for column, cell := range r.cells {
		last := column == len(r.cells)-1
		room := r.widths[column]
		if !last {
			room -= gap
		}
		if strings.Join(r.cells[column:], "") == "" {
			break
		}
		if t.columns > 0 && x > indent && x+room > t.columns {
			if strings.Trim(strings.Join(r.cells[column:], ""), "-") == "" {
				break // a line that says nothing
			}
			text.WriteString("\n" + strings.Repeat(" ", indent))
			x = indent
		}
		if last {
			text.WriteString(t.wrap(cell, x))
			break
		}
		text.WriteString(cell + strings.Repeat(" ", r.widths[column]-Width(cell)))
		x += r.widths[column]
	}
	return text.String()
}

// wrap breaks a text that begins at column x between its words.
func (t *Table) wrap(cell string, x int) string {
	if t.columns == 0 || x+Width(cell) <= t.columns {
		return cell
	}
	body := strings.TrimLeft(cell, " ")
	lead := len(cell) - len(body)
	var text strings.Builder
	text.WriteString(cell[:lead])
	text.WriteString(t.fill(body, x+lead, x+lead))
	return text.String()
}

// fill writes words from column at on, in lines that begin at the column hang.
func (t *Table) fill(body string, at, hang int) string {
	var text strings.Builder
	for i, word := range strings.Fields(body) {
		switch {
		case i == 0:
		case at+1+Width(word) > t.columns:
			text.WriteString("\n" + strings.Repeat(" ", hang))
			at = hang
		default:
			text.WriteByte(' ')
			at++
		}
		text.WriteString(word)
		at += Width(word)
	}
	return text.String()
}

// Wrap breaks a line that is wider than a terminal of so many columns between its words, and begins
// the others at the column hang. 0 columns: there is no terminal.
func Wrap(line string, hang, columns int) string {
	one := Table{columns: columns}
	if columns <= hang || Width(line) <= columns || Width(line) <= hang {
		return line
	}
	return one.fill(line, 0, hang)
}

// Reflow fills the paragraphs of a text to the columns of a terminal. One with an indented line is
// left as it is.
func Reflow(text string, columns int) string {
	paragraphs := strings.Split(text, "\n\n")
	for i, p := range paragraphs {
		if !strings.HasPrefix(p, " ") && !strings.Contains(p, "\n ") {
			one := Table{columns: columns}
			paragraphs[i] = one.wrap(strings.ReplaceAll(p, "\n", " "), 0)
		}
	}
	return strings.Join(paragraphs, "\n\n")
}

// Width is how many columns of a terminal a text takes.
func Width(text string) (columns int) {
	for _, r := range text {
		columns += runeWidth(r)
	}
	return columns
}
