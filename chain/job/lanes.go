package job

import (
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
)

// The environment variables by which a task of an array learns which one it is.
const (
	EnvTaskIndex = "UCN_TASK_INDEX"
	EnvTaskCount = "UCN_TASK_COUNT"
)

// Parallel returns how many tasks of a checked array run at the same time at most.
func Parallel(a *jobv1.Array) uint32 {
	if a.GetParallel() == 0 {
		return min(DefaultParallel, a.GetCount())
	}
	return min(a.GetParallel(), a.GetCount())
}

// lanes is how many leases a job may hold at the same time.
func lanes(s *jobv1.JobSpec) uint32 {
	if s.GetArray() != nil {
		return max(1, Parallel(s.GetArray()))
	}
	return max(1, s.GetReplicas())
}

// checkLanes looks at what a job runs several times, and what keeps it running.
func checkLanes(s *jobv1.JobSpec) error {
	always := s.GetTrigger().GetAlways() != nil
	never := s.GetRestart() == jobv1.Restart_RESTART_NEVER
	switch {
	case s.GetReplicas() > MaxLanes:
		return invalid("replicas", "is %d, at most %d", s.GetReplicas(), MaxLanes)
	case !always && !never && s.GetRestart() != jobv1.Restart_RESTART_UNSPECIFIED:
		return invalid("restart", "is for trigger.always; for other jobs see limits.retries")
	case always && s.GetLimits().GetRunTimeMs() > 0:
		return invalid("limits.run_time_ms", "an always job has no end; cancel it")
	case always && !never && s.GetLimits().GetRetries() > 0:
		return invalid("limits.retries", "an always job is restarted without end; see restart")
	}
	if d := s.GetDisconnect(); d.GetLostAfterMs() != 0 &&
		(d.GetLostAfterMs() < MinLostAfterMS || d.GetLostAfterMs() > MaxLostAfterMS) {
		return invalid("disconnect.lost_after_ms", "is %d, must be %d to %d, or 0 for the default",
			d.GetLostAfterMs(), MinLostAfterMS, MaxLostAfterMS)
	}
	return checkArray(s)
}

func checkArray(s *jobv1.JobSpec) error {
	a := s.GetArray()
	switch {
	case a == nil:
		return nil
	case a.GetCount() == 0 || a.GetCount() > MaxTasks:
		return invalid("array.count", "is %d, must be 1 to %d", a.GetCount(), MaxTasks)
	case a.GetParallel() > MaxLanes:
		return invalid("array.parallel", "is %d, at most %d", a.GetParallel(), MaxLanes)
	case s.GetReplicas() > 1:
		return invalid("replicas", "an array has tasks instead; see array.parallel")
	case s.GetTrigger().GetAlways() != nil:
		return invalid("array", "an always job has replicas instead")
	}
	for _, v := range s.GetEnv() {
		if v.GetName() == EnvTaskIndex || v.GetName() == EnvTaskCount {
			return invalid("env", "%s is set by the array", v.GetName())
		}
	}
	for _, name := range s.GetSecrets() {
		if name == EnvTaskIndex || name == EnvTaskCount {
			return invalid("secrets", "%s is set by the array", name)
		}
	}
	return nil
}
