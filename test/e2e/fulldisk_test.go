package e2e

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/united-containers/ucn/cli/amount"
	"github.com/united-containers/ucn/kit/kittest"
	"github.com/united-containers/ucn/services/executor/executortest"
	"github.com/united-containers/ucn/test/stage"
)

// local is a network of `ucn up` on a small disk, and who uses it from the same folder.
type local struct {
	t    *testing.T
	ctx  context.Context
	data string
}

func (l *local) run(args ...string) (string, error) {
	out, err := command(l.ctx, l.data, args...).CombinedOutput()
	return string(out), err
}

func (l *local) must(args ...string) string {
	l.t.Helper()
	out, err := l.run(args...)
	if err != nil {
		l.t.Fatalf("ucn %q: %v\n%s", args, err, out)
	}
	return out
}

// refused runs what the full disk does not allow, and is to say so.
func (l *local) refused(args ...string) {
	l.t.Helper()
	out, err := l.run(args...)
	if err == nil || !strings.Contains(out, "full") && !strings.Contains(out, "no space left") {
		l.t.Errorf("ucn %q on a full disk: %v\n%s", args, err, out)
	}
}

// until asks until a job is in a state.
func (l *local) until(job, state string) {
	l.t.Helper()
	ticker := time.NewTicker(300 * time.Millisecond)
	defer ticker.Stop()
	for {
		out := l.must("job", "get", job)
		if strings.Contains(out, state) {
			return
		}
		select {
		case <-ticker.C:
		case <-l.ctx.Done():
			l.t.Fatalf("the job is never %s:\n%s", state, out)
		}
	}
}

// TestUpOnAFullDisk: a whole network on a disk that others fill to its last byte. It does not start
// on it, and says why. While a paid program runs and ends, what cannot be written is refused, in
// words; what was acknowledged is there once there is room again, and all goes on by itself.
func TestUpOnAFullDisk(t *testing.T) {
	data, inside := kittest.SmallDisk(t, 900<<20)
	if !inside {
		return
	}
	if err := os.Chmod(filepath.Dir(data), 0o711); err != nil { // containers' users pass
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	l := &local{t, ctx, data}
	fill := filepath.Join(data, "others")
	kittest.Occupy(t, fill)
	l.refused(upArgs(data)...)
	l.refused(append(upArgs(data), "--detach")...)
	l.free(fill)
	l.must(append(upArgs(data), "--detach")...)
	defer func() {
		out, err := command(context.WithoutCancel(ctx), data, "down").CombinedOutput()
		if err := errors.Join(err, stage.Wipe(filepath.Join(data, "engine"))); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	}()
	archive := filepath.Join(data, "guest.tar")
	image := executortest.GuestImage(t)
	if err := os.WriteFile(archive, image.Layout, 0o600); err != nil {
		t.Fatal(err)
	}
	l.must("image", "push", archive)
	job := func(program ...string) []string {
		return append([]string{"job", "run", string(image.ID), "--json", "--cpu", "0.1", "--memory",
			"32MiB", "--disk", "16MiB", "--detach", "--"}, program...)
	}
	paid := events(t, l.must(job("out", "up", "sleep", "6s", "out", "done")...))[0].Job
	l.until(paid, "running")
	before, err := os.ReadFile(filepath.Join(data, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	kittest.Occupy(t, fill)
	l.refused(job("out", "second")...)
	l.refused("file", "put", archive)
	self := parsed[struct{ Account string }](t, l.must("wallet", "show", "--json"))
	sent := l.sends(self.Account)
	timer := time.NewTimer(10 * time.Second) // the program ends meanwhile
	<-timer.C
	l.free(fill)
	l.until(paid, "completed")
	l.must("file", "put", archive)
	l.until(events(t, l.must(job("out", "third")...))[0].Job, "completed")
	for _, tx := range sent {
		if out := l.must("tx", "get", tx); !strings.Contains(out, "ok") {
			t.Errorf("a transfer that was acknowledged: %s", out)
		}
	}
	after, err := os.ReadFile(filepath.Join(data, "lock"))
	if err != nil || string(after) != string(before) {
		t.Errorf("process %s became %s, %v", before, after, err)
	}
	l.conserves()
}

// sends transfers money while the disk is full, and returns the transactions that were
// acknowledged: the chain's log has room of its own.
func (l *local) sends(to string) (acknowledged []string) {
	for range 3 {
		out, err := l.run("transfer", to, "1", "--json")
		if err != nil {
			if !strings.Contains(out, "full") && !strings.Contains(out, "DISK_FULL") {
				l.t.Errorf("a transfer on a full disk: %v\n%s", err, out)
			}
			continue
		}
		acknowledged = append(acknowledged, parsed[struct{ Transaction string }](l.t, out).Transaction)
	}
	return acknowledged
}

func (l *local) free(path string) {
	l.t.Helper()
	if err := os.Remove(path); err != nil {
		l.t.Fatal(err)
	}
}

// conserves compares what exists with what was given out and burned.
func (l *local) conserves() {
	l.t.Helper()
	c := parsed[struct {
		Genesis, Accounts, Escrows, Locks, Lockboxes amount.Amount
		Burned                                       uint64 `json:"burned_grains,string"`
	}](l.t, l.must("chain", "supply", "--json"))
	whole := uint64(c.Accounts + c.Escrows + c.Locks + c.Lockboxes)
	if whole+c.Burned != uint64(c.Genesis) || c.Burned == 0 {
		l.t.Errorf("the sums do not fit: %+v", c)
	}
}
