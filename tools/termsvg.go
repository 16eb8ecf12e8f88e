//go:build ignore

// Command termsvg draws what a terminal shows as SVG: it reads a screen with its colours (as
// `tmux capture-pane -e -p` prints it) from standard input. It looks alike in light and dark pages.
//
//	go run tools/termsvg.go -title 'ucn job run' < screen.txt > docs/terminal.svg
package main

import (
	"bufio"
	"flag"
	"fmt"
	"html"
	"os"
	"strconv"
	"strings"
)

// Metrics of the font in pixels.
const (
	cellWidth  = 8.4
	lineHeight = 19
	padding    = 16
	bar        = 34
)

// palette is the sixteen colours of a terminal on a dark ground.
var palette = []string{
	"#3b4252", "#ef6b73", "#8fc97a", "#e6c35c", "#6aa7f0", "#c08be0", "#5cc5c9", "#d5dbe6",
	"#6b7488", "#ff8a91", "#a8e08f", "#f5d76e", "#8dbdff", "#d6a8f2", "#7fdfe2", "#ffffff",
}

// style is how text is drawn.
type style struct {
	colour    string
	bold, dim bool
}

const ink, ground = "#d5dbe6", "#161b26"

func main() {
	title := flag.String("title", "", "text in the bar above")
	flag.Parse()
	var lines []string
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		lines = append(lines, strings.TrimRight(in.Text(), " "))
	}
	for len(lines) > 0 && plain(lines[len(lines)-1]) == "" {
		lines = lines[:len(lines)-1]
	}
	widest := 60
	for _, line := range lines {
		widest = max(widest, len([]rune(plain(line))))
	}
	draw(lines, *title, float64(widest)*cellWidth+2*padding,
		float64(len(lines))*lineHeight+bar+padding+8)
}

func draw(lines []string, title string, width, height float64) {
	fmt.Printf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" width="%.0f" `+
		`font-family="ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace" `+
		`font-size="14" role="img">`+"\n", width, height, width)
	fmt.Printf(`<title>%s</title>`+"\n", html.EscapeString(title))
	fmt.Printf(`<rect width="100%%" height="100%%" rx="10" fill="%s" stroke="#2b3345"/>`+"\n", ground)
	for i, colour := range []string{"#ef6b73", "#e6c35c", "#8fc97a"} {
		fmt.Printf(`<circle cx="%d" cy="18" r="5.5" fill="%s"/>`+"\n", 20+i*19, colour)
	}
	fmt.Printf(`<text x="50%%" y="22" fill="#8a93a6" text-anchor="middle" font-size="13">%s</text>`+
		"\n", html.EscapeString(title))
	now := style{}
	for i, line := range lines {
		y := bar + 16 + i*lineHeight
		now = drawLine(line, float64(y), now)
	}
	fmt.Println("</svg>")
}

// drawLine draws a line's runs and returns the style that goes on.
func drawLine(line string, y float64, now style) style {
	column := 0
	for _, part := range strings.Split("\x1b["+"m"+line, "\x1b[") {
		codes, text, ok := strings.Cut(part, "m")
		if !ok {
			continue
		}
		if codes != "" || part != "m"+line {
			now = change(now, codes, part == "m"+line)
		}
		if strings.TrimSpace(text) != "" {
			drawRun(text, padding+float64(column)*cellWidth, y, now)
		}
		column += len([]rune(text))
	}
	return now
}

func drawRun(text string, x, y float64, s style) {
	attributes := fmt.Sprintf(`fill="%s"`, orElse(s.colour, ink))
	if s.bold {
		attributes += ` font-weight="bold"`
	}
	if s.dim {
		attributes += ` opacity="0.65"`
	}
	fmt.Printf(`<text x="%.1f" y="%.0f" textLength="%.1f" xml:space="preserve" %s>%s</text>`+"\n", x, y,
		float64(len([]rune(text)))*cellWidth, attributes, html.EscapeString(text))
}

func orElse(a, b string) string {
	if a == "" {
		return b
	}
	return a
}

// change applies the codes of an SGR sequence; first is what stands before any.
func change(s style, codes string, first bool) style {
	if first {
		return s
	}
	for _, code := range strings.Split(codes, ";") {
		n, _ := strconv.Atoi(code)
		switch {
		case n == 0:
			s = style{}
		case n == 1:
			s.bold = true
		case n == 2:
			s.dim = true
		case n == 22:
			s.bold, s.dim = false, false
		case n >= 30 && n <= 37:
			s.colour = palette[n-30]
		case n == 39:
			s.colour = ""
		case n >= 90 && n <= 97:
			s.colour = palette[n-90+8]
		}
	}
	return s
}

// plain is a line without its colours.
func plain(line string) string {
	var out strings.Builder
	for i, part := range strings.Split(line, "\x1b[") {
		if i > 0 {
			_, part, _ = strings.Cut(part, "m")
		}
		out.WriteString(part)
	}
	return strings.TrimRight(out.String(), " ")
}
