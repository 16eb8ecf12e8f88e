package disk_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/services/storage"
	"github.com/united-containers/ucn/services/storage/disk"
	"github.com/united-containers/ucn/services/storage/storagetest"
)

const (
	childDir  = "UCN_DISK_TEST_DIR"
	childKill = "UCN_DISK_TEST_KILL_AT"
	maxSteps  = 200 // more than the scenario has, so that the loop ends if it never finishes
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		os.Exit(child(dir, os.Getenv(childKill)))
	}
	os.Exit(m.Run())
}

// act is one call of the scenario that is killed at every effect.
type act struct {
	name    string
	account storage.Account
	kind    cid.Kind
	size    int
	remove  bool
	pieces  bool     // as an upload that can be resumed
	with    cid.Kind // removes a blob of this kind, and of withSize bytes, in the same write
}

const withSize = 50_000

// cids are the blobs an act is about.
func (a act) cids() []cid.CID {
	cs := []cid.CID{storagetest.CIDOf(a.kind, storagetest.Bytes(a.size, 1))}
	if a.with != cid.Unknown {
		cs = append(cs, storagetest.CIDOf(a.with, storagetest.Bytes(withSize, 1)))
	}
	return cs
}

func scenario() []act {
	alice, bob := storagetest.Alice(), storagetest.Bob()
	return []act{
		{"alice puts a file", alice, cid.File, 100_000, false, false, 0},
		{"alice puts a small file", alice, cid.File, 10, false, false, 0},
		{"alice puts a layer", alice, cid.OCIBlob, withSize, false, false, 0},
		{"bob puts the same file", bob, cid.File, 100_000, false, false, 0},
		{"bob uploads a layer in pieces", bob, cid.OCIBlob, 70_000, false, true, 0},
		{"bob uploads what is here", bob, cid.File, 10, false, true, 0},
		{"alice removes the file", alice, cid.File, 100_000, true, false, 0},
		{"bob removes the file", bob, cid.File, 100_000, true, false, 0},
		{"alice removes the rest at once", alice, cid.File, 10, true, false, cid.OCIBlob},
	}
}

func (a act) do(ctx context.Context, d *disk.Disk) error {
	data, cs := storagetest.Bytes(a.size, 1), a.cids()
	if a.remove && len(cs) > 1 {
		became, err := d.RemoveMany(ctx, a.account, cs)
		return errors.Join(err, errors.Join(became...))
	}
	if a.remove {
		return d.Remove(ctx, a.account, cs[0])
	}
	p := storage.Put{Account: a.account, Kind: a.kind}
	if a.pieces {
		return upload(ctx, d, p, data)
	}
	_, err := d.Put(ctx, p, bytes.NewReader(data))
	return err
}

// upload sends data in two pieces.
func upload(ctx context.Context, d *disk.Disk, p storage.Put, data []byte) error {
	u, err := d.StartUpload(ctx, p)
	for _, end := range []int{len(data) / 2, len(data)} {
		if err == nil {
			u, err = d.AppendUpload(ctx, p.Account, u.ID, u.Offset,
				bytes.NewReader(data[u.Offset:end]))
		}
	}
	if err == nil {
		_, err = d.FinishUpload(ctx, p.Account, u.ID)
	}
	return err
}

// checkUploads finishes what was begun, as a client would that comes back.
func checkUploads(t *testing.T, d *disk.Disk) {
	t.Helper()
	all, err := d.ListUploads(t.Context(), storagetest.Bob())
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range all {
		size := 70_000
		if u.Put.Kind == cid.File {
			size = 10
		}
		data := storagetest.Bytes(size, 1)
		if u.Offset < int64(size) {
			u, err = d.AppendUpload(t.Context(), storagetest.Bob(), u.ID, u.Offset,
				bytes.NewReader(data[u.Offset:]))
		}
		if err != nil {
			t.Errorf("go on at %d: %v", u.Offset, err)
			continue
		}
		stored, err := d.FinishUpload(t.Context(), storagetest.Bob(), u.ID)
		if err != nil || stored.Ref.CID != storagetest.CIDOf(u.Put.Kind, data) {
			t.Errorf("finish what was begun: %+v, %v", stored, err)
		}
	}
}

// child runs the scenario, prints what was acknowledged and kills itself before effect number at.
func child(dir, at string) int {
	killAt, err := strconv.Atoi(at)
	if err != nil {
		return 2
	}
	steps := 0
	cfg := config(dir, storage.DefaultLimits())
	cfg.Outbox = new(recorder).open
	d, err := disk.OpenWithHook(cfg, func(string) error {
		if steps++; steps == killAt {
			return syscall.Kill(os.Getpid(), syscall.SIGKILL)
		}
		return nil
	})
	if err != nil {
		fmt.Println("open:", err)
		return 2
	}
	for _, a := range scenario() {
		if err := a.do(context.Background(), d); err != nil {
			fmt.Println("failed:", a.name, err)
			return 2
		}
		fmt.Println("done:", a.name)
	}
	return 0
}

func TestKilledBeforeEveryEffect(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for at := 1; ; at++ {
		if at > maxSteps {
			t.Fatal("the scenario never finished")
		}
		dir := t.TempDir()
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), childDir+"="+dir, childKill+"="+strconv.Itoa(at))
		out, err := cmd.Output()
		var exit *exec.ExitError
		if err != nil && (!errors.As(err, &exit) || exit.Exited()) {
			t.Fatalf("kill at %d: %v\n%s", at, err, out)
		}
		done := acknowledged(out)
		checkAfterCrash(t, dir, done)
		if t.Failed() {
			t.Fatalf("killed before effect %d, after %d acts", at, done)
		}
		if err == nil {
			if at < 40 {
				t.Errorf("the scenario has only %d effects; is the hook called?", at-1)
			}
			return
		}
	}
}

func acknowledged(out []byte) int {
	done := 0
	for s := bufio.NewScanner(bytes.NewReader(out)); s.Scan(); {
		if strings.HasPrefix(s.Text(), "done: ") {
			done++
		}
	}
	return done
}

// checkAfterCrash opens what a killed process left: what it acknowledged is there, what it had
// begun is there wholly or not at all, and nothing else is on the disk.
func checkAfterCrash(t *testing.T, dir string, done int) {
	t.Helper()
	box, cfg := &recorder{}, config(dir, storage.DefaultLimits())
	cfg.Outbox = box.open
	d, err := disk.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer closed(t, d)
	checkTold(t, box, d)
	acts := scenario()
	held := map[storage.Account]map[cid.CID]bool{}
	for i, a := range acts[:min(done+1, len(acts))] {
		if held[a.account] == nil {
			held[a.account] = map[cid.CID]bool{}
		}
		_, err := d.Stat(t.Context(), a.account, a.cids()[0])
		for _, c := range a.cids() { // all of them or none
			held[a.account][c] = i < done && !a.remove || i >= done && err == nil
		}
	}
	for account, blobs := range held {
		for c, want := range blobs {
			checkHeld(t, d, account, c, want)
		}
	}
	checkConsistent(t, d, dir)
	checkUploads(t, d)
	checkConsistent(t, d, dir)
	for _, a := range acts[done:] { // and everything goes on from here
		if err := a.do(t.Context(), d); err != nil && !errors.Is(err, storage.ReasonNotFound) {
			t.Errorf("%s after the crash: %v", a.name, err)
		}
	}
	checkConsistent(t, d, dir)
	checkTold(t, box, d)
}

func checkHeld(t *testing.T, d *disk.Disk, a storage.Account, c cid.CID, want bool) {
	t.Helper()
	got, err := storagetest.ReadAll(t.Context(), d, a, c, storage.Range{})
	if want && (err != nil || storagetest.CIDOf(c.Kind(), got) != c) {
		t.Errorf("%s is lost: %v", c, err)
	}
	if !want && !errors.Is(err, storage.ReasonNotFound) {
		t.Errorf("%s is still there: %v", c, err)
	}
}

// checkConsistent compares usage, references and files: no file without a reference, no reference
// without its bytes, nothing temporary.
func checkConsistent(t *testing.T, d *disk.Disk, dir string) {
	t.Helper()
	want := map[string]bool{}
	for _, a := range []storage.Account{storagetest.Alice(), storagetest.Bob()} {
		refs, err := d.List(t.Context(), a, cid.CID{}, storage.MaxPage)
		if err != nil {
			t.Fatal(err)
		}
		var sum storage.Usage
		for _, ref := range refs {
			sum.Add(ref, 1)
			want[ref.CID.String()] = true
			if ref.Size > cid.GroupSize {
				want[ref.CID.String()+".bao"] = true
			}
			checkHeld(t, d, a, ref.CID, true)
		}
		u, err := d.Usage(t.Context(), a)
		u.Uploads = sum.Uploads
		if err != nil || u != sum {
			t.Errorf("usage of %s is %+v, %v; its references sum up to %+v", a, u, err, sum)
		}
	}
	got := files(t, dir)
	for name := range want {
		if !got[name] {
			t.Errorf("file %s is missing", name)
		}
	}
	for name := range got {
		if !want[name] {
			t.Errorf("file %s is left over", name)
		}
	}
}

// files lists what is under blobs and tmp.
func files(t *testing.T, dir string) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	for _, part := range []string{"blobs", "tmp"} {
		err := filepath.WalkDir(filepath.Join(dir, part), func(_ string, e fs.DirEntry, err error,
		) error {
			if err == nil && !e.IsDir() {
				found[e.Name()] = true
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return found
}

// TestEveryEffectFails fails each effect of each act once, in a store that lives on.
func TestEveryEffectFails(t *testing.T) {
	for _, cause := range []error{syscall.ENOSPC, syscall.EIO} {
		for at := 1; ; at++ {
			if at > maxSteps {
				t.Fatal("the scenario never finished")
			}
			if !failOnce(t, cause, at) {
				break
			}
			if t.Failed() {
				t.Fatalf("%v at effect %d", cause, at)
			}
		}
	}
}

// failOnce reports whether effect number at exists.
func failOnce(t *testing.T, cause error, at int) bool {
	t.Helper()
	dir, steps, failedAt := t.TempDir(), 0, ""
	d, err := disk.OpenWithHook(config(dir, storage.DefaultLimits()), func(step string) error {
		if steps++; steps == at {
			failedAt = step
			return cause
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	defer closed(t, d)
	for _, a := range scenario() {
		before := failedAt
		err := a.do(t.Context(), d)
		if failedAt == before {
			if err != nil {
				t.Errorf("%s: %v", a.name, err)
			}
			continue
		}
		if !a.remove && !errors.Is(err, cause) {
			t.Errorf("%s with %v at %q: %v", a.name, cause, failedAt, err)
		}
		if !a.remove && cause == syscall.ENOSPC && !errors.Is(err, storage.ReasonFull) {
			t.Errorf("%s on a full disk at %q: %v", a.name, failedAt, err)
		}
		if !a.remove {
			checkConsistent(t, d, dir)
		}
		if err := a.do(t.Context(), d); err != nil && !errors.Is(err, storage.ReasonNotFound) {
			t.Errorf("%s, repeated after %q failed: %v", a.name, failedAt, err)
		}
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	again := open(t, config(dir, storage.DefaultLimits()))
	checkConsistent(t, again, dir)
	return failedAt != ""
}
