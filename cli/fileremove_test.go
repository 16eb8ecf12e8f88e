package cli_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/united-containers/ucn/cli/clitest"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
)

// TestFileRemove: many files end in one call, and one alone in its own; what may go goes, and what
// stays is named with the reason.
func TestFileRemove(t *testing.T) {
	u := newUser(t, func(*clitest.Visit) *jobv1.Outcome { return nil })
	var names, calls []string
	for seed := range uint64(1002) {
		names = append(names, u.net.Storage.Keep(someBytes(8, seed)))
	}
	u.net.Storage.Hook(func(effect string) error {
		if strings.HasPrefix(effect, "Remove") && !strings.HasSuffix(effect, "done") {
			calls = append(calls, effect)
		}
		return nil
	})
	rm := func(list []string, code int, says string, want ...string) {
		t.Helper()
		calls = nil
		out, complaint, got := u.run(append([]string{"file", "rm"}, list...)...)
		if got != code || !strings.Contains(out+complaint, says) {
			t.Errorf("rm of %d: %d %s %s", len(list), got, out, complaint)
		}
		if !slices.Equal(calls, want) {
			t.Errorf("rm of %d makes the calls %v, want %v", len(list), calls, want)
		}
	}
	rm(names[:1], 0, "removed "+names[0], "Remove")
	rm([]string{names[1], "nonsense"}, 2, "nonsense")
	rm(names[1:], 0, "removed "+names[1], "RemoveMany", "RemoveMany")
	for _, name := range names {
		if u.net.Storage.Held(name) {
			t.Fatalf("%s is held", name)
		}
	}
	pinned, plain := u.net.Storage.Keep([]byte("pinned")), u.net.Storage.Keep([]byte("plain"))
	u.net.Storage.KeepPinned(pinned)
	_, complaint, code := u.run("file", "rm", pinned, plain)
	if code == 0 || !strings.Contains(complaint, pinned+": ") ||
		!strings.Contains(complaint, "is pinned") {
		t.Errorf("a pinned file: %d %s", code, complaint)
	}
	if u.net.Storage.Held(plain) || !u.net.Storage.Held(pinned) {
		t.Error("what may go did not, or what may not did")
	}
}
