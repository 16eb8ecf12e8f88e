package cli_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/united-containers/ucn/cli"
	"github.com/united-containers/ucn/cli/clitest"
	"github.com/united-containers/ucn/kit/id"
	executorv1 "github.com/united-containers/ucn/proto/ucn/executor/v1"
	marketv1 "github.com/united-containers/ucn/proto/ucn/market/v1"
)

// TestHostPolicyShowsItsSources: whoever reads a rule sees where it was set, and so how to lift it.
func TestHostPolicyShowsItsSources(t *testing.T) {
	u := operating(t)
	if out := u.must("host", "policy", clitest.Host, "--wallet", "op"); !strings.Contains(out,
		"anybody's jobs") {
		t.Errorf("without rules: %q", out)
	}
	u.net.Desk.Tell(&executorv1.GetHostResponse{
		Offer:  &marketv1.Offer{Host: clitest.Host},
		Policy: &executorv1.HostPolicy{DenyImages: []string{"bafybad"}, Entries: 2},
		SetPolicy: &executorv1.HostPolicy{
			DenyOwners: []string{"ucn1bad\x1b[31m"}, MaxRunTimeMs: 3_600_000, Entries: 1,
		},
		SetVersion: 4, SetSince: 1_800_000_000_000, SetReason: "spam",
	}, nil)
	out := u.must("host", "policy", clitest.Host, "--wallet", "op")
	for _, want := range []string{
		"file     not image  bafybad", "command  not owner  ucn1bad", "at most 1h0m0s",
		"version 4, since 2027-01-15", `"spam"`, "1 of 2 entries", "file's rules as well",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("it lacks %q: %s", want, out)
		}
	}
	if strings.Contains(out, "\x1b") {
		t.Error("what a host says reaches the terminal as it is")
	}
	var shown struct {
		DenyImages []string `json:"deny_images"`
		Set        struct {
			Version uint64   `json:"version"`
			Owners  []string `json:"deny_owners"`
		} `json:"set_by_command"`
	}
	text := u.must("host", "policy", clitest.Host, "--wallet", "op", "--json")
	if err := json.Unmarshal([]byte(text), &shown); err != nil || len(shown.DenyImages) != 1 ||
		shown.Set.Version != 4 || len(shown.Set.Owners) != 1 {
		t.Errorf("%v in %s", err, text)
	}
}

// TestHostPolicyIsChanged: set replaces, add and rm change, and a change that somebody else made
// meanwhile is built upon.
func TestHostPolicyIsChanged(t *testing.T) {
	u := operating(t)
	account := func(n byte) string { return id.Bech32(id.Account, [32]byte{n}) }
	have := &executorv1.HostPolicy{
		AllowOwners: []string{account(1), account(2)}, DenyImages: []string{"bafyold"},
		MaxRunTimeMs: 1000,
	}
	u.net.Desk.Tell(&executorv1.GetHostResponse{
		Offer: &marketv1.Offer{Host: clitest.Host}, SetPolicy: have, SetVersion: 4,
	}, nil)
	for _, tt := range []struct {
		args []string
		want *executorv1.HostPolicy
	}{
		{[]string{"set", "--allow-owner", account(3), "--max-run-time", "2h"},
			&executorv1.HostPolicy{AllowOwners: []string{account(3)}, MaxRunTimeMs: 7_200_000}},
		{[]string{"add", "--allow-owner", account(2), "--deny-owner", account(9), "--deny-image",
			"bafynew"}, &executorv1.HostPolicy{
			AllowOwners: have.AllowOwners, DenyOwners: []string{account(9)},
			DenyImages: []string{"bafyold", "bafynew"}, MaxRunTimeMs: 1000,
		}},
		{[]string{"rm", "--allow-owner", account(1), "--deny-image", "bafyold", "--max-run-time"},
			&executorv1.HostPolicy{AllowOwners: []string{account(2)}}},
		{[]string{"clear"}, nil}, // an empty policy is none on the wire
	} {
		u.net.Desk.Change(1)
		line := append([]string{"host", "policy", tt.args[0], clitest.Host, "--wallet", "op",
			"--reason", "why"}, tt.args[1:]...)
		out := u.must(line...)
		if !strings.Contains(out, "version 5") || !strings.Contains(out, "decline now: 3") {
			t.Errorf("%q says %q", line, out)
		}
		heard := u.net.Desk.Heard()
		want := &executorv1.SetPolicyRequest{Policy: tt.want, Base: 4, Reason: "why"}
		got := heard[len(heard)-1]
		if diff := cmp.Diff(proto.Message(want), got, protocmp.Transform()); diff != "" {
			t.Errorf("%q: %s", line, diff)
		}
	}
}

// TestHostPolicyRefusals: what is mistyped reaches no host, and nothing is lifted by accident.
func TestHostPolicyRefusals(t *testing.T) {
	u := operating(t)
	owner := id.Bech32(id.Account, [32]byte{1})
	u.net.Desk.Tell(&executorv1.GetHostResponse{
		Offer:      &marketv1.Offer{Host: clitest.Host},
		SetPolicy:  &executorv1.HostPolicy{AllowOwners: []string{owner}},
		SetVersion: 1,
	}, nil)
	for _, tt := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"set", clitest.Host}, cli.ExitUsage, "clear"},
		{[]string{"add", clitest.Host}, cli.ExitUsage, "--deny-owner"},
		{[]string{"rm", clitest.Host}, cli.ExitUsage, "--deny-owner"},
		{[]string{"add", clitest.Host, "--deny-owner", "bob"}, cli.ExitUsage, "bob"},
		{[]string{"set", clitest.Host, "--max-run-time", "-1s"}, cli.ExitUsage, "negative"},
		{[]string{"set", clitest.Host, "--max-run-time", "1us"}, cli.ExitUsage, "at least"},
		{[]string{"rm", clitest.Host, "--deny-image", "bafyother"}, cli.ExitFailed, "not set by command"},
		{[]string{"rm", clitest.Host, "--allow-owner", owner}, cli.ExitFailed, "anybody's"},
		{[]string{"set", "nobody", "--deny-owner", owner}, cli.ExitFailed, "no offer"},
		{[]string{"set"}, cli.ExitUsage, "arg"},
	} {
		line := append([]string{"host", "policy"}, append(tt.args, "--wallet", "op")...)
		if _, bad, code := u.run(line...); code != tt.code || !strings.Contains(bad, tt.says) {
			t.Errorf("%q: exit %d, %q; want %d, %q", line, code, bad, tt.code, tt.says)
		}
	}
	for _, m := range u.net.Desk.Heard() {
		if _, changed := m.(*executorv1.SetPolicyRequest); changed {
			t.Errorf("the host was told %v", m)
		}
	}
	u.net.Desk.Change(100)
	_, bad, code := u.run("host", "policy", "clear", clitest.Host, "--wallet", "op")
	if code != cli.ExitFailed || !strings.Contains(bad, "version 9") {
		t.Errorf("always another version: exit %d, %s", code, bad)
	}
}
