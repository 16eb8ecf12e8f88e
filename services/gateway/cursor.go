package gateway

import (
	"strconv"
	"strings"

	"github.com/united-containers/ucn/kit/fault"
)

// Cursor is where a reader of a log stands. Its text is the id of a server-sent event, so that a
// reader who comes back with Last-Event-ID goes on from there.
//
// While the attempt lives, the executor's offset counts. The stored log has no such offsets, so a
// cursor also counts the lines that were read since the beginning.
type Cursor struct {
	// Offset is where the executor goes on, as its next_offset said; 0 is the beginning.
	Offset uint64
	// Lines is how many lines were read, if Counted.
	Lines   uint64
	Counted bool
	// Stored says that the stored log was being read, where only Lines counts.
	Stored bool
	// End says that everything was read.
	End bool
}

const (
	cursorEnd    = "end"
	cursorStored = "stored"
	cursorSign   = "-"
)

// Start is the cursor of a reader who has read nothing.
func Start() Cursor { return Cursor{Counted: true} }

// ParseCursor reads what String wrote, or the bare next_offset of an executor, after which the
// number of lines is not known.
func ParseCursor(text string) (Cursor, error) {
	if text == cursorEnd {
		return Cursor{End: true}, nil
	}
	first, second, both := strings.Cut(text, cursorSign)
	c := Cursor{Counted: both, Stored: first == cursorStored}
	var err error
	if !c.Stored {
		c.Offset, err = strconv.ParseUint(first, 10, 64)
	}
	if err == nil && (both || c.Stored) {
		c.Lines, err = strconv.ParseUint(second, 10, 64)
	}
	if err != nil {
		return Cursor{}, fault.New(fault.InvalidArgument, ReasonRequest,
			"a place in a log is the id of an event, or a next_offset")
	}
	if !both && c.Offset == 0 {
		c.Counted = true
	}
	return c, nil
}

// String returns the text of a cursor.
func (c Cursor) String() string {
	switch {
	case c.End:
		return cursorEnd
	case c.Stored:
		return cursorStored + cursorSign + strconv.FormatUint(c.Lines, 10)
	case c.Counted:
		return strconv.FormatUint(c.Offset, 10) + cursorSign + strconv.FormatUint(c.Lines, 10)
	}
	return strconv.FormatUint(c.Offset, 10)
}

// Read returns the cursor after lines more, with which the executor said next.
func (c Cursor) Read(next uint64, lines int) Cursor {
	c.Offset = next
	if c.Counted {
		c.Lines += uint64(lines)
	}
	return c
}

// FromStored returns the cursor with which to go on in the stored log. Whoever does not know how
// many lines they have read begins anew; anew says so.
func (c Cursor) FromStored() (from Cursor, anew bool) {
	if !c.Counted {
		return Cursor{Stored: true, Counted: true}, true
	}
	return Cursor{Stored: true, Counted: true, Lines: c.Lines}, false
}
