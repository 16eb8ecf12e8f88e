package job

import (
	"encoding/base32"
	"fmt"
	"path"
	"strings"
	"unicode/utf8"

	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
)

// Bounds of a specification.
const (
	MaxName      = 63
	MaxArguments = 256      // entries of command, args or env, each
	MaxText      = 64 << 10 // bytes of command, args and env together
	MaxSecrets   = 64
	MaxPaths     = 64 // inputs, outputs, each
	MaxPath      = 1024
	MaxPlaces    = 64 // platforms, operators, labels, each
	MinCPUMilli  = 10
	MaxCPUMilli  = 1_024_000
	MinMemory    = 4 << 20
	MaxMemory    = 16 << 40
	MaxDisk      = 64 << 40
	// MinOutput is the disk that each output needs: half of the disk is the writable root, the
	// other half is shared by the outputs.
	MinOutput    = 4 << 20
	MaxRunTimeMS = 366 * 24 * 3600 * 1000
	MaxRetries   = 100
	MaxBackoffMS = 5 * 60 * 1000
	// MaxLanes bounds replicas, and an array's tasks at the same time.
	MaxLanes        = 100
	DefaultParallel = 10
	MaxTasks        = 1_000_000
	MinLostAfterMS  = 10 * 1000
	MaxLostAfterMS  = 24 * 3600 * 1000
	// MaxNoticeMS bounds the notice that an owner may agree to: it is paid for without use.
	MaxNoticeMS = 60 * 1000
)

// A CID's prefix: version 1, raw bytes, and the hash function with a digest of 32 bytes.
const (
	cidBytes     = 4 + 32
	codecRaw     = 0x55
	hashSHA256   = 0x12
	hashBLAKE3   = 0x1e
	digestLength = 32
)

// Check returns a *FieldError for the first field of the spec that is malformed, out of bounds or
// not served yet; nil when the job can be queued.
func Check(s *jobv1.JobSpec) error {
	if s == nil {
		return invalid("spec", "is missing")
	}
	checks := []func(*jobv1.JobSpec) error{
		checkIdentity, checkProgram, checkNames, checkResources, checkFiles, checkPlacement,
		checkMoney, checkLimits, checkLanes, checkNotBuilt,
	}
	for _, check := range checks {
		if err := check(s); err != nil {
			return err
		}
	}
	return nil
}

func invalid(field, format string, args ...any) error {
	return &FieldError{Field: field, Problem: fmt.Sprintf(format, args...), Kind: ErrInvalid}
}

func checkIdentity(s *jobv1.JobSpec) error {
	switch {
	case len(s.GetOwner()) != 32:
		return invalid("owner", "must be an account id of 32 bytes")
	case s.GetChain() == "" || len(s.GetChain()) > 36:
		return invalid("chain", `must be "main" or a side chain's UUID`)
	case len(s.GetNonce()) != 16:
		return invalid("nonce", "must be 16 random bytes, has %d", len(s.GetNonce()))
	case !validName(s.GetName(), MaxName):
		return invalid("name", "must be 1 to %d of a-z, 0-9 and inner dashes", MaxName)
	}
	return nil
}

func validName(s string, most int) bool {
	if s == "" || len(s) > most || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

func checkProgram(s *jobv1.JobSpec) error {
	if err := checkImage(s.GetImage()); err != nil {
		return err
	}
	text := 0
	for i, list := range [][]string{s.GetCommand(), s.GetArgs()} {
		field := [...]string{"command", "args"}[i]
		if len(list) > MaxArguments {
			return invalid(field, "has %d entries, at most %d", len(list), MaxArguments)
		}
		for _, entry := range list {
			if strings.ContainsRune(entry, 0) {
				return invalid(field, "holds a zero byte")
			}
			text += len(entry)
		}
	}
	for _, env := range s.GetEnv() {
		text += len(env.GetName()) + len(env.GetValue())
	}
	if text > MaxText {
		return invalid("command", "command, args and env have %d bytes, at most %d", text, MaxText)
	}
	return nil
}

func checkNames(s *jobv1.JobSpec) error {
	if len(s.GetEnv()) > MaxArguments {
		return invalid("env", "has %d entries, at most %d", len(s.GetEnv()), MaxArguments)
	}
	last := ""
	for _, env := range s.GetEnv() {
		if !validVariable(env.GetName()) {
			return invalid("env", "%.40q is not a name of letters, digits and _", env.GetName())
		}
		if env.GetName() <= last {
			return invalid("env", "must ascend by name, without repeats; see %.40q", env.GetName())
		}
		if strings.ContainsRune(env.GetValue(), 0) {
			return invalid("env", "the value of %.40q holds a zero byte", env.GetName())
		}
		last = env.GetName()
	}
	if len(s.GetSecrets()) > MaxSecrets {
		return invalid("secrets", "has %d names, at most %d", len(s.GetSecrets()), MaxSecrets)
	}
	last = ""
	for _, name := range s.GetSecrets() {
		if !validVariable(name) || name <= last {
			return invalid("secrets", "names are letters, digits and _, ascending; see %.40q", name)
		}
		last = name
	}
	return nil
}

func validVariable(s string) bool {
	if s == "" || len(s) > 256 || s[0] >= '0' && s[0] <= '9' {
		return false
	}
	for _, c := range []byte(s) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (c < '0' || c > '9') && c != '_' {
			return false
		}
	}
	return true
}

func checkResources(s *jobv1.JobSpec) error {
	r := s.GetResources()
	switch {
	case r == nil:
		return invalid("resources", "is missing")
	case r.GetCpuMilli() < MinCPUMilli || r.GetCpuMilli() > MaxCPUMilli:
		return invalid("resources.cpu_milli", "is %d, must be %d to %d",
			r.GetCpuMilli(), MinCPUMilli, MaxCPUMilli)
	case r.GetMemory() < MinMemory || r.GetMemory() > MaxMemory:
		return invalid("resources.memory", "is %d bytes, must be %d to %d",
			r.GetMemory(), uint64(MinMemory), uint64(MaxMemory))
	case r.GetDisk() > MaxDisk:
		return invalid("resources.disk", "is %d bytes, at most %d", r.GetDisk(), uint64(MaxDisk))
	case r.GetNetwork() != 0:
		return notBuilt("resources.network", "containers have no network yet")
	}
	return nil
}

func checkFiles(s *jobv1.JobSpec) error {
	if len(s.GetInputs()) > MaxPaths {
		return invalid("inputs", "has %d entries, at most %d", len(s.GetInputs()), MaxPaths)
	}
	if len(s.GetOutputs()) > MaxPaths {
		return invalid("outputs", "has %d entries, at most %d", len(s.GetOutputs()), MaxPaths)
	}
	if need := uint64(len(s.GetOutputs()) * MinOutput); s.GetResources().GetDisk() < need {
		return invalid("resources.disk", "is %d bytes, %d outputs need at least %d",
			s.GetResources().GetDisk(), len(s.GetOutputs()), need)
	}
	seen := map[string]bool{}
	for _, in := range s.GetInputs() {
		if !validCID(in.GetCid(), hashBLAKE3) &&
			!validCID(in.GetCid(), hashSHA256) {
			return invalid("inputs.cid", "%.80q is not a CIDv1 of a file", in.GetCid())
		}
		if err := checkPath("inputs.path", in.GetPath(), seen); err != nil {
			return err
		}
	}
	for _, out := range s.GetOutputs() {
		if err := checkPath("outputs.path", out.GetPath(), seen); err != nil {
			return err
		}
	}
	return nil
}

func checkPath(field, p string, seen map[string]bool) error {
	switch {
	case !path.IsAbs(p) || path.Clean(p) != p || p == "/" || len(p) > MaxPath:
		return invalid(field, "%.80q is not a clean absolute path below /", p)
	case !utf8.ValidString(p) || strings.ContainsFunc(p, unfitInPath):
		return invalid(field, "%.80q holds control characters, a colon or a comma", p)
	case p == "/proc" || p == "/sys" || p == "/dev" || p == "/ucn" ||
		strings.HasPrefix(p, "/proc/") || strings.HasPrefix(p, "/sys/") ||
		strings.HasPrefix(p, "/dev/") || strings.HasPrefix(p, "/ucn/"):
		return invalid(field, "%.80q lies in a system directory", p)
	case seen[p]:
		return invalid(field, "%.80q is named twice", p)
	}
	seen[p] = true
	return nil
}

func unfitInPath(r rune) bool { return r < ' ' || r == ':' || r == ',' }

// validCID tells whether s is CIDv1, raw codec, in lower-case base32, with the hash given.
func validCID(s string, hash byte) bool {
	const prefix = "b"
	digits, ok := strings.CutPrefix(s, prefix)
	if !ok || digits != strings.ToLower(digits) || len(digits) > 64 {
		return false
	}
	raw, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(strings.ToUpper(digits))
	return err == nil && len(raw) == cidBytes &&
		raw[0] == 1 && raw[1] == codecRaw && raw[2] == hash && raw[3] == digestLength
}

func checkPlacement(s *jobv1.JobSpec) error {
	p := s.GetPlacement()
	if len(p.GetPlatforms()) > MaxPlaces || len(p.GetLabels()) > MaxPlaces ||
		len(p.GetOperatorsAllow()) > MaxPlaces || len(p.GetOperatorsDeny()) > MaxPlaces {
		return invalid("placement", "each list has at most %d entries", MaxPlaces)
	}
	for _, platform := range p.GetPlatforms() {
		if platform == "" || len(platform) > 64 {
			return invalid("placement.platforms", `%.64q is not like "linux/amd64"`, platform)
		}
	}
	for _, id := range append(p.GetOperatorsAllow(), p.GetOperatorsDeny()...) {
		if len(id) != 32 {
			return invalid("placement.operators", "an operator is an account id of 32 bytes")
		}
	}
	const degree = 1_000_000
	if near := p.GetNear(); near != nil {
		lat, long := near.GetLatitudeMicro(), near.GetLongitudeMicro()
		if lat < -90*degree || lat > 90*degree || long < -180*degree || long > 180*degree {
			return invalid("placement.near", "is not a place on earth")
		}
	}
	return nil
}

func checkMoney(s *jobv1.JobSpec) error {
	p := s.GetPayment()
	switch {
	case p.GetMaxTotal() == 0:
		return invalid("payment.max_total", "must say the most this job may cost, in grains")
	case p.GetHoldback() > p.GetMaxTotal()/uint64(lanes(s)):
		return invalid("payment.holdback", "%d for each of %d leases is more than max_total, %d",
			p.GetHoldback(), lanes(s), p.GetMaxTotal())
	case p.GetMaxNoticeMs() > MaxNoticeMS:
		return invalid("payment.max_notice_ms", "is %d, at most %d", p.GetMaxNoticeMs(), MaxNoticeMS)
	}
	if cap := p.GetCap(); cap != nil && cap.GetModel() == jobv1.PriceModel_PRICE_MODEL_CFPS {
		return notBuilt("payment.cap.model", "hosts sell by linear and flat prices")
	}
	return nil
}

func checkLimits(s *jobv1.JobSpec) error {
	l := s.GetLimits()
	switch {
	case l.GetRunTimeMs() > MaxRunTimeMS:
		return invalid("limits.run_time_ms", "is %d, at most %d",
			l.GetRunTimeMs(), uint64(MaxRunTimeMS))
	case l.GetRetries() > MaxRetries:
		return invalid("limits.retries", "is %d, at most %d", l.GetRetries(), MaxRetries)
	case l.GetBackoffMs() > MaxBackoffMS:
		return invalid("limits.backoff_ms", "is %d, at most %d", l.GetBackoffMs(), MaxBackoffMS)
	}
	return nil
}
