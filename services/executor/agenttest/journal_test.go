package agenttest_test

import (
	"testing"

	"github.com/united-containers/ucn/services/executor"
	"github.com/united-containers/ucn/services/executor/agenttest"
)

func TestMemoryJournal(t *testing.T) {
	agenttest.TestJournal(t, func(*testing.T) agenttest.Opener {
		j := agenttest.NewJournal()
		return func(*testing.T) (executor.Journal, func()) { return j, func() {} }
	})
}
