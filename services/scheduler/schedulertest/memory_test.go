package schedulertest_test

import (
	"testing"

	"github.com/united-containers/ucn/services/scheduler"
	"github.com/united-containers/ucn/services/scheduler/schedulertest"
)

func TestMemory(t *testing.T) {
	schedulertest.TestStore(t, func(*testing.T) scheduler.Store { return &schedulertest.Memory{} })
}
