package jobfile_test

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/cli/jobfile"
	"github.com/united-containers/ucn/kit/id"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
)

const (
	imageCID = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"
	fileCID  = "bafkr4ihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"
)

func none(string) (string, bool) { return "", false }

func TestWholeFile(t *testing.T) {
	operator := id.Bech32(id.Account, [32]byte{3})
	text := `
name: render-1
image: ` + imageCID + `
command: ["/render"]
args: [-width, "64"]
env: {B: "2", A: "1"}
secrets: [KEY, API]
resources: {cpu: 1.5, memory: 64MiB, disk: 1GiB}
inputs: [{cid: ` + fileCID + `, path: /in/scene}]
outputs: [{path: /out/picture.png, file: picture.png}]
placement:
  platforms: [linux/amd64]
  operators_allow: [` + operator + `]
  labels: {zone: north}
payment:
  {max_total: 2.5, max_rate: 3 UCN, trust: 0.000000001, max_notice: 30s, cap: {core_hour: "1.2"}}
limits: {run_time: 10m, retries: 2, backoff: 1s}
isolation: strict
`
	f, err := jobfile.Parse("job.yaml", []byte(text), none)
	if err != nil {
		t.Fatal(err)
	}
	owner := sig.AccountID{1}
	got, err := f.Spec(owner, "main", [16]byte{2})
	if err != nil {
		t.Fatal(err)
	}
	const any = math.MaxUint64
	want := &jobv1.JobSpec{
		Owner: owner[:], Chain: "main", Nonce: append([]byte{2}, make([]byte, 15)...),
		Name: "render-1", Image: &jobv1.Image{Cid: imageCID}, Command: []string{"/render"},
		Args:    []string{"-width", "64"},
		Env:     []*jobv1.EnvVar{{Name: "A", Value: "1"}, {Name: "B", Value: "2"}},
		Secrets: []string{"API", "KEY"},
		Resources: &jobv1.Resources{
			CpuMilli: 1500, Memory: 64 << 20, Disk: 1 << 30,
		},
		Inputs:  []*jobv1.Input{{Cid: fileCID, Path: "/in/scene"}},
		Outputs: []*jobv1.Output{{Path: "/out/picture.png"}},
		Placement: &jobv1.Placement{
			Platforms:      []string{"linux/amd64"},
			OperatorsAllow: [][]byte{append([]byte{3}, make([]byte, 31)...)},
			Labels:         []*jobv1.Label{{Name: "zone", Value: "north"}},
		},
		Payment: &jobv1.Payment{
			MaxTotal: 2_500_000_000, MaxRate: 3_000_000_000, Trust: 1,
			MaxNoticeMs: 30_000,
			Cap: &jobv1.Prices{
				WallHour: any, CoreHour: 1_200_000_000, MemoryGibHour: any, GibIn: any,
				GibOut: any, DiskGibHour: any, Run: any,
			},
		},
		Limits:    &jobv1.Limits{RunTimeMs: 600_000, Retries: 2, BackoffMs: 1_000},
		Isolation: jobv1.Isolation_ISOLATION_STRICT,
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
}

func TestRefusedByName(t *testing.T) {
	good := "image: " + imageCID + "\n"
	tests := map[string]struct{ text, want string }{
		"not served yet": {good + "ports: [{number: 80}]\n", "ports"},
		"mistyped":       {good + "resources: {cpus: 1}\n", "resources.cpus"},
		"bad size":       {good + "resources: {memory: 64 elephants}\n", "resources.memory"},
		"bad cores":      {good + "resources: {cpu: much}\n", "resources.cpu"},
		"bad amount":     {good + "payment: {max_total: -1}\n", "payment.max_total"},
		"too fine":       {good + "payment: {max_total: 0.0000000001}\n", "payment.max_total"},
		"bad duration":   {good + "limits: {run_time: 10}\n", "limits.run_time"},
		"twice":          {good + good, "image"},
		"not yaml":       {"{", "job.yaml"},
	}
	for name, test := range tests {
		_, err := jobfile.Parse("job.yaml", []byte(test.text), none)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v does not name %q", name, err, test.want)
		}
	}
}

func TestSpecRefuses(t *testing.T) {
	tests := map[string]struct {
		spoil func(*jobfile.File)
		want  error
	}{
		"no image":      {func(f *jobfile.File) { f.Image = "" }, jobfile.ErrInvalid},
		"no such class": {func(f *jobfile.File) { f.Isolation = "loose" }, jobfile.ErrInvalid},
		"operator": {func(f *jobfile.File) {
			f.Placement.OperatorsDeny = []string{"ucn1x"}
		}, jobfile.ErrInvalid},
		"negative": {func(f *jobfile.File) { f.Limits.RunTime = -1 }, jobfile.ErrInvalid},
		"too little": {func(f *jobfile.File) {
			f.Resources.Memory = 1
		}, job.ErrInvalid},
	}
	for name, test := range tests {
		f := jobfile.Default()
		f.Image = imageCID
		if _, err := f.Spec(sig.AccountID{1}, "main", [16]byte{}); err != nil {
			t.Fatalf("the default: %v", err)
		}
		test.spoil(&f)
		if _, err := f.Spec(sig.AccountID{1}, "main", [16]byte{}); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
}

func TestLocalName(t *testing.T) {
	f := jobfile.File{Outputs: []jobfile.Output{
		{Path: "/out/picture.png", File: "here.png"}, {Path: "/data", File: "save/"},
		{Path: "/plain"},
	}}
	for file, want := range map[string]string{
		"/out/picture.png": "here.png", "/data/a/b": "save/a/b", "/plain/x": "dl/plain/x",
		"/data/../../etc/passwd": "save/etc/passwd", "/else/../../../x": "dl/x",
		"/database": "dl/database",
	} {
		if got := f.LocalName("dl", file); got != want {
			t.Errorf("%s is saved as %s, want %s", file, got, want)
		}
	}
}

func TestCores(t *testing.T) {
	for text, want := range map[string]jobfile.Cores{
		"1": 1000, "0.5": 500, "500m": 500, "2.25": 2250, "1024": 1_024_000, "0.001": 1,
	} {
		var c jobfile.Cores
		if err := c.Set(text); err != nil || c != want {
			t.Errorf("%s = %d, %v", text, c, err)
		}
	}
	for _, bad := range []string{"", "-1", "1.2345", ".5", "1e3", "x", "m", "99999999"} {
		var c jobfile.Cores
		if err := c.Set(bad); err == nil {
			t.Errorf("%q was taken for %d", bad, c)
		}
	}
}

func TestReadSecret(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte("from a file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"A=b=c": "b=c", "A=": "", "A=@" + path: "from a file",
	} {
		name, value, err := jobfile.ReadSecret(text)
		if err != nil || name != "A" || string(value) != want {
			t.Errorf("%q: %q, %q, %v", text, name, value, err)
		}
	}
	for _, bad := range []string{"A", "=b", "A=@/no/such/file"} {
		if _, _, err := jobfile.ReadSecret(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}
