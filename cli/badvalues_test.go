package cli_test

import (
	"strings"
	"testing"

	"github.com/united-containers/ucn/cli"
	"github.com/united-containers/ucn/kit/id"
)

// TestBadValuesAreWrongCalls: a value that a command of the chain, the market or of waiting cannot
// use is named, and nothing is asked or waited for.
func TestBadValuesAreWrongCalls(t *testing.T) {
	u := started(t, honest)
	var raw [32]byte
	account, escrow := id.Bech32(id.Account, raw), id.Bech32(id.Escrow, raw)
	job := id.Bech32(id.Job, raw)
	tests := []struct {
		args string
		says string
	}{
		{"chain info more", "more"},
		{"chain block", "arg"},
		{"chain block x", "64 hexadecimal"},
		{"chain block -- -1", "64 hexadecimal"},
		{"chain tx 12", "64 hexadecimal"},
		{"chain account " + escrow, "account"},
		{"chain escrow " + account, "escrow"},
		{"chain lease " + escrow, "lease"},
		{"chain charges " + escrow, "lease"},
		{"chain charges", "arg"},
		{"chain supply --height -1", "--height"},
		{"chain supply --height x", "--height"},
		{"chain fees --operations -1", "--operations"},
		{"chain fees --bytes x", "--bytes"},
		{"chain fees --blocks 4294967296", "--blocks"},
		{"chain search", "arg"},
		{"chain watch --from x", "--from"},
		{"chain watch --count x", "--count"},
		{"chain watch --count -1", "--count"},
		{"chain watch --account " + escrow, "--account"},
		{"chain watch --escrow " + account, "--escrow"},
		{"chain watch --escrow " + escrow[:len(escrow)-1], "--escrow"},
		{"chain watch --account " + account + " --escrow " + escrow, "escrow"},
		{"event epoch --service x", "--key, --certificate"},
		{"market more", "more"},
		{"job wait", "arg"},
		{"job wait " + escrow, "job"},
		{"job wait --any", "arg"},
		{"job wait --any=maybe " + job, "--any"},
		{"job wait --for soon " + job, "--for"},
		{"job wait --for -1s " + job, "--for"},
		{"job wait --for 10 " + job, "--for"},
	}
	for _, test := range tests {
		out, complaint, code := u.run(strings.Fields(test.args)...)
		if code != cli.ExitUsage || !strings.Contains(complaint, test.says) || out != "" {
			t.Errorf("%s: exit code %d, %q%s; want %q", test.args, code, complaint, out, test.says)
		}
	}
}
