package e2e

import (
	"io"
	"net/http"
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
	u.operators()
	out := u.must("job", "run", string(s.image.ID), "--json", "--detach", "--cpu", "0.1",
		"--memory", "32MiB", "--disk", "16MiB", "--", "eat", "8", "sleep", "10m")
	job := events(t, out)[0].Job
	one := u.top(job, func(l topLine) bool { return l.Started != 0 && l.Memory >= 8<<20 })
	operator := u.operatorOf(one.Host)
	shown := u.must("host", "show", one.Host, "--wallet", operator)
	if !strings.Contains(shown, one.Attempt) || !strings.Contains(shown, "running") {
		t.Fatalf("host show says %s", shown)
	}
	u.evictByREST(one, operator)
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

// evictByREST tells an attempt over REST that it goes in an hour; it can be told to go sooner.
func (u *user) evictByREST(at topLine, operator string) {
	u.t.Helper()
	const body = `{"notice_ms": "3600000", "reason": "by REST"}`
	signed := parsed[struct{ Token, Method, Path string }](u.t, u.must("host", "token", at.Host,
		"evict", at.Attempt, "--wallet", operator, "--body", body, "--json"))
	r, err := http.NewRequestWithContext(u.ctx, signed.Method, u.scene.File.REST+signed.Path,
		strings.NewReader(body))
	if err != nil {
		u.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+signed.Token)
	got, err := http.DefaultClient.Do(r)
	if err != nil {
		u.t.Fatal(err)
	}
	defer func() { _ = got.Body.Close() }()
	answer, err := io.ReadAll(got.Body)
	if err != nil || got.StatusCode != http.StatusOK ||
		!strings.Contains(string(answer), "evict_at") {
		u.t.Fatalf("evict over REST: status %d, %v, %s", got.StatusCode, err, answer)
	}
}

// operators gives the user the wallets of the network's operators.
func (u *user) operators() {
	u.t.Helper()
	for _, operator := range []string{wiring.Alpha, wiring.Beta} {
		text, err := keys.EncodeSigning(u.scene.Operators[operator], nil)
		if err != nil {
			u.t.Fatal(err)
		}
		if err := keys.Create(filepath.Join(u.Dir, "wallets", operator+".key"), text); err != nil {
			u.t.Fatal(err)
		}
	}
}

func (u *user) operatorOf(host string) string {
	u.t.Helper()
	if strings.Contains(u.must("host", "ls", "--wallet", wiring.Alpha), host) {
		return wiring.Alpha
	}
	return wiring.Beta
}

// shownAttempt is what job get tells of an attempt, as far as it is looked at.
type shownAttempt struct {
	Attempt, State, Reason, Host, Lease string
	Evict                               uint64 `json:"evict_at_ms"`
	Ended                               uint64 `json:"ended_ms"`
}

// shown asks until the job's attempts are as wanted.
func (u *user) shown(job string, wanted func([]shownAttempt) bool) []shownAttempt {
	u.t.Helper()
	type shown struct{ Attempts []shownAttempt }
	var got shown
	ticker := time.NewTicker(300 * time.Millisecond)
	defer ticker.Stop()
	for u.ctx.Err() == nil {
		if got = parsed[shown](u.t, u.must("job", "get", job, "--json")); wanted(got.Attempts) {
			return got.Attempts
		}
		select {
		case <-ticker.C:
		case <-u.ctx.Done():
		}
	}
	u.t.Fatalf("the attempts are never as wanted: %+v", got)
	return nil
}

// paidLease is what the chain tells of a lease.
type paidLease struct {
	From    uint64 `json:"from_ms"`
	End     uint64 `json:"end_ms"`
	Epoch   uint64
	Settled bool
}

// movedByCommand: the host of a program that is to run for good tells its end ahead. The program
// has another host before, though its lease promises all the money that there is; the lane is paid
// on one lease after the other, and the first host goes once the second one's program runs.
func movedByCommand(t *testing.T, s *scene) {
	u := s.user(t)
	u.operators()
	out := u.must("job", "run", string(s.image.ID), "--json", "--detach", "--trigger", "always",
		"--cpu", "0.1", "--memory", "32MiB", "--disk", "16MiB", "--", "sleep", "10m")
	job := events(t, out)[0].Job
	one := u.shown(job, func(list []shownAttempt) bool {
		return len(list) == 1 && list[0].State == "running"
	})[0]
	began := time.Now()
	const notice = 90 * time.Second
	u.must("host", "evict", one.Host, one.Attempt, "--wallet", u.operatorOf(one.Host), "--notice",
		notice.String(), "--reason", "new disks")
	list := u.shown(job, func(list []shownAttempt) bool {
		return len(list) == 2 && list[1].State == "running"
	})
	first, second := list[0], list[1]
	if took := time.Since(began); took >= notice {
		t.Errorf("the replacement runs after %v, the end was told %v ahead", took, notice)
	}
	if first.State != "ended" || !strings.Contains(first.Reason, "replaced by "+second.Host) ||
		!strings.Contains(first.Reason, "new disks") || second.Host == first.Host {
		t.Errorf("attempts %+v", list)
	}
	read := func(id string) paidLease {
		return parsed[paidLease](t, u.must("chain", "lease", id, "--json"))
	}
	before, after := read(first.Lease), read(second.Lease)
	if before.End == 0 || before.End != after.From || after.Epoch != before.Epoch+1 || after.End != 0 {
		t.Errorf("the leases are %+v and %+v", before, after)
	}
	for ; !before.Settled && time.Since(began) < notice; before = read(first.Lease) {
		u.shown(job, func([]shownAttempt) bool { return true })
	}
	if !before.Settled {
		t.Errorf("the first host does not go before its time: %+v", before)
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
