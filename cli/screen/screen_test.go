package screen_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/united-containers/ucn/cli/amount"
	"github.com/united-containers/ucn/cli/jobrun"
	"github.com/united-containers/ucn/cli/screen"
)

func TestClean(t *testing.T) {
	for text, want := range map[string]string{
		"plain": "plain", "\x1b[2J\x1b]0;owned\x07": "·[2J·]0;owned·", "10%\r20%\r30%": "30%",
		"a\tb": "a    b", "line\r\n": "line", "\xff": "\uFFFD", "\u202etxt.exe": "·txt.exe",
		"\u009b31m": "·31m",
	} {
		if got := screen.Clean(text); got != want {
			t.Errorf("Clean(%q) = %q, want %q", text, got, want)
		}
	}
}

func TestFit(t *testing.T) {
	tests := []struct {
		text    string
		columns int
		want    string
	}{
		{"short", 10, "short"}, {"exactly", 7, "exactly"}, {"too long", 5, "too …"},
		{"作业正在运行", 6, "作业…"}, {"作业", 4, "作业"}, {"x", 0, ""},
	}
	for _, test := range tests {
		if got := screen.Fit(test.text, test.columns); got != test.want {
			t.Errorf("Fit(%q, %d) = %q, want %q", test.text, test.columns, got, test.want)
		}
	}
}

func TestWords(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0.0 s", 12_340 * time.Millisecond: "12.3 s", 245 * time.Second: "4m05s",
		2*time.Hour + 3*time.Minute: "2h03m", -time.Second: "0.0 s",
	} {
		if got := screen.Elapsed(d); got != want {
			t.Errorf("Elapsed(%v) = %q, want %q", d, got, want)
		}
	}
	for n, want := range map[uint64]string{
		0: "0 B", 1023: "1023 B", 1536: "1.5 KiB", 64 << 20: "64.0 MiB", 5 << 40: "5.0 TiB",
	} {
		if got := screen.Bytes(n); got != want {
			t.Errorf("Bytes(%d) = %q, want %q", n, got, want)
		}
	}
}

func events(at time.Time) []jobrun.Event {
	cost := amount.Amount(4_100_000)
	return []jobrun.Event{
		{Time: at, Kind: jobrun.KindSubmitted, Job: "ucnj1x", Escrow: "ucne1x", Name: "render",
			TraceID: "abc"},
		{Time: at, Kind: jobrun.KindState, State: "running", Host: "alpha-1", Attempt: 1},
		{Time: at, Kind: jobrun.KindLog, Text: "hello \x1b[31mworld", Stream: "stdout"},
		{Time: at, Kind: jobrun.KindNote, Amount: &cost},
		{Time: at, Kind: jobrun.KindNote, Amount: &cost},
		{Time: at, Kind: jobrun.KindWarning, Text: "careful"},
		{Time: at, Kind: jobrun.KindOutput, File: "p.png", Size: 2048},
	}
}

func TestPlain(t *testing.T) {
	var out bytes.Buffer
	p := &screen.Plain{Out: &out}
	for _, e := range events(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)) {
		p.Event(e)
	}
	want := `03:04:05 submitted ucnj1x, escrow ucne1x, trace abc
03:04:05 running on alpha-1
hello ·[31mworld
03:04:05 cost so far 0.0041 UCN
03:04:05 warning: careful
03:04:05 saved p.png (2.0 KiB)
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}

func TestJSONIsALinePerEvent(t *testing.T) {
	var out bytes.Buffer
	for _, e := range events(time.Unix(0, 0).UTC()) {
		screen.JSON{Out: &out}.Event(e)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != len(events(time.Time{})) {
		t.Fatalf("%d lines", len(lines))
	}
	var note map[string]any
	if err := json.Unmarshal([]byte(lines[3]), &note); err != nil {
		t.Fatal(err)
	}
	if note["event"] != "note" || note["amount"] != "0.0041" {
		t.Errorf("got %v", note)
	}
}

// TestLive replays what a terminal would show after every frame.
func TestLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		terminal := &terminal{}
		l := screen.NewLive(terminal, func() int { return 60 }, time.Now, false)
		for _, e := range events(time.Now()) {
			l.Event(e)
		}
		for i := range 20 {
			l.Event(jobrun.Event{Kind: jobrun.KindLog, Text: "row " + string(rune('a'+i)),
				Partial: i == 19})
		}
		l.Event(jobrun.Event{Kind: jobrun.KindLog, Text: " goes on"})
		time.Sleep(12*time.Second + 50*time.Millisecond) // of the bubble's clock: frames are drawn
		l.Close()
		want := []string{
			"job    ucnj1x", "escrow ucne1x", "trace  abc", "warning: careful",
			"saved p.png (2.0 KiB)",
			"12.0 s · 0.0041 UCN · render · running on alpha-1",
			"  row m", "  row n", "  row o", "  row p", "  row q", "  row r", "  row s",
			"  row t goes on",
		}
		if got := terminal.text(); strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("the terminal shows\n%s\nwant\n%s", strings.Join(got, "\n"),
				strings.Join(want, "\n"))
		}
		if terminal.widest > 60 {
			t.Errorf("a frame line took %d columns of 60", terminal.widest)
		}
		l.Event(jobrun.Event{Kind: jobrun.KindLog, Text: "late"})
		if strings.Contains(strings.Join(terminal.text(), " "), "late") {
			t.Error("it wrote after Close")
		}
	})
}

// terminal understands what Live writes: cursor up, clear line, clear below, colours.
type terminal struct {
	lines  []string
	row    int
	widest int
}

func (v *terminal) text() []string { return v.lines }

func (v *terminal) Write(p []byte) (int, error) {
	text := string(p)
	for text != "" {
		switch {
		case strings.HasPrefix(text, "\x1b["):
			end := strings.IndexAny(text, "AJKm")
			n := 0
			for _, c := range text[2:end] {
				n = n*10 + int(c-'0')
			}
			switch text[end] {
			case 'A':
				v.row -= n
			case 'J':
				v.lines = v.lines[:min(v.row, len(v.lines))]
			}
			text = text[end+1:]
		case text[0] == '\n':
			v.row++
			text = text[1:]
		case text[0] == '\r':
			text = text[1:]
		default:
			end := strings.IndexAny(text, "\x1b\n\r")
			for len(v.lines) <= v.row {
				v.lines = append(v.lines, "")
			}
			v.lines[v.row] = text[:end]
			v.widest = max(v.widest, len([]rune(text[:end])))
			text = text[end:]
		}
	}
	return len(p), nil
}

// TestLivePlain: NO_COLOR asks for no style at all.
func TestLivePlain(t *testing.T) {
	var out bytes.Buffer
	l := screen.NewLive(&out, func() int { return 60 }, time.Now, true)
	for _, e := range events(time.Now()) {
		l.Event(e)
	}
	l.Close()
	if text := out.String(); strings.Contains(text, "\x1b[1m") ||
		strings.Contains(text, "\x1b[2m") || strings.Contains(text, "\x1b[0m") {
		t.Errorf("styles in %q", text)
	}
}

// TestLiveOfNothing: a job that was refused before anything happened leaves no line.
func TestLiveOfNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		terminal := &terminal{}
		l := screen.NewLive(terminal, func() int { return 60 }, time.Now, false)
		time.Sleep(time.Second) // of the bubble's clock: frames are drawn
		l.Close()
		if terminal.widest == 0 || len(terminal.text()) != 0 {
			t.Errorf("drawn were %d columns, left is %q", terminal.widest, terminal.text())
		}
	})
}
