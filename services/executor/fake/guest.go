package fake

import (
	"strconv"
	"time"

	"github.com/united-containers/ucn/services/executor"
)

// Guest does what its arguments say, one after the other, like the guest program of executortest
// as far as a container without a kernel can. Beyond it, "use MILLI" uses that much of a core from
// then on.
func Guest(p *Process) int {
	for args := p.Args; len(args) > 0; {
		w, ok := words[args[0]]
		if !ok || len(args) <= w.args {
			p.Print(executor.Stderr, "guest: bad instruction "+args[0])
			return 64
		}
		w.do(p, args[1:1+w.args])
		args = args[1+w.args:]
	}
	return 0
}

type word struct {
	args int
	do   func(p *Process, a []string)
}

var words = map[string]word{
	"out":     {1, func(p *Process, a []string) { p.Print(executor.Stdout, a[0]) }},
	"err":     {1, func(p *Process, a []string) { p.Print(executor.Stderr, a[0]) }},
	"exit":    {1, func(p *Process, a []string) { p.Exit(number(p, a[0])) }},
	"lines":   {1, lines},
	"sleep":   {1, func(p *Process, a []string) { p.Sleep(duration(p, a[0])) }},
	"forever": {0, func(p *Process, _ []string) { wait(p, p.Term(), 143) }},
	"deaf":    {0, deaf},
	"trap":    {1, trap},
	"spin":    {1, func(p *Process, a []string) { p.Spin(duration(p, a[0])) }},
	"use":     {1, func(p *Process, a []string) { p.Use(uint64(number(p, a[0]))) }},
	"eat":     {1, func(p *Process, a []string) { p.Eat(uint64(number(p, a[0])) << 20) }},
	"read":    {1, read},
	"write":   {2, func(p *Process, a []string) { report(p, "write", p.Write(a[0], []byte(a[1]))) }},
	"fill": {2, func(p *Process, a []string) {
		report(p, "fill", p.Write(a[0], make([]byte, number(p, a[1])<<20)))
	}},
	"link": {2, func(p *Process, _ []string) { report(p, "link", nil) }},
}

func number(p *Process, s string) int {
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 {
		p.Exit(64)
	}
	return n
}

func duration(p *Process, s string) time.Duration {
	d, err := time.ParseDuration(s)
	if err != nil {
		p.Exit(64)
	}
	return d
}

func report(p *Process, what string, err error) {
	if err != nil {
		p.Print(executor.Stdout, what+" failed: "+err.Error())
		return
	}
	p.Print(executor.Stdout, what+" ok")
}

func lines(p *Process, a []string) {
	for i := range number(p, a[0]) {
		to := executor.Stdout
		if i%2 == 1 {
			to = executor.Stderr
		}
		p.Print(to, "line "+strconv.Itoa(i))
	}
}

// wait blocks until the event, and ends with the code.
func wait(p *Process, event <-chan struct{}, code int) {
	select {
	case <-event:
		p.Exit(code)
	case <-p.Context().Done():
	}
}

func deaf(p *Process, _ []string) {
	p.Print(executor.Stdout, "ready")
	wait(p, nil, 0)
}

func trap(p *Process, a []string) {
	code := number(p, a[0])
	p.Print(executor.Stdout, "ready")
	wait(p, p.Term(), code)
}

func read(p *Process, a []string) {
	data, err := p.Read(a[0])
	if err != nil {
		report(p, "read", err)
		return
	}
	p.Print(executor.Stdout, string(data))
}
