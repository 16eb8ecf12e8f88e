package cli_test

import (
	"strings"
	"testing"
)

// TestIncompleteListsAreToldOf: whoever reads a list must know that it is not all there is; what a
// program reads stays as it is.
func TestIncompleteListsAreToldOf(t *testing.T) {
	u := started(t, honest)
	out, complaint, code := u.run("escrow", "ls", "--json")
	if code != 0 || complaint != "" {
		t.Fatalf("a whole list: exit code %d, %s", code, complaint)
	}
	u.net.Ledger.Behind = 1
	again, complaint, code := u.run("escrow", "ls", "--json")
	if code != 0 || again != out || !strings.Contains(complaint, "incomplete") {
		t.Errorf("a list that lacks a block: exit code %d, %q, %q", code, complaint, again)
	}
}
