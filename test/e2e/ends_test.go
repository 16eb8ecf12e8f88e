package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/united-containers/ucn/cli/amount"
	"github.com/united-containers/ucn/cli/jobfile"
	"github.com/united-containers/ucn/cli/jobrun"
	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/kit/config"
	"github.com/united-containers/ucn/services/executor/executortest"
)

// ending is how a job is to end.
type ending struct {
	result string
	code   int32
	// reason is part of what a person reads.
	reason string
	paid   bool
}

func (e ending) check(t *testing.T, report *jobrun.Report, v *view) {
	t.Helper()
	if report.Result != e.result || report.ExitCode != e.code ||
		!strings.Contains(report.Reason, e.reason) {
		t.Errorf("it ended %q (%d): %q, want %q (%d): ...%s...\n%s", report.Result, report.ExitCode,
			report.Reason, e.result, e.code, e.reason, v)
	}
	if paid := report.Bill.Paid > 0; paid != e.paid {
		t.Errorf("%s were paid: %+v", report.Bill.Paid, report.Bill.Charges)
	}
	checkBill(t, report.Bill)
}

// programFails: what the program does wrong is told, and its use is paid.
func programFails(t *testing.T, s *scene) {
	tests := map[string]struct {
		args   []string
		limit  time.Duration
		ending ending
	}{
		"exit code":     {[]string{"out", "x", "exit", "7"}, 0, ending{"failed", 7, "7", true}},
		"out of memory": {[]string{"eat", "100"}, 0, ending{"failed", 137, "out of memory", true}},
		"never ends":    {[]string{"forever"}, time.Second, ending{"failed", 2, "run time", true}},
		"deaf as well":  {[]string{"deaf"}, time.Second, ending{"failed", 137, "run time", true}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u := s.user(t)
			f := u.job(test.args...)
			f.Limits.RunTime = test.limit
			report, v := u.run(f)
			test.ending.check(t, report, v)
		})
	}
}

// refused checks that a job ended before it ran, for free, with a reason that names the file.
func refused(t *testing.T, report *jobrun.Report, v *view, file string) {
	t.Helper()
	ending{"refused", report.ExitCode, file, false}.check(t, report, v)
}

// imageMissing: an image that nobody holds is refused and costs nothing.
func imageMissing(t *testing.T, s *scene) {
	u := s.user(t)
	f := u.job("out", "x")
	missing, _, err := cid.Sum(cid.OCIBlob, strings.NewReader("nobody put this anywhere"))
	if err != nil {
		t.Fatal(err)
	}
	f.Image = missing.String()
	report, v := u.run(f)
	refused(t, report, v, f.Image)
}

// imageDamaged: bytes that are not those the CID names run nowhere and cost nothing.
func imageDamaged(t *testing.T, s *scene) {
	own := &scene{Network: s.Network, image: executortest.GuestImage(t, "damaged")}
	u := own.user(t)
	damageLayer(t, s.StorageDir, own.image)
	report, v := u.run(u.job("out", "x"))
	refused(t, report, v, "damaged")
}

// damageLayer turns a bit of every large blob of the image on the storage's disk.
func damageLayer(t *testing.T, dir string, image *executortest.Image) {
	t.Helper()
	damaged := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(raw)
		isLayer := len(raw) > 100_000 &&
			strings.Contains(string(image.Layout), hex.EncodeToString(sum[:]))
		if !isLayer {
			return nil
		}
		damaged++
		raw[len(raw)/2] ^= 1
		if err := os.Chmod(path, 0o600); err != nil {
			return err
		}
		return os.WriteFile(path, raw, 0o600)
	})
	if err != nil || damaged != 1 {
		t.Fatalf("%d blobs were damaged: %v", damaged, err)
	}
}

// aboveCap: a job waits, saying why, while every host asks more than its owner accepts.
func aboveCap(t *testing.T, s *scene) {
	u := s.user(t)
	f := u.job("out", "x")
	cheap := amount.Amount(1)
	f.Payment.Cap.CoreHour = &cheap
	going := u.start(f)
	e := going.await(t, "the reason", func(e jobrun.Event) bool {
		return e.Kind == jobrun.KindState && strings.Contains(e.Reason, "above your cap")
	})
	if e.State != "pending" {
		t.Errorf("it is %s", e.State)
	}
	going.stop()
	ending{"cancelled", 0, "", false}.check(t, going.end(), going.view)
}

// cancelled: what ran until then is paid, nothing more.
func cancelled(t *testing.T, s *scene) {
	u := s.user(t)
	going := u.start(u.job("out", "up", "forever"))
	going.running("up")
	going.stop()
	report := going.end()
	ending{"cancelled", report.ExitCode, "interrupted by its owner", true}.check(t, report, going.view)
}

// inputs are mounted, outputs of an earlier job among them; strict isolation works too.
func inputs(t *testing.T, s *scene) {
	u := s.user(t)
	f := u.job("write", "/out/a", "from the first job")
	f.Outputs = []jobfile.Output{output("/out/a")}
	first, v := u.run(f)
	if len(first.Outputs) != 1 {
		t.Fatalf("outputs %+v\n%s", first.Outputs, v)
	}
	f = u.job("read", "/in/a", "write", "/in/a", "x")
	f.Inputs = []jobfile.Input{{CID: first.Outputs[0].CID, Path: "/in/a"}}
	f.Isolation = "strict"
	f.Resources.Disk = 8 * config.MiB
	second, v := u.run(f)
	ending{"completed", 0, "", true}.check(t, second, v)
	text := ""
	for _, e := range v.find(jobrun.KindLog) {
		text += e.Text + "\n"
	}
	if !strings.Contains(text, "from the first job") || !strings.Contains(text, "read-only") {
		t.Errorf("log %q", text)
	}
}
