package screen

import (
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Clean makes text of a stranger's program fit to be shown: control characters, which could move
// the cursor or change the terminal, and characters that turn the direction of writing become
// dots, tabs spaces. Of a line that was overwritten (carriage return) the last state is kept.
func Clean(text string) string {
	text = strings.TrimRight(text, "\r\n")
	if at := strings.LastIndexByte(text, '\r'); at >= 0 {
		text = text[at+1:]
	}
	text = strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\t", "    ")
	return strings.Map(func(r rune) rune {
		switch {
		case unicode.IsControl(r), r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069,
			r == 0x2028, r == 0x2029:
			return '·'
		}
		return r
	}, text)
}

// Fit cuts text to the columns of a terminal; wide characters take two.
func Fit(text string, columns int) string {
	used := 0
	for at, r := range text {
		w := runeWidth(r)
		if used+w > columns {
			return cutLast(text[:at], used, columns)
		}
		used += w
	}
	return text
}

// cutLast makes room for an ellipsis.
func cutLast(text string, used, columns int) string {
	for used > columns-1 && text != "" {
		r, size := utf8.DecodeLastRuneInString(text)
		text, used = text[:len(text)-size], used-runeWidth(r)
	}
	if columns < 1 {
		return ""
	}
	return text + "…"
}

func runeWidth(r rune) int {
	switch {
	case unicode.Is(unicode.Mn, r), unicode.Is(unicode.Me, r), r == 0x200b, r == 0x200d:
		return 0
	case r >= 0x1100 && r <= 0x115f, r >= 0x2e80 && r <= 0xa4cf, r >= 0xac00 && r <= 0xd7a3,
		r >= 0xf900 && r <= 0xfaff, r >= 0xfe30 && r <= 0xfe6f, r >= 0xff00 && r <= 0xff60,
		r >= 0x1f300 && r <= 0x1faff, r >= 0x20000 && r <= 0x3fffd:
		return 2
	}
	return 1
}

// Elapsed writes a time for people: 0.4 s, 12.3 s, 4m05s, 2h03m.
func Elapsed(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%.1f s", max(d, 0).Truncate(100*time.Millisecond).Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
}

// Bytes writes a size for people.
func Bytes(n uint64) string {
	const step = 1024
	if n < step {
		return fmt.Sprintf("%d B", n)
	}
	value, unit := float64(n)/step, 0
	for value >= step && unit < 4 {
		value /= step
		unit++
	}
	return fmt.Sprintf("%.1f %s", value, [...]string{"KiB", "MiB", "GiB", "TiB", "PiB"}[unit])
}
