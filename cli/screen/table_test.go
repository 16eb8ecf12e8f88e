package screen_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
	"text/tabwriter"

	"github.com/united-containers/ucn/cli/screen"
)

// TestTableIsATabwriter: for narrow text it writes what the standard library's does.
func TestTableIsATabwriter(t *testing.T) {
	const seed = 1
	r := rand.New(rand.NewPCG(seed, 0))
	for range 2000 {
		var text strings.Builder
		for range r.IntN(8) {
			for range r.IntN(5) {
				text.WriteString(strings.Repeat("x", r.IntN(6)) + "\t")
			}
			text.WriteString(strings.Repeat("y", r.IntN(4)) + "\n")
		}
		var want, got bytes.Buffer
		standard := tabwriter.NewWriter(&want, 0, 0, 2, ' ', 0)
		ours := screen.NewTable(&got, 0)
		_, _ = fmt.Fprint(standard, text.String())
		_, _ = fmt.Fprint(ours, text.String())
		if err := standard.Flush(); err != nil {
			t.Fatal(err)
		}
		if err := ours.Flush(); err != nil {
			t.Fatal(err)
		}
		trimmed := regexp.MustCompile(` +\n`).ReplaceAllString(want.String(), "\n")
		if got.String() != trimmed {
			t.Fatalf("of %q:\n%s\nwant\n%s", text.String(), got.String(), trimmed)
		}
	}
}

func TestTableAlignsWideText(t *testing.T) {
	var got bytes.Buffer
	table := screen.NewTable(&got, 0)
	_, _ = fmt.Fprint(table, "NAME\tSTATE\n渲染场景\trunning\nsky\tended\nцех\t等待\n")
	if err := table.Flush(); err != nil {
		t.Fatal(err)
	}
	const want = "NAME      STATE\n渲染场景  running\nsky       ended\nцех       等待\n"
	if got.String() != want {
		t.Errorf("got\n%s\nwant\n%s", got.String(), want)
	}
}

// TestTableFolds: what is too wide goes on in another line, at the same column for all, and words
// are broken only between each other.
func TestTableFolds(t *testing.T) {
	for _, test := range []struct {
		name, text string
		columns    int
		want       string
	}{
		{"fits", "a\tb\tc\n", 7, "a  b  c\n"},
		{"ids", "JOB\tNAME\tWHY\naaaaaaaaaa\tsky\t\nb\tx\tended\n", 20,
			"JOB         NAME\n    WHY\naaaaaaaaaa  sky\nb           x\n    ended\n"},
		{"a long id at the end", "TIME\tID\n1\taaaaaaaaaaaaaaaaaa\n", 18,
			"TIME\n    ID\n1\n    aaaaaaaaaaaaaaaaaa\n"},
		{"nothing on the other line", "TIME\tID\n1\taaaaaaaaaaaaaaaaaa\n2\t-\n", 18,
			"TIME\n    ID\n1\n    aaaaaaaaaaaaaaaaaa\n2\n"},
		{"an empty line between", "A\tNAME\tID\naaaa\t\tbbbbbbbb\n\ncc\td\te\n", 12,
			"A     NAME\n    ID\naaaa\n    bbbbbbbb\n\ncc  d  e\n"},
		{"words", "trust\tone two three four five six seven eight nine ten\n", 34,
			"trust  one two three four five six\n       seven eight nine ten\n"},
		{"a sentence", "one two three four\n", 9, "one two\nthree\nfour\n"},
		{"wide words", "名\t甲乙 丙丁 戊己\n", 9, "名  甲乙\n    丙丁\n    戊己\n"},
	} {
		var got bytes.Buffer
		table := screen.NewTable(&got, test.columns)
		_, _ = fmt.Fprint(table, test.text)
		if err := table.Flush(); err != nil {
			t.Fatal(err)
		}
		if got.String() != test.want {
			t.Errorf("%s: got\n%s\nwant\n%s", test.name, got.String(), test.want)
		}
	}
}

// TestTableOfManyLines: its time grows with its lines, not with their square.
func TestTableOfManyLines(t *testing.T) {
	var got bytes.Buffer
	table := screen.NewTable(&got, 80)
	const lines = 300_000
	for range lines {
		_, _ = fmt.Fprint(table, "a\tb\t\n")
	}
	if err := table.Flush(); err != nil || bytes.Count(got.Bytes(), []byte("\n")) != lines {
		t.Errorf("%d lines, %v", bytes.Count(got.Bytes(), []byte("\n")), err)
	}
}

func TestReflow(t *testing.T) {
	const text = "One two three\nfour five six.\n\n  kept   as\n  it is\n\nSeven."
	const want = "One two\nthree\nfour five\nsix.\n\n  kept   as\n  it is\n\nSeven."
	if got := screen.Reflow(text, 9); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := screen.Reflow(text, 80); got != strings.Replace(text, "\nfour", " four", 1) {
		t.Errorf("got %q", got)
	}
}

func TestWrap(t *testing.T) {
	for _, test := range []struct {
		line    string
		columns int
		want    string
	}{
		{"ucn: one two three", 0, "ucn: one two three"},
		{"ucn: one two three", 18, "ucn: one two three"},
		{"ucn: one two three", 13, "ucn: one two\n     three"},
		{"ucn: 甲乙 丙丁", 11, "ucn: 甲乙\n     丙丁"},
		{"ucn: aaaaaaaaaaaaaaaaaaaa b", 10, "ucn:\n     aaaaaaaaaaaaaaaaaaaa\n     b"},
		{"ucn: one two", 4, "ucn: one two"},
	} {
		if got := screen.Wrap(test.line, 5, test.columns); got != test.want {
			t.Errorf("%q in %d columns: %q, want %q", test.line, test.columns, got, test.want)
		}
	}
}
