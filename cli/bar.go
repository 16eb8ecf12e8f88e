package cli

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/united-containers/ucn/cli/screen"
	"github.com/united-containers/ucn/kit/blob"
)

// bar shows how far a transfer of bytes is, on a terminal only.
type bar struct {
	out     io.Writer // nil shows nothing
	columns int
	now     func() time.Time
	label   string
	total   int64
	done    int64
	kept    int64 // of done, by an earlier command
	began   time.Time
	shown   time.Time
}

// barEvery bounds how often a bar is drawn.
const barEvery = 80 * time.Millisecond

// maxLeft is the longest time left that is shown, in seconds: beyond it is a guess.
const maxLeft = 100 * 60 * 60

// bar returns a progress bar on standard error; total 0 is not known.
func (a *app) bar(label string, total int64) *bar {
	b := &bar{now: a.Now, label: screen.Clean(label), total: total, began: a.Now()}
	if columns := a.Columns(a.Err); columns > 0 && !a.flags.quiet && !a.flags.json {
		b.out, b.columns = a.Err, columns
	}
	return b
}

func (b *bar) add(n int64) {
	b.done += n
	now := b.now()
	if b.out == nil || now.Sub(b.shown) < barEvery {
		return
	}
	b.shown = now
	b.draw()
}

func (b *bar) draw() {
	text := fmt.Sprintf("%s  %s", b.label, screen.Bytes(uint64(b.done)))
	if b.total > 0 {
		const cells = 24
		full := int(min(max(b.done, 0), b.total) * cells / b.total)
		text = fmt.Sprintf("%s  %s%s %3d%%  %s of %s", b.label, strings.Repeat("█", full),
			strings.Repeat("░", cells-full), min(b.done, b.total)*100/b.total,
			screen.Bytes(uint64(b.done)), screen.Bytes(uint64(b.total)))
	}
	moved := float64(max(b.done-b.kept, 0))
	if seconds := b.now().Sub(b.began).Seconds(); seconds > 0.5 && moved > 0 {
		rate := moved / seconds
		text += fmt.Sprintf("  %s/s", screen.Bytes(uint64(rate)))
		if left := float64(b.total-b.done) / rate; left >= 1 && left < maxLeft {
			text += "  " + screen.Elapsed(time.Duration(left)*time.Second) + " left"
		}
	}
	_, _ = fmt.Fprintf(b.out, "\r%s\x1b[K", screen.Fit(text, b.columns-1)) // only decoration
}

// end draws the last state and leaves it.
func (b *bar) end() {
	if b.out != nil {
		b.draw()
		_, _ = fmt.Fprintln(b.out) // only decoration
	}
}

// erase takes it away: what it showed is of no interest any more.
func (b *bar) erase() {
	if b.out != nil && !b.shown.IsZero() {
		_, _ = fmt.Fprint(b.out, "\r\x1b[K") // only decoration
	}
}

// progress shows what a transfer tells.
func (b *bar) progress() blob.Progress {
	return blob.Progress{Moved: b.add, Kept: func(n int64) {
		b.kept += n
		b.add(n)
	}}
}

func (b *bar) reader(from io.Reader) io.Reader { return &counted{from, b} }

type counted struct {
	from io.Reader
	bar  *bar
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.from.Read(p)
	c.bar.add(int64(n))
	return n, err
}
