// Package jobfile reads job.yaml, what a person writes about a job, and makes the JobSpec that is
// signed. Names are those of the specification; sizes, times and money are written as people do:
// "64MiB", "10m", "0.5" (UCN). Anything unknown, or not served by the network yet, is refused by
// name.
package jobfile

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/cli/amount"
	"github.com/united-containers/ucn/kit/config"
	"github.com/united-containers/ucn/kit/id"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
)

// ErrInvalid is wrapped by errors about what a job file says.
var ErrInvalid = errors.New("this job cannot be")

// File is a job as a person writes it.
type File struct {
	// Name is 1 to 63 of a-z, 0-9 and dashes. Default "job".
	Name string `yaml:"name"`
	// Image is the CID that `ucn image push` printed, or a reference such as
	// "registry.example.org/team/app:1.2". May be given on the command line instead.
	Image string `yaml:"image"`
	// Digest ("sha256:...") pins a reference; without it the reference is resolved at submission.
	Digest string `yaml:"digest"`
	// Command replaces the image's entry point, Args its command.
	Command []string `yaml:"command"`
	Args    []string `yaml:"args"`
	// Env are environment variables.
	Env map[string]string `yaml:"env"`
	// Secrets are names of environment variables whose values are not in the specification; give
	// them by --secret NAME=value or NAME=@file.
	Secrets   []string  `yaml:"secrets"`
	Resources Resources `yaml:"resources"`
	Inputs    []Input   `yaml:"inputs"`
	Outputs   []Output  `yaml:"outputs"`
	Placement Placement `yaml:"placement"`
	Payment   Payment   `yaml:"payment"`
	Limits    Limits    `yaml:"limits"`
	// Isolation is "standard" (default) or "strict".
	Isolation string `yaml:"isolation"`
	// Trigger is "once" (default) or "always": kept running until the job is cancelled or not paid
	// any more.
	Trigger string `yaml:"trigger"`
	// Replicas is how many run side by side, each on a host of its own where there are enough, up
	// to 100. Default 1.
	Replicas uint32 `yaml:"replicas"`
	// Restart is when a program that ended is run again: "never", "on-failure" or "always". Default
	// "always" for an always job.
	Restart    string     `yaml:"restart"`
	Array      Array      `yaml:"array"`
	Disconnect Disconnect `yaml:"disconnect"`
}

// Array runs the program once per index; it finds its index in UCN_TASK_INDEX.
type Array struct {
	// Count of tasks, up to 1,000,000; 0 = no array.
	Count uint32 `yaml:"count"`
	// Parallel is how many run at the same time, up to 100. Default 10.
	Parallel uint32 `yaml:"parallel"`
}

// Disconnect says what becomes of a run whose host falls silent.
type Disconnect struct {
	// LostAfter is the silence after which the host counts as lost, 10s to 24h; 0 = the scheduler's.
	LostAfter time.Duration `yaml:"lost_after"`
	// Policy is "keep-replacement" (default): the lost host's program ends; "keep-original": it goes
	// on, with all it has, if its host returns within minutes, and what ran meanwhile is stopped; or
	// "best": it goes on if its host returns before a replacement is found.
	Policy string `yaml:"policy"`
}

// Resources are reserved, and the container cannot exceed them.
type Resources struct {
	// CPU in cores, such as 1, 0.5 or 500m. Default 1.
	CPU Cores `yaml:"cpu"`
	// Memory, such as 64MiB. Default 256MiB.
	Memory config.Size `yaml:"memory"`
	// Disk for the writable root and outputs together. Default 256MiB.
	Disk config.Size `yaml:"disk"`
}

// Input is a file of the network that the container sees read-only.
type Input struct {
	CID  string `yaml:"cid"`
	Path string `yaml:"path"`
}

// Output is a file or folder that is collected when the run ends.
type Output struct {
	Path string `yaml:"path"`
	// File is where it is saved here; a name of the path's last element if empty and the command
	// line does not say otherwise. A folder's files are saved below it.
	File string `yaml:"file"`
}

// Placement filters hosts.
type Placement struct {
	// Platforms such as "linux/amd64"; empty = those that the image is for, as far as they can be
	// read when the job is submitted; "any" = all.
	Platforms []string `yaml:"platforms"`
	// Operators by account (ucn1...); allow empty = any.
	OperatorsAllow []string          `yaml:"operators_allow"`
	OperatorsDeny  []string          `yaml:"operators_deny"`
	Labels         map[string]string `yaml:"labels"`
}

// AnyPlatform as the only platform places the job on hosts of all.
const AnyPlatform = "any"

// Payment bounds what the job may cost.
type Payment struct {
	// MaxTotal is the most the job may cost, lease fees included, and what its escrow holds. Default
	// 1 UCN.
	MaxTotal amount.Amount `yaml:"max_total"`
	// MaxLeaseFee is the most that the scheduler may take for each lease that it places; it tells
	// what it takes, `ucn market` shows it, and no more is granted. 0 = the default, 0.001 UCN.
	MaxLeaseFee amount.Amount `yaml:"max_lease_fee"`
	// MaxRate is the most per hour; 0 = what hosts ask today, doubled.
	MaxRate amount.Amount `yaml:"max_rate"`
	// Trust is what the host may take beyond what you acknowledged; 0 = a minute's worth.
	Trust amount.Amount `yaml:"trust"`
	// Holdback is the part of each lease that is paid once you accept the work, or a day after its
	// end unless you reject it. Hosts take a fifth of what a lease may cost at most. Default 0.
	Holdback amount.Amount `yaml:"holdback"`
	// MaxNotice is the longest notice you pay for, at most 1m: when you end a lease early its host
	// is paid that much time beside the use, if its offer says so. Default 0: hosts that want none.
	MaxNotice time.Duration `yaml:"max_notice"`
	// Cap is the highest price accepted, per unit; what is not named may cost anything.
	Cap Cap `yaml:"cap"`
}

// Cap holds prices in UCN; nil is any.
type Cap struct {
	WallHour      *amount.Amount `yaml:"wall_hour"`
	CoreHour      *amount.Amount `yaml:"core_hour"`
	MemoryGiBHour *amount.Amount `yaml:"memory_gib_hour"`
	GiBIn         *amount.Amount `yaml:"gib_in"`
	GiBOut        *amount.Amount `yaml:"gib_out"`
	DiskGiBHour   *amount.Amount `yaml:"disk_gib_hour"`
	Run           *amount.Amount `yaml:"run"`
}

// Limits end a run.
type Limits struct {
	// RunTime is the longest from start to end; 0 = until the money ends.
	RunTime time.Duration `yaml:"run_time"`
	// Retries after a failure; Backoff is the first wait between attempts.
	Retries uint32        `yaml:"retries"`
	Backoff time.Duration `yaml:"backoff"`
}

// Defaults of a job.
const (
	DefaultCores  Cores         = 1000
	DefaultMemory               = 256 * config.MiB
	DefaultDisk                 = 256 * config.MiB
	DefaultTotal  amount.Amount = 1_000_000_000
	// DefaultLeaseFee is the most that a scheduler may take for a lease.
	DefaultLeaseFee amount.Amount = 1_000_000
)

// Default returns a job with the defaults and nothing to run.
func Default() File {
	return File{
		Name:      "job",
		Resources: Resources{CPU: DefaultCores, Memory: DefaultMemory, Disk: DefaultDisk},
		Payment:   Payment{MaxTotal: DefaultTotal},
	}
}

// Load reads a job file over the defaults; "-" is not a file. ${VAR} is replaced from the
// environment.
func Load(path string) (File, error) {
	f := Default()
	if err := config.Load(path, &f); err != nil {
		return File{}, err
	}
	return f, nil
}

// Parse is Load for text; lookup answers for environment variables.
func Parse(name string, text []byte, lookup func(string) (string, bool)) (File, error) {
	f := Default()
	if err := config.Parse(name, text, lookup, &f); err != nil {
		return File{}, err
	}
	return f, nil
}

// Spec makes the specification that the owner signs and checks it. Errors wrap ErrInvalid or are a
// *job.FieldError.
func (f *File) Spec(owner sig.AccountID, chain string, nonce [16]byte) (*jobv1.JobSpec, error) {
	s := &jobv1.JobSpec{
		Owner: owner[:], Chain: chain, Nonce: nonce[:], Name: f.Name,
		Image: f.image(), Command: f.Command, Args: f.Args,
		Secrets: slices.Sorted(slices.Values(f.Secrets)),
		Resources: &jobv1.Resources{
			CpuMilli: uint32(f.Resources.CPU), Memory: uint64(f.Resources.Memory),
			Disk: uint64(f.Resources.Disk),
		},
		Payment: f.payment(),
		Limits: &jobv1.Limits{
			RunTimeMs: millis(f.Limits.RunTime), Retries: f.Limits.Retries,
			BackoffMs: millis(f.Limits.Backoff),
		},
	}
	for _, name := range slices.Sorted(maps.Keys(f.Env)) {
		s.Env = append(s.Env, &jobv1.EnvVar{Name: name, Value: f.Env[name]})
	}
	for _, in := range f.Inputs {
		s.Inputs = append(s.Inputs, &jobv1.Input{Cid: in.CID, Path: in.Path})
	}
	for _, out := range f.Outputs {
		s.Outputs = append(s.Outputs, &jobv1.Output{Path: out.Path})
	}
	if err := f.place(s); err != nil {
		return nil, err
	}
	if err := f.lanes(s); err != nil {
		return nil, err
	}
	if f.Image == "" {
		return nil, fmt.Errorf("%w: it names no image; push one with `ucn image push` and give its "+
			"CID, or a registry's reference, as an argument or as image: in the file", ErrInvalid)
	}
	if f.Limits.RunTime < 0 || f.Limits.Backoff < 0 {
		return nil, fmt.Errorf("%w: limits cannot be negative", ErrInvalid)
	}
	if err := job.Check(s); err != nil {
		return nil, err
	}
	return s, nil
}

// IsReference tells whether an image's name is a registry's reference and not a CID.
func IsReference(image string) bool {
	const cidSize = 59 // of a CIDv1 of a SHA-256 in base32
	return image != "" && (len(image) != cidSize || image[0] != 'b' ||
		strings.ContainsAny(image, "./:@"))
}

func (f *File) image() *jobv1.Image {
	if IsReference(f.Image) {
		return &jobv1.Image{Reference: f.Image, Digest: f.Digest}
	}
	return &jobv1.Image{Cid: f.Image, Digest: f.Digest}
}

// lanes says when and how often the program runs.
func (f *File) lanes(s *jobv1.JobSpec) error {
	switch f.Trigger {
	case "", "once":
	case "always":
		s.Trigger = &jobv1.Trigger{Kind: &jobv1.Trigger_Always{Always: &jobv1.Always{}}}
	default:
		return fmt.Errorf("%w: trigger %q is neither once nor always", ErrInvalid, f.Trigger)
	}
	restart, ok := named(jobv1.Restart_value, "RESTART_", f.Restart)
	if !ok {
		return fmt.Errorf("%w: restart %q is none of never, on-failure, always", ErrInvalid, f.Restart)
	}
	policy, ok := named(jobv1.DisconnectPolicy_value, "DISCONNECT_POLICY_", f.Disconnect.Policy)
	if !ok {
		return fmt.Errorf("%w: disconnect.policy %q is none of keep-original, keep-replacement, best",
			ErrInvalid, f.Disconnect.Policy)
	}
	if f.Disconnect.LostAfter < 0 {
		return fmt.Errorf("%w: disconnect.lost_after cannot be negative", ErrInvalid)
	}
	s.Restart, s.Replicas = jobv1.Restart(restart), f.Replicas
	if f.Disconnect != (Disconnect{}) {
		s.Disconnect = &jobv1.Disconnect{
			LostAfterMs: millis(f.Disconnect.LostAfter), Policy: jobv1.DisconnectPolicy(policy),
		}
	}
	if f.Array != (Array{}) {
		s.Array = &jobv1.Array{Count: f.Array.Count, Parallel: f.Array.Parallel}
	}
	return nil
}

// named reads the name of an enum's value as people write it; empty is unspecified.
func named(values map[string]int32, prefix, text string) (int32, bool) {
	if text == "" {
		return 0, true
	}
	value := values[prefix+strings.ToUpper(strings.ReplaceAll(text, "-", "_"))]
	return value, value != 0
}

func millis(d time.Duration) uint64 { return uint64(max(d.Milliseconds(), 0)) }

func (f *File) payment() *jobv1.Payment {
	p := &jobv1.Payment{
		MaxTotal: uint64(f.Payment.MaxTotal), MaxRate: uint64(f.Payment.MaxRate),
		Trust: uint64(f.Payment.Trust), Holdback: uint64(f.Payment.Holdback),
		MaxNoticeMs: millis(f.Payment.MaxNotice),
	}
	c := &f.Payment.Cap
	if *c == (Cap{}) {
		return p
	}
	p.Cap = &jobv1.Prices{
		WallHour: most(c.WallHour), CoreHour: most(c.CoreHour),
		MemoryGibHour: most(c.MemoryGiBHour), GibIn: most(c.GiBIn), GibOut: most(c.GiBOut),
		DiskGibHour: most(c.DiskGiBHour), Run: most(c.Run),
	}
	return p
}

// most is a cap, or one that nothing is above: in a cap that is given, 0 would mean free.
func most(a *amount.Amount) uint64 {
	if a == nil {
		return math.MaxUint64
	}
	return uint64(*a)
}

func (f *File) place(s *jobv1.JobSpec) error {
	switch f.Isolation {
	case "", "standard":
		s.Isolation = jobv1.Isolation_ISOLATION_STANDARD
	case "strict":
		s.Isolation = jobv1.Isolation_ISOLATION_STRICT
	default:
		return fmt.Errorf("%w: isolation %q is neither standard nor strict", ErrInvalid, f.Isolation)
	}
	p := &jobv1.Placement{}
	switch list := f.Placement.Platforms; {
	case !slices.Contains(list, AnyPlatform):
		p.Platforms = list
	case len(list) > 1:
		return fmt.Errorf("%w: placement.platforms says any, and names others beside it", ErrInvalid)
	}
	for _, name := range slices.Sorted(maps.Keys(f.Placement.Labels)) {
		p.Labels = append(p.Labels, &jobv1.Label{Name: name, Value: f.Placement.Labels[name]})
	}
	var err1, err2 error
	p.OperatorsAllow, err1 = operators("operators_allow", f.Placement.OperatorsAllow)
	p.OperatorsDeny, err2 = operators("operators_deny", f.Placement.OperatorsDeny)
	if len(p.Platforms)+len(p.Labels)+len(p.OperatorsAllow)+len(p.OperatorsDeny) > 0 {
		s.Placement = p
	}
	return errors.Join(err1, err2)
}

func operators(field string, texts []string) (list [][]byte, err error) {
	for _, text := range texts {
		account, err := id.ParseBech32(id.Account, text)
		if err != nil {
			return nil, fmt.Errorf("%w: placement.%s: %w", ErrInvalid, field, err)
		}
		list = append(list, account[:])
	}
	return list, nil
}

// LocalName returns where an output file of the container is saved: below or as File of the output
// that it belongs to, else below dir by its own name. It never leads out of those places.
func (f *File) LocalName(dir, file string) string {
	for _, out := range f.Outputs {
		inner, below := strings.CutPrefix(file, out.Path)
		if !below || inner != "" && inner[0] != '/' {
			continue
		}
		to := out.File
		if to == "" {
			to = path.Join(dir, path.Base(out.Path))
		} else if inner == "" && strings.HasSuffix(to, "/") {
			to = path.Join(to, path.Base(out.Path))
		}
		return path.Join(to, path.Clean("/"+inner))
	}
	return path.Join(dir, path.Base(path.Clean("/"+file)))
}

// Cores is CPU in thousandths of a core, written 1, 0.5 or 500m.
type Cores uint32

// UnmarshalText implements encoding.TextUnmarshaler.
func (c *Cores) UnmarshalText(text []byte) error {
	bad := fmt.Errorf("%.20q is not a number of cores such as 1, 0.5 or 500m", text)
	if milli, ok := strings.CutSuffix(string(text), "m"); ok {
		n, err := strconv.ParseUint(milli, 10, 32)
		if err != nil {
			return bad
		}
		*c = Cores(n)
		return nil
	}
	whole, decimals, point := strings.Cut(string(text), ".")
	if point && (decimals == "" || len(decimals) > 3) || whole == "" || len(whole) > 6 {
		return bad
	}
	n, err := strconv.ParseUint(whole+decimals+strings.Repeat("0", 3-len(decimals)), 10, 32)
	if err != nil {
		return bad
	}
	*c = Cores(n)
	return nil
}

// String returns the number of cores.
func (c Cores) String() string {
	if c%1000 == 0 {
		return strconv.Itoa(int(c / 1000))
	}
	return strings.TrimRight(fmt.Sprintf("%d.%03d", c/1000, c%1000), "0")
}

// MarshalText implements encoding.TextMarshaler.
func (c Cores) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// Set and Type implement pflag.Value.
func (c *Cores) Set(text string) error { return c.UnmarshalText([]byte(text)) }

// Type implements pflag.Value.
func (c *Cores) Type() string { return "cores" }

// ReadSecret returns the value of NAME=value or NAME=@file.
func ReadSecret(text string) (name string, value []byte, err error) {
	name, rest, ok := strings.Cut(text, "=")
	if !ok || name == "" {
		return "", nil, fmt.Errorf("%w: a secret is NAME=value or NAME=@file", ErrInvalid)
	}
	file, isFile := strings.CutPrefix(rest, "@")
	if !isFile {
		return name, []byte(rest), nil
	}
	value, err = config.SecretFile(file).Read()
	if errors.Is(err, os.ErrNotExist) {
		err = fmt.Errorf("secret %s: there is no file %s", name, file)
	}
	return name, value, err
}
