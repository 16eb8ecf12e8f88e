package run

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// ExitInterrupted is the exit status after a second signal: 128 + SIGINT, as shells do.
const ExitInterrupted = 130

// Signals returns a context that ends at the first SIGINT or SIGTERM. A second one calls exit with
// ExitInterrupted at once, so that a drain that hangs can be broken off; pass os.Exit. Call stop to
// give the signals back. Only main functions call this.
func Signals(parent context.Context, exit func(int)) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancel(parent)
	received := make(chan os.Signal, 2)
	signal.Notify(received, os.Interrupt, syscall.SIGTERM)
	finish, finished := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(finished)
		for range 2 {
			select {
			case <-received:
			case <-finish:
				return
			}
			if ctx.Err() != nil {
				exit(ExitInterrupted)
				return
			}
			cancel()
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
