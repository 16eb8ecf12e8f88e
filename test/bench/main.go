// Command bench measures what the project promises about speed, each through the real thing, and
// prints one line `name value unit` per figure on standard output. It runs no tests and fails only
// when a measurement cannot be made: a figure that falls short is printed like any other.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strings"

	"github.com/united-containers/ucn/kit/run"
)

// figure is one measured number.
type figure struct {
	name  string
	value float64
	unit  string
}

// benchmark measures one or more figures; dir is an empty folder on a real disk.
type benchmark struct {
	// prefix begins the names of all its figures.
	prefix  string
	measure func(ctx context.Context, dir string) ([]figure, error)
}

// benchmarks in the order in which they run.
func benchmarks() []benchmark {
	return []benchmark{
		{"ledger.single100k", singleTransfers},
		{"scheduler.place", placeRuns},
		{"scheduler.claims", claimRuns},
		{"scheduler.pending1m", longQueue},
		{"job.noop", noopJobs},
		{"event.verify", verifyEvents},
		{"storage.", smallFiles},
		{"up.", upAndIdle},
	}
}

func main() {
	only := flag.String("only", "", "run only benchmarks whose names begin with this")
	flag.Parse()
	ctx, stop := run.Signals(context.Background(), os.Exit)
	defer stop()
	if dir := os.Getenv(pendingDir); dir != "" {
		if err := servePending(ctx, dir, os.Getenv(pendingFill) != "", os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	failed := false
	ran := 0
	for _, b := range benchmarks() {
		if !strings.HasPrefix(b.prefix, *only) && !strings.HasPrefix(*only, b.prefix) {
			continue
		}
		ran++
		if err := measure(ctx, b, *only); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", b.prefix, err)
			failed = true
		}
	}
	if ran == 0 {
		fmt.Fprintf(os.Stderr, "no benchmark's name begins with %q\n", *only)
	}
	if failed || ran == 0 {
		os.Exit(1)
	}
}

func measure(ctx context.Context, b benchmark, only string) error {
	dir, err := os.MkdirTemp("", "ucn-bench-")
	if err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}
	defer os.RemoveAll(dir)
	figures, err := b.measure(ctx, dir)
	if err != nil {
		return err
	}
	for _, f := range figures {
		if strings.HasPrefix(f.name, only) {
			fmt.Printf("%s %.4g %s\n", f.name, f.value, f.unit)
		}
	}
	return nil
}
