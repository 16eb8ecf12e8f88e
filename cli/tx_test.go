package cli_test

import (
	"strings"
	"testing"
	"time"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/cli"
	"github.com/united-containers/ucn/kit/id"
)

// TestSignByTheChainsTime: a clock that is hours off spoils no transaction, and is told.
func TestSignByTheChainsTime(t *testing.T) {
	u := started(t, honest)
	to := id.Bech32(id.Account, sig.AccountOfKey(ownerKey().Public()))
	sign := []string{"tx", "sign", "--transfer", to + "=1", "--json"}
	for skew, told := range map[time.Duration]string{
		0: "", 2 * time.Second: "", -5 * time.Hour: "5h00m behind", 23 * time.Hour: "23h00m ahead of",
	} {
		u.skew = skew
		out, complaint, code := u.run(sign...)
		if code != cli.ExitOK || (told == "") != (complaint == "") ||
			!strings.Contains(complaint, told) {
			t.Fatalf("clock %v: exit code %d: %s", skew, code, complaint)
		}
		signed := document(t, out)
		until := time.UnixMilli(int64(signed["valid_until_ms"].(float64)))
		if left := time.Until(until); left < 9*time.Minute || left > 10*time.Minute {
			t.Errorf("clock %v: valid for %v by the chain", skew, left)
		}
		u.skew = 0
		if sent := u.must("tx", "submit", signed["transaction"].(string)); !strings.Contains(sent,
			signed["id"].(string)) {
			t.Errorf("clock %v: submitted: %s", skew, sent)
		}
	}
}

// TestSignByNoTimeOfAnotherDay: of a ledger's time that is days off nothing is signed unless the
// person says until when.
func TestSignByNoTimeOfAnotherDay(t *testing.T) {
	u := started(t, honest)
	to := id.Bech32(id.Account, sig.AccountOfKey(ownerKey().Public()))
	sign := []string{"tx", "sign", "--transfer", to + "=1", "--json"}
	until := time.Now().Add(time.Hour).Truncate(time.Second)
	for _, skew := range []time.Duration{25 * time.Hour, -25 * time.Hour, -3650 * 24 * time.Hour} {
		u.skew = skew
		out, complaint, code := u.run(sign...)
		if code != cli.ExitFailed || strings.Contains(out, "valid_until_ms") ||
			!strings.Contains(complaint, "more than 24h apart") ||
			!strings.Contains(complaint, "--valid-until") {
			t.Errorf("clock %v: exit code %d: %s%s", skew, code, out, complaint)
		}
		signed := document(t, u.must(append(sign, "--quiet", "--valid-until",
			until.UTC().Format(time.RFC3339))...))
		if signed["valid_until_ms"] != float64(until.UnixMilli()) {
			t.Errorf("clock %v: %v", skew, signed)
		}
	}
}

func TestSignUntil(t *testing.T) {
	u := started(t, honest)
	to := id.Bech32(id.Account, sig.AccountOfKey(ownerKey().Public()))
	sign := func(args ...string) (string, string, int) {
		return u.run(append([]string{"tx", "sign", "--transfer", to + "=1", "--json"}, args...)...)
	}
	at := time.Now().Add(3 * time.Hour).Truncate(time.Second)
	offline := []string{"--nonce", "7", "--fee", "1"}
	for _, more := range [][]string{nil, offline} {
		out, complaint, code := sign(append(more, "--valid-until", at.UTC().Format(time.RFC3339))...)
		if code != cli.ExitOK {
			t.Fatalf("%v: exit code %d: %s", more, code, complaint)
		}
		signed := document(t, out)
		if signed["valid_until_ms"] != float64(at.UnixMilli()) ||
			(signed["chain_time_ms"] == nil) != (more != nil) {
			t.Errorf("%v: %v", more, signed)
		}
	}
	for _, bad := range [][]string{
		{"--valid-until", "tomorrow"}, {"--valid-until", "1960-01-01T00:00:00Z"},
		{"--valid-until", time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)},
		{"--valid-until", time.Now().Add(25 * time.Hour).UTC().Format(time.RFC3339)},
		{"--valid-until", at.Format(time.RFC3339), "--valid-for", "1h"},
		{"--valid-for", "25h"}, {"--valid-for", "0s"},
		{"--valid-until", "1960-01-01T00:00:00Z", "--nonce", "7", "--fee", "1"},
	} {
		if _, complaint, code := sign(bad...); code != cli.ExitUsage {
			t.Errorf("%v: exit code %d: %s", bad, code, complaint)
		}
	}
}
