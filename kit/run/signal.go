package run

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// ExitInterrupted is the exit status after a second signal: 128 + SIGINT, as shells do.
const ExitInterrupted = 130

// SecondAfter is how long after the first a signal counts as a second one. `timeout`, terminals and
// init systems signal a process and then its group, so that one request arrives twice at once.
const SecondAfter = time.Second

// Signals returns a context that ends at the first SIGINT or SIGTERM. One that comes SecondAfter
// or more later calls exit with ExitInterrupted at once, so that a drain that hangs can be broken
// off; pass os.Exit. Call stop to give the signals back. Only main functions call this.
func Signals(parent context.Context, exit func(int)) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancel(parent)
	received := make(chan os.Signal, 2)
	signal.Notify(received, os.Interrupt, syscall.SIGTERM)
	finish, finished := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(finished)
		var first time.Time
		for {
			select {
			case <-received:
			case <-finish:
				return
			}
			switch {
			case first.IsZero():
				first = time.Now()
				cancel()
			case time.Since(first) >= SecondAfter:
				exit(ExitInterrupted)
				return
			}
		}
	}()
	stopped := false
	return ctx, func() {
		if stopped {
			return
		}
		stopped = true
		signal.Stop(received)
		close(finish)
		<-finished
		cancel()
	}
}
