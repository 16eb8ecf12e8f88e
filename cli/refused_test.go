package cli_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/united-containers/ucn/cli/clitest"
	"github.com/united-containers/ucn/kit/fault"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
)

// TestRefusalSaysWhenToTryAgain: what the storage refuses for now is told at once as it words that,
// and to programs with its reason and when to come again.
func TestRefusalSaysWhenToTryAgain(t *testing.T) {
	u := newUser(t, func(*clitest.Visit) *jobv1.Outcome { return nil })
	const says = "the account changed too many files of late: try again in 7s"
	u.net.Storage.Hook(func(effect string) error {
		if effect == "Put" {
			return fault.New(fault.ResourceExhausted, "STORAGE_EVENT_RATE", says).
				WithRetry(7 * time.Second)
		}
		return nil
	})
	path := saveAs(t, "small", []byte("content"))
	if _, complaint, code := u.run("file", "put", path); code == 0 ||
		!strings.Contains(complaint, says) {
		t.Errorf("in words: %d %s", code, complaint)
	}
	_, complaint, code := u.run("file", "put", path, "--json")
	var told struct {
		Error, Reason string
		Again         int64 `json:"retry_after_ms"`
	}
	if err := json.Unmarshal([]byte(complaint), &told); err != nil || code == 0 ||
		told.Reason != "STORAGE_EVENT_RATE" || told.Again != 7000 ||
		!strings.Contains(told.Error, says) {
		t.Errorf("for programs: %d, %v, %s", code, err, complaint)
	}
}
