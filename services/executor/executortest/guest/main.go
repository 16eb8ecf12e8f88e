// Command guest is the program of the driver contract suite: it runs alone in an image without
// anything else and does what its arguments say, one instruction after the other.
//
//	out TEXT | err TEXT    print a line
//	exit N                 end with status N
//	lines N                print N numbered lines, every other one on standard error
//	sleep DURATION         wait
//	forever | deaf         wait for ever; deaf ignores SIGTERM
//	trap N                 print "ready", wait for SIGTERM and end with status N
//	spin DURATION          use one core for that much CPU time
//	eat MIB                allocate and touch memory
//	read PATH              print a file
//	write PATH TEXT        write a file, print the error if there is one
//	fill PATH MIB          write zeros, print how the last write ended
//	hide PATH MIB          the same, delete the file, and keep it open
//	link TARGET PATH       make a symbolic link
//	fork N                 start N processes that sleep, print how many came up
//	mount | unshare        try to mount a tmpfs on /tmp, to make a user namespace; print the error
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"
	"time"
)

func main() {
	args := os.Args[1:]
	for len(args) > 0 {
		op, ok := ops[args[0]]
		if !ok || len(args) <= op.args {
			fmt.Fprintf(os.Stderr, "guest: bad instruction %q\n", args)
			os.Exit(64)
		}
		op.do(args[1 : 1+op.args])
		args = args[1+op.args:]
	}
}

type op struct {
	args int
	do   func(args []string)
}

var ops = map[string]op{
	"out":     {1, func(a []string) { fmt.Println(a[0]) }},
	"err":     {1, func(a []string) { fmt.Fprintln(os.Stderr, a[0]) }},
	"exit":    {1, func(a []string) { os.Exit(number(a[0])) }},
	"lines":   {1, lines},
	"sleep":   {1, func(a []string) { time.Sleep(duration(a[0])) }},
	"forever": {0, func([]string) { time.Sleep(1 << 62) }},
	"deaf":    {0, deaf},
	"trap":    {1, trap},
	"spin":    {1, spin},
	"eat":     {1, eat},
	"read":    {1, read},
	"write":   {2, func(a []string) { report("write", os.WriteFile(a[0], []byte(a[1]), 0o644)) }},
	"fill":    {2, fill},
	"hide":    {2, hide},
	"link":    {2, func(a []string) { report("link", os.Symlink(a[0], a[1])) }},
	"fork":    {1, fork},
	"mount":   {0, func([]string) { report("mount", syscall.Mount("x", "/tmp", "tmpfs", 0, "")) }},
	"socket":  {2, socket},
	"unshare": {0, func([]string) { report("unshare", syscall.Unshare(syscall.CLONE_NEWUSER)) }},
}

func number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		fmt.Fprintln(os.Stderr, "guest:", err)
		os.Exit(64)
	}
	return n
}

func duration(s string) time.Duration {
	d, err := time.ParseDuration(s)
	if err != nil {
		fmt.Fprintln(os.Stderr, "guest:", err)
		os.Exit(64)
	}
	return d
}

func report(what string, err error) {
	if err != nil {
		fmt.Println(what, "failed:", err)
		return
	}
	fmt.Println(what, "ok")
}

func lines(a []string) {
	for i := range number(a[0]) {
		to := os.Stdout
		if i%2 == 1 {
			to = os.Stderr
		}
		_, _ = fmt.Fprintf(to, "line %d\n", i)
	}
}

func deaf([]string) {
	signal.Ignore(syscall.SIGTERM)
	fmt.Println("ready")
	time.Sleep(1 << 62)
}

func trap(a []string) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGTERM)
	fmt.Println("ready")
	<-c
	os.Exit(number(a[0]))
}

func spin(a []string) {
	want := duration(a[0])
	for {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			os.Exit(65)
		}
		if time.Duration(u.Utime.Nano()+u.Stime.Nano()) >= want {
			return
		}
	}
}

func eat(a []string) {
	var eaten [][]byte
	for range number(a[0]) {
		b := make([]byte, 1<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		eaten = append(eaten, b)
	}
	runtime.KeepAlive(eaten)
}

func read(a []string) {
	b, err := os.ReadFile(a[0])
	if err != nil {
		report("read", err)
		return
	}
	_, _ = os.Stdout.Write(b) // nowhere to tell it
}

func fill(a []string) {
	f, err := os.Create(a[0])
	if err != nil {
		report("fill", err)
		return
	}
	chunk := make([]byte, 1<<20)
	for range number(a[1]) {
		if _, err = f.Write(chunk); err != nil {
			break
		}
	}
	if err == nil {
		err = f.Close()
	}
	report("fill", err)
}

func hide(a []string) {
	f, err := os.Create(a[0])
	if err != nil {
		report("hide", err)
		return
	}
	chunk := make([]byte, 1<<20)
	for range number(a[1]) {
		if _, err = f.Write(chunk); err != nil {
			break
		}
	}
	_, dup := syscall.Dup(int(f.Fd())) // never closed
	report("hide", errors.Join(err, dup, os.Remove(a[0]), f.Close()))
}

func fork(a []string) {
	up := 0
	for range number(a[0]) {
		if err := exec.Command("/guest", "forever").Start(); err != nil {
			break
		}
		up++
	}
	fmt.Println("forked", up)
}

// socket makes a socket of a family and says so by its name.
func socket(a []string) {
	fd, err := syscall.Socket(number(a[0]), syscall.SOCK_STREAM, 0)
	if err == nil {
		err = syscall.Close(fd)
	}
	report(a[1], err)
}
