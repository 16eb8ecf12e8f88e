package executor_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/services/executor"
	"github.com/united-containers/ucn/services/executor/agenttest"
	"github.com/united-containers/ucn/services/executor/executortest"
)

// TestKilledWhileAnImageComes kills an executor with -9 while half an image has gone into the real
// engine. The next life fetches it anew and runs the job once; of the half one nothing is left.
func TestKilledWhileAnImageComes(t *testing.T) {
	dir, err := os.MkdirTemp("", "ucnp")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { wipe(t, dir) })
	image := executortest.GuestImage(t)
	o := &outside{
		ledger: agenttest.NewLedger(sig.Anchor{7}, time.Now), files: agenttest.NewFiles(),
	}
	o.ledger.Open(executor.EscrowID{1}, readoptEscrow())
	serve(t, o, dir, plan{Image: image.ID, Socket: filepath.Join(dir, "s"),
		Args: []string{"out", "begun", "write", "/out/a.txt", "abc"}})
	source := filepath.Join(dir, "image.tar")
	if err := unix.Mkfifo(source, 0o600); err != nil {
		t.Fatal(err)
	}
	first, told := spawn(t, dir)
	sending, err := os.OpenFile(source, os.O_WRONLY, 0) // until it is opened for reading
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sending.Write(image.Layout[:len(image.Layout)/2]); err != nil {
		t.Fatal(err)
	}
	if err := first.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for range told { // until its output ends
	}
	_ = first.Wait() // it was killed
	err = errors.Join(sending.Close(), os.Remove(source), os.WriteFile(source, image.Layout, 0o600))
	if err != nil {
		t.Fatal(err)
	}
	second, told := spawn(t, dir)
	var last executor.Status
	for status := range told {
		last = status
	}
	if err := second.Wait(); err != nil {
		t.Fatalf("the second life: %v", err)
	}
	if o := last.Outcome; o == nil || o.Reason != executor.EndCompleted || o.Usage.Runs != 1 ||
		len(o.Outputs) != 1 {
		t.Fatalf("the last status is %+v, outcome %+v", last, o)
	}
	if paid := o.ledger.Read(last.Lease); paid.Paid != last.Outcome.Amount || !paid.Settled {
		t.Errorf("paid %d of %d, settled %v", paid.Paid, last.Outcome.Amount, paid.Settled)
	}
	left, err := os.ReadDir(filepath.Join(dir, "engine", "scratch"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) || len(left) != 0 {
		t.Errorf("left of the half image: %v, %v", left, err)
	}
}
