package e2e

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/united-containers/ucn/kit/keys"
	"github.com/united-containers/ucn/wiring"
)

// topLine is what job top tells of an attempt, as far as it is looked at.
type topLine struct {
	Attempt, Host, Error string
	Started              uint64 `json:"started_ms"`
	Evict                uint64 `json:"evict_at_ms"`
	Memory               uint64
	Due                  string
}

// evictedByCommand: an owner watches what a job uses; the operator of its host sends it away with
// notice; it is paid up to there and goes on elsewhere.
func evictedByCommand(t *testing.T, s *scene) {
	u := s.user(t)
	for _, operator := range []string{wiring.Alpha, wiring.Beta} {
		text, err := keys.EncodeSigning(s.Operators[operator], nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := keys.Create(filepath.Join(u.Dir, "wallets", operator+".key"), text); err != nil {
			t.Fatal(err)
		}
	}
	out := u.must("job", "run", string(s.image.ID), "--json", "--detach", "--cpu", "0.1",
		"--memory", "32MiB", "--disk", "16MiB", "--", "eat", "8", "sleep", "10m")
	job := events(t, out)[0].Job
	one := u.top(job, func(l topLine) bool { return l.Started != 0 && l.Memory >= 8<<20 })
	operator := wiring.Alpha
	if !strings.Contains(u.must("host", "ls", "--wallet", operator), one.Host) {
		operator = wiring.Beta
	}
	shown := u.must("host", "show", one.Host, "--wallet", operator)
	if !strings.Contains(shown, one.Attempt) || !strings.Contains(shown, "running") {
		t.Fatalf("host show says %s", shown)
	}
	u.must("host", "evict", one.Host, one.Attempt, "--wallet", operator, "--notice", "12s",
		"--reason", "new disks")
	told := u.top(job, func(l topLine) bool { return l.Attempt != one.Attempt || l.Evict != 0 })
	if told.Attempt == one.Attempt && told.Evict == 0 {
		t.Errorf("the owner sees %+v", told)
	}
	next := u.top(job, func(l topLine) bool { return l.Attempt != one.Attempt && l.Started != 0 })
	got := u.must("job", "get", job)
	if !strings.Contains(got, "new disks") {
		t.Errorf("after %+v went, %+v runs: %s", one, next, got)
	}
	u.must("job", "cancel", job)
}

// top asks until a line of the job's table is as wanted.
func (u *user) top(job string, wanted func(topLine) bool) topLine {
	u.t.Helper()
	ticker := time.NewTicker(500 * time.Millisecond)
	defer ticker.Stop()
	var lines []topLine
	for u.ctx.Err() == nil {
		lines = parsed[[]topLine](u.t, u.must("job", "top", job, "--once", "--json"))
		for _, l := range lines {
			if l.Error == "" && wanted(l) {
				return l
			}
		}
		select {
		case <-ticker.C:
		case <-u.ctx.Done():
		}
	}
	u.t.Fatalf("the table is never as wanted: %+v", lines)
	return topLine{}
}
