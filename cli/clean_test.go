package cli_test

import (
	"strings"
	"testing"

	"github.com/united-containers/ucn/cli"
	"github.com/united-containers/ucn/kit/fault"
	storagev1 "github.com/united-containers/ucn/proto/ucn/storage/v1"
)

// TestAServiceCannotWriteToTheTerminal: neither by errors nor by what it says of files.
func TestAServiceCannotWriteToTheTerminal(t *testing.T) {
	u := started(t, honest)
	const trick = "\x1b]0;pwn\a\x1b[2J\u202e"
	name := u.net.Storage.Keep([]byte("x"))
	u.net.Storage.Says = func(*storagev1.StatRequest) *storagev1.Reference {
		return &storagev1.Reference{Cid: name + trick, Size: 1, Job: trick + "\njob\tx", Name: trick}
	}
	out := u.must("file", "stat", name)
	if strings.ContainsAny(out, "\x1b\a\u202e") || strings.Contains(out, "\njob  x") {
		t.Errorf("told %q", out)
	}
	u.net.Storage.Hook(func(string) error {
		return fault.New(fault.NotFound, "BLOB_NOT_FOUND", "no blob%s\rgone\nucn: all is well", trick)
	})
	_, complaint, code := u.run("file", "stat", name)
	if code != cli.ExitFailed || strings.ContainsAny(complaint, "\x1b\a\u202e") ||
		strings.Contains(complaint, "\nucn:") || !strings.Contains(complaint, "no blob") {
		t.Errorf("code %d, complaint %q", code, complaint)
	}
}
