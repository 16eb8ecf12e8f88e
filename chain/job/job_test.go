package job_test

import (
	"errors"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/chain/sig"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
)

const (
	imageCID = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"
	fileCID  = "bafkr4ihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"
)

func testKey(seed byte) sig.PrivateKey { return sig.FromSeed([32]byte{seed}) }

func spec(owner sig.PrivateKey) *jobv1.JobSpec {
	id := sig.AccountOfKey(owner.Public())
	return &jobv1.JobSpec{
		Owner: id[:], Chain: "main", Nonce: make([]byte, 16), Name: "render-1",
		Image:     &jobv1.Image{Cid: imageCID},
		Args:      []string{"-width", "64"},
		Env:       []*jobv1.EnvVar{{Name: "A", Value: "1"}, {Name: "B", Value: "2"}},
		Resources: &jobv1.Resources{CpuMilli: 1000, Memory: 64 << 20, Disk: 4 << 20},
		Inputs:    []*jobv1.Input{{Cid: fileCID, Path: "/in/scene"}},
		Outputs:   []*jobv1.Output{{Path: "/out"}},
		Payment:   &jobv1.Payment{MaxTotal: 1_000_000_000},
	}
}

func TestSignVerify(t *testing.T) {
	key := testKey(1)
	signed, id, err := job.Sign(key, spec(key))
	if err != nil {
		t.Fatal(err)
	}
	for name, held := range map[string]sig.KeySet{
		"no set on the chain": {}, "set on the chain": sig.SingleKey(key.Public()),
	} {
		got, err := job.Verify(signed, held)
		if err != nil || got != id {
			t.Errorf("%s: Verify = %x, %v, want %x", name, got, err, id)
		}
	}
	rotated := sig.SingleKey(testKey(2).Public())
	if _, err := job.Verify(signed, rotated); !errors.Is(err, job.ErrSignature) {
		t.Errorf("after a rotation to another key: %v, want ErrSignature", err)
	}
	if _, _, err := job.Sign(testKey(2), spec(key)); !errors.Is(err, job.ErrSignature) {
		t.Errorf("another's key: %v, want ErrSignature", err)
	}
}

func TestVerifyRefuses(t *testing.T) {
	key := testKey(1)
	tests := map[string]func(s *jobv1.SignedRevision){
		"changed spec":     func(s *jobv1.SignedRevision) { s.Revision.Spec.Name = "other" },
		"no spec":          func(s *jobv1.SignedRevision) { s.Revision.Spec = nil },
		"second revision":  func(s *jobv1.SignedRevision) { s.Revision.Number = 2 },
		"names a job":      func(s *jobv1.SignedRevision) { s.Revision.Job = make([]byte, 32) },
		"short owner":      func(s *jobv1.SignedRevision) { s.Revision.Spec.Owner = []byte{1} },
		"no signature":     func(s *jobv1.SignedRevision) { s.Signature = nil },
		"another's owner":  func(s *jobv1.SignedRevision) { s.Revision.Spec.Owner[0] ^= 1 },
		"broken signature": func(s *jobv1.SignedRevision) { s.Signature.Signatures[0].Signature[5] ^= 1 },
	}
	for name, spoil := range tests {
		t.Run(name, func(t *testing.T) {
			signed, _, err := job.Sign(key, spec(key))
			if err != nil {
				t.Fatal(err)
			}
			spoil(signed)
			if id, err := job.Verify(signed, sig.KeySet{}); err == nil {
				t.Errorf("Verify = %x, want an error", id)
			}
		})
	}
}

func TestCheck(t *testing.T) {
	if err := job.Check(spec(testKey(1))); err != nil {
		t.Fatalf("a good spec: %v", err)
	}
	long := strings.Repeat("a", job.MaxText+1)
	many := func(n int) []string { return make([]string, n) }
	tests := []struct {
		field string
		kind  error
		spoil func(s *jobv1.JobSpec)
	}{
		{"owner", job.ErrInvalid, func(s *jobv1.JobSpec) { s.Owner = s.Owner[1:] }},
		{"chain", job.ErrInvalid, func(s *jobv1.JobSpec) { s.Chain = "" }},
		{"nonce", job.ErrInvalid, func(s *jobv1.JobSpec) { s.Nonce = nil }},
		{"name", job.ErrInvalid, func(s *jobv1.JobSpec) { s.Name = "-a" }},
		{"name", job.ErrInvalid, func(s *jobv1.JobSpec) { s.Name = strings.Repeat("a", 64) }},
		{"image.cid", job.ErrInvalid, func(s *jobv1.JobSpec) { s.Image = nil }},
		{"image.cid", job.ErrInvalid, func(s *jobv1.JobSpec) { s.Image.Cid = fileCID }},
		{"image.reference", job.ErrInvalid, func(s *jobv1.JobSpec) { s.Image.Reference = "a:b" }},
		{"image.digest", job.ErrInvalid, func(s *jobv1.JobSpec) { s.Image.Digest = digest }},
		{"image.digest", job.ErrInvalid, func(s *jobv1.JobSpec) { s.Image = pinned("a:b", "") }},
		{"image.digest", job.ErrInvalid, func(s *jobv1.JobSpec) {
			s.Image = pinned("a:b", strings.ToUpper(digest))
		}},
		{"image.reference", job.ErrInvalid, func(s *jobv1.JobSpec) {
			s.Image = pinned("a b", digest)
		}},
		{"image.reference", job.ErrInvalid, func(s *jobv1.JobSpec) {
			s.Image = pinned(strings.Repeat("a", job.MaxReference+1), digest)
		}},
		{"command", job.ErrInvalid, func(s *jobv1.JobSpec) { s.Command = many(257) }},
		{"args", job.ErrInvalid, func(s *jobv1.JobSpec) { s.Args = []string{"a\x00"} }},
		{"command", job.ErrInvalid, func(s *jobv1.JobSpec) { s.Args = []string{long} }},
		{"env", job.ErrInvalid, func(s *jobv1.JobSpec) { s.Env[1].Name = "A" }},
		{"env", job.ErrInvalid, func(s *jobv1.JobSpec) { s.Env[0].Name = "A=" }},
		{"secrets", job.ErrInvalid, func(s *jobv1.JobSpec) { s.Secrets = []string{"B", "A"} }},
		{"resources", job.ErrInvalid, func(s *jobv1.JobSpec) { s.Resources = nil }},
		{"resources.cpu_milli", job.ErrInvalid, func(s *jobv1.JobSpec) { s.Resources.CpuMilli = 9 }},
		{"resources.memory", job.ErrInvalid, func(s *jobv1.JobSpec) { s.Resources.Memory = 1 }},
		{"resources.disk", job.ErrInvalid, func(s *jobv1.JobSpec) { s.Resources.Disk-- }},
		{"resources.network", job.ErrNotBuilt, func(s *jobv1.JobSpec) { s.Resources.Network = 1 }},
		{"inputs.cid", job.ErrInvalid, func(s *jobv1.JobSpec) { s.Inputs[0].Cid = "Qm" }},
		{"inputs.path", job.ErrInvalid, func(s *jobv1.JobSpec) { s.Inputs[0].Path = "/in/../etc" }},
		{"outputs.path", job.ErrInvalid, func(s *jobv1.JobSpec) { s.Outputs[0].Path = "/proc/1" }},
		{"outputs.path", job.ErrInvalid, func(s *jobv1.JobSpec) { s.Outputs[0].Path = "/in/scene" }},
		{"payment.max_total", job.ErrInvalid, func(s *jobv1.JobSpec) { s.Payment = nil }},
		{"payment.holdback", job.ErrInvalid, func(s *jobv1.JobSpec) {
			s.Payment.Holdback = s.Payment.MaxTotal + 1
		}},
		{"payment.holdback", job.ErrInvalid, func(s *jobv1.JobSpec) {
			s.Payment.Holdback, s.Replicas = s.Payment.MaxTotal/2, 3
		}},
		{"payment.holdback", job.ErrInvalid, func(s *jobv1.JobSpec) {
			s.Payment.Holdback, s.Array = s.Payment.MaxTotal/3, &jobv1.Array{Count: 50, Parallel: 4}
		}},
		{"payment.max_notice_ms", job.ErrInvalid, func(s *jobv1.JobSpec) {
			s.Payment.MaxNoticeMs = 60_001
		}},
		{"limits.retries", job.ErrInvalid, func(s *jobv1.JobSpec) {
			s.Limits = &jobv1.Limits{Retries: 101}
		}},
		{"placement.operators", job.ErrInvalid, func(s *jobv1.JobSpec) {
			s.Placement = &jobv1.Placement{OperatorsDeny: [][]byte{{1}}}
		}},
		{"volumes", job.ErrNotBuilt, func(s *jobv1.JobSpec) { s.Volumes = []*jobv1.Volume{{}} }},
		{"ports", job.ErrNotBuilt, func(s *jobv1.JobSpec) { s.Ports = []*jobv1.Port{{}} }},
		{"health", job.ErrNotBuilt, func(s *jobv1.JobSpec) { s.Health = &jobv1.Health{} }},
		{"trigger.cron", job.ErrNotBuilt, func(s *jobv1.JobSpec) {
			s.Trigger = &jobv1.Trigger{Kind: &jobv1.Trigger_Cron{Cron: &jobv1.Cron{}}}
		}},
		{"verify", job.ErrNotBuilt, func(s *jobv1.JobSpec) { s.Verify = &jobv1.Verify{} }},
		{"capabilities", job.ErrNotBuilt, func(s *jobv1.JobSpec) { s.Capabilities = []string{"x"} }},
		{"budget", job.ErrNotBuilt, func(s *jobv1.JobSpec) { s.Budget = &jobv1.Budget{} }},
		{"egress", job.ErrNotBuilt, func(s *jobv1.JobSpec) { s.Egress = jobv1.Egress_EGRESS_INTERNET }},
		{"egress", job.ErrNotBuilt, func(s *jobv1.JobSpec) { s.Egress = -1 }},
		{"isolation", job.ErrNotBuilt, func(s *jobv1.JobSpec) { s.Isolation = -1 }},
		{"wake", job.ErrNotBuilt, func(s *jobv1.JobSpec) { s.Wake = &jobv1.Wake{} }},
		{"pause_marker", job.ErrNotBuilt, func(s *jobv1.JobSpec) { s.PauseMarker = "x" }},
		{"keeper", job.ErrNotBuilt, func(s *jobv1.JobSpec) { s.Keeper = []byte{1} }},
		{"devices", job.ErrNotBuilt, func(s *jobv1.JobSpec) { s.Devices = []*jobv1.Device{{}} }},
	}
	for _, tt := range tests {
		t.Run(tt.field, func(t *testing.T) {
			s := proto.Clone(spec(testKey(1))).(*jobv1.JobSpec)
			tt.spoil(s)
			err := job.Check(s)
			var field *job.FieldError
			if !errors.As(err, &field) || field.Field != tt.field || !errors.Is(err, tt.kind) {
				t.Errorf("Check = %v, want field %s, kind %v", err, tt.field, tt.kind)
			}
		})
	}
}

const digest = "sha256:0000000000000000000000000000000000000000000000000000000000000001"

func pinned(reference, digest string) *jobv1.Image {
	return &jobv1.Image{Reference: reference, Digest: digest}
}

func TestImageByReference(t *testing.T) {
	m := pinned("registry.example.org/a/b:1", digest)
	c := job.ImageCID(m)
	if c != "bafkreiaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaae" {
		t.Errorf("the image is %s", c)
	}
	s := spec(testKey(1))
	s.Image = m
	if err := job.Check(s); err != nil {
		t.Error(err)
	}
}
