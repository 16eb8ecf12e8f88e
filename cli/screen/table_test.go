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
		ours := screen.NewTable(&got)
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
	table := screen.NewTable(&got)
	_, _ = fmt.Fprint(table, "NAME\tSTATE\n渲染场景\trunning\nsky\tended\nцех\t等待\n")
	if err := table.Flush(); err != nil {
		t.Fatal(err)
	}
	const want = "NAME      STATE\n渲染场景  running\nsky       ended\nцех       等待\n"
	if got.String() != want {
		t.Errorf("got\n%s\nwant\n%s", got.String(), want)
	}
}
