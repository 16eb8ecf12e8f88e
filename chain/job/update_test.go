package job_test

import (
	"errors"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/chain/sig"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
)

func TestVerifyNext(t *testing.T) {
	key := testKey(1)
	s := spec(key)
	always(s)
	first, id, err := job.Sign(key, s)
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		change func(*jobv1.JobSpec)
		key    sig.PrivateKey
		spoil  func(*jobv1.SignedRevision)
		want   error
		field  string
	}{
		"replicas": {change: func(s *jobv1.JobSpec) { s.Replicas = 5 }},
		"limits":   {change: func(s *jobv1.JobSpec) { s.Limits = &jobv1.Limits{BackoffMs: 1000} }},
		"retries": {
			change: func(s *jobv1.JobSpec) { s.Limits = &jobv1.Limits{Retries: 3} },
			want:   job.ErrInvalid, field: "limits.retries",
		},
		"nothing": {},
		"name": {
			change: func(s *jobv1.JobSpec) { s.Name = "other" }, want: job.ErrInvalid, field: "name",
		},
		"too many": {
			change: func(s *jobv1.JobSpec) { s.Replicas = 101 }, want: job.ErrInvalid, field: "replicas",
		},
		"once": {
			change: func(s *jobv1.JobSpec) { s.Trigger = nil }, want: job.ErrInvalid, field: "trigger",
		},
		"run time": {
			change: func(s *jobv1.JobSpec) { s.Args = []string{"other"} }, want: job.ErrInvalid,
			field: "args",
		},
		"another's key": {key: testKey(2), want: job.ErrSignature},
		"number": {
			spoil: func(s *jobv1.SignedRevision) { s.Revision.Number++ }, want: job.ErrRevision,
		},
		"job": {
			spoil: func(s *jobv1.SignedRevision) { s.Revision.Job[0] ^= 1 }, want: job.ErrRevision,
		},
		"predecessor": {
			spoil: func(s *jobv1.SignedRevision) { s.Revision.Previous[0] ^= 1 }, want: job.ErrRevision,
		},
		"no spec": {
			spoil: func(s *jobv1.SignedRevision) { s.Revision.Spec = nil }, want: job.ErrInvalid,
			field: "revision.spec",
		},
		"changed after signing": {
			spoil: func(s *jobv1.SignedRevision) { s.Revision.Spec.Replicas = 9 }, want: job.ErrSignature,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			to := proto.CloneOf(s)
			if tt.change != nil {
				tt.change(to)
			}
			by := tt.key
			if by == (sig.PrivateKey{}) {
				by = key
			}
			next, err := job.SignNext(by, id, first, to)
			if err != nil {
				t.Fatal(err)
			}
			if tt.spoil != nil {
				tt.spoil(next)
			}
			err = job.VerifyNext(id, first, next, sig.KeySet{})
			var field *job.FieldError
			if !errors.Is(err, tt.want) || errors.As(err, &field) && field.Field != tt.field {
				t.Errorf("VerifyNext = %v, want %v of %q", err, tt.want, tt.field)
			}
		})
	}
	once, id, err := job.Sign(key, spec(key))
	if err != nil {
		t.Fatal(err)
	}
	next, err := job.SignNext(key, id, once, spec(key))
	if err != nil {
		t.Fatal(err)
	}
	if err := job.VerifyNext(id, once, next, sig.KeySet{}); !errors.Is(err, job.ErrNotBuilt) {
		t.Errorf("a job that runs once: %v, want refused by name", err)
	}
}

func TestVerifyNewest(t *testing.T) {
	key, other := testKey(1), testKey(2)
	s := spec(key)
	always(s)
	first, id, err := job.Sign(key, s)
	if err != nil {
		t.Fatal(err)
	}
	next := func(key sig.PrivateKey, change func(*jobv1.JobSpec)) *jobv1.SignedRevision {
		spec := proto.CloneOf(s)
		change(spec)
		signed, err := job.SignNext(key, id, first, spec)
		if err != nil {
			t.Fatal(err)
		}
		return signed
	}
	program := next(key, func(s *jobv1.JobSpec) { s.Args = []string{"x"} })
	more := next(key, func(s *jobv1.JobSpec) { s.Replicas = 5 })
	foreign := proto.CloneOf(first)
	foreign.Revision.Spec.Name = "other"
	unsigned := proto.CloneOf(first)
	unsigned.Signature = next(other, func(*jobv1.JobSpec) {}).Signature
	otherJob := proto.CloneOf(more)
	otherJob.Revision.Job[0] ^= 1
	for name, tt := range map[string]struct {
		first, newest *jobv1.SignedRevision
		want          error
	}{
		"the first":               {first, first, nil},
		"a later one":             {first, more, nil},
		"another first":           {foreign, more, job.ErrRevision},
		"another instead of it":   {first, foreign, job.ErrRevision},
		"another job's":           {first, otherJob, job.ErrRevision},
		"the first, badly signed": {first, unsigned, job.ErrSignature},
		"none":                    {first, nil, job.ErrRevision},
		"another's":               {first, next(other, func(*jobv1.JobSpec) {}), job.ErrSignature},
		"another program":         {first, program, job.ErrInvalid},
	} {
		err := job.VerifyNewest(id, tt.first, tt.newest, sig.SingleKey(key.Public()))
		if !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
}
