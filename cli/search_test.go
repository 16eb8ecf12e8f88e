package cli_test

import (
	"strings"
	"testing"

	"github.com/united-containers/ucn/cli"
)

// TestSearchOfACutID: an id as tables shorten it is refused by name; that nothing on the chain is
// called so would be untrue.
func TestSearchOfACutID(t *testing.T) {
	u := started(t, honest)
	for _, text := range []string{"ucn16vpklhva", "ucne1abcdef...", "UCNJ1QQQ"} {
		_, complaint, code := u.run("chain", "search", text)
		if code != cli.ExitUsage || !strings.Contains(complaint, "only the beginning of an id") {
			t.Errorf("%s: exit code %d, %s", text, code, complaint)
		}
	}
}
