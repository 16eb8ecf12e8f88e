package job_test

import (
	"errors"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/united-containers/ucn/chain/job"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
)

func always(s *jobv1.JobSpec) {
	s.Trigger = &jobv1.Trigger{Kind: &jobv1.Trigger_Always{Always: &jobv1.Always{}}}
}

func array(count, parallel uint32) func(*jobv1.JobSpec) {
	return func(s *jobv1.JobSpec) { s.Array = &jobv1.Array{Count: count, Parallel: parallel} }
}

func both(fns ...func(*jobv1.JobSpec)) func(*jobv1.JobSpec) {
	return func(s *jobv1.JobSpec) {
		for _, fn := range fns {
			fn(s)
		}
	}
}

func lost(ms uint64) func(*jobv1.JobSpec) {
	return func(s *jobv1.JobSpec) { s.Disconnect = &jobv1.Disconnect{LostAfterMs: ms} }
}

func restart(r jobv1.Restart) func(*jobv1.JobSpec) {
	return func(s *jobv1.JobSpec) { s.Restart = r }
}

func limits(l *jobv1.Limits) func(*jobv1.JobSpec) {
	return func(s *jobv1.JobSpec) { s.Limits = l }
}

func TestLanes(t *testing.T) {
	never := restart(jobv1.Restart_RESTART_NEVER)
	tests := []struct {
		name, field string
		kind        error
		change      func(*jobv1.JobSpec)
	}{
		{"always", "", nil, both(always, restart(jobv1.Restart_RESTART_ON_FAILURE))},
		{"replicas", "", nil, both(always, func(s *jobv1.JobSpec) { s.Replicas = job.MaxLanes })},
		{"once with replicas", "", nil, func(s *jobv1.JobSpec) { s.Replicas = 2 }},
		{"largest array", "", nil, array(job.MaxTasks, job.MaxLanes)},
		{"shortest silence", "", nil, lost(job.MinLostAfterMS)},
		{"never, with retries", "", nil, both(always, never, limits(&jobv1.Limits{Retries: 3}))},
		{"too many replicas", "replicas", job.ErrInvalid,
			func(s *jobv1.JobSpec) { s.Replicas = job.MaxLanes + 1 }},
		{"once restarted", "restart", job.ErrInvalid, restart(jobv1.Restart_RESTART_ALWAYS)},
		{"restart below zero", "restart", job.ErrInvalid, restart(-7)},
		{"unknown restart", "restart", job.ErrNotBuilt, both(always, restart(9))},
		{"always with an end", "limits.run_time_ms", job.ErrInvalid,
			both(always, limits(&jobv1.Limits{RunTimeMs: 1}))},
		{"always with retries", "limits.retries", job.ErrInvalid,
			both(always, limits(&jobv1.Limits{Retries: 1}))},
		{"hasty", "disconnect.lost_after_ms", job.ErrInvalid, lost(job.MinLostAfterMS - 1)},
		{"patient", "disconnect.lost_after_ms", job.ErrInvalid, lost(job.MaxLostAfterMS + 1)},
		{"unknown policy", "disconnect.policy", job.ErrNotBuilt,
			func(s *jobv1.JobSpec) { s.Disconnect = &jobv1.Disconnect{Policy: 9} }},
		{"empty array", "array.count", job.ErrInvalid, array(0, 1)},
		{"too large an array", "array.count", job.ErrInvalid, array(job.MaxTasks+1, 1)},
		{"too wide an array", "array.parallel", job.ErrInvalid, array(1, job.MaxLanes+1)},
		{"array of replicas", "replicas", job.ErrInvalid,
			both(array(2, 1), func(s *jobv1.JobSpec) { s.Replicas = 2 })},
		{"endless array", "array", job.ErrInvalid, both(array(2, 1), always)},
		{"index by hand", "env", job.ErrInvalid, both(array(2, 1), func(s *jobv1.JobSpec) {
			s.Env = []*jobv1.EnvVar{{Name: job.EnvTaskIndex}}
		})},
		{"secret index", "secrets", job.ErrInvalid, both(array(2, 1), func(s *jobv1.JobSpec) {
			s.Secrets = []string{job.EnvTaskCount}
		})},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := proto.Clone(spec(testKey(1))).(*jobv1.JobSpec)
			tt.change(s)
			err := job.Check(s)
			if tt.kind == nil {
				if err != nil {
					t.Errorf("Check = %v, want nil", err)
				}
				return
			}
			var field *job.FieldError
			if !errors.As(err, &field) || field.Field != tt.field || !errors.Is(err, tt.kind) {
				t.Errorf("Check = %v, want field %s, kind %v", err, tt.field, tt.kind)
			}
		})
	}
}

func TestParallel(t *testing.T) {
	for _, tt := range []struct{ count, parallel, want uint32 }{
		{5, 0, 5}, {50, 0, job.DefaultParallel}, {3, 7, 3}, {20, 7, 7},
	} {
		a := &jobv1.Array{Count: tt.count, Parallel: tt.parallel}
		if got := job.Parallel(a); got != tt.want {
			t.Errorf("%d tasks, parallel %d: %d lanes, want %d", tt.count, tt.parallel, got, tt.want)
		}
	}
}
