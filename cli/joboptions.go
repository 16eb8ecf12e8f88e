package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/united-containers/ucn/cli/amount"
	"github.com/united-containers/ucn/cli/jobfile"
	"github.com/united-containers/ucn/cli/jobrun"
	"github.com/united-containers/ucn/kit/config"
	"github.com/united-containers/ucn/kit/registry"
)

// jobOptions are the flags of job run. What is set here wins over the file.
type jobOptions struct {
	file, dir         string
	detach, noOutputs bool

	name, isolation            string
	command, env, secrets      []string
	inputs, outputs            []string
	platforms, allow, deny     []string
	labels                     []string
	cpu                        jobfile.Cores
	memory, disk               string
	maxTotal, maxRate, trust   amount.Amount
	holdback, leaseFee         amount.Amount
	capCore, capMemory, capRun amount.Amount
	capDisk, capWall           amount.Amount
	capIn, capOut              amount.Amount
	runTime, backoff, notice   time.Duration
	retries                    uint32

	trigger, restart string
	policy           string
	replicas         uint32
	array, parallel  uint32
	lostAfter        time.Duration
	auth, insecure   []string
}

// add adds the flags of job run.
func (o *jobOptions) add(cmd *cobra.Command) {
	o.addSpec(cmd)
	f := cmd.Flags()
	f.BoolVar(&o.detach, "detach", false, "return once the job is queued; the host then is trusted "+
		"with the whole budget")
	f.StringVar(&o.dir, "output-dir", ".", "folder for outputs without a place of their own")
	f.BoolVar(&o.noOutputs, "no-outputs", false, "leave outputs in the network's storage")
	f.StringArrayVar(&o.secrets, "secret", nil, "NAME=value or NAME=@file: an environment variable "+
		"that is sealed to the host and stands in no specification")
	f.StringArrayVar(&o.auth, "registry-auth", nil, "HOST=USER:PASSWORD or HOST=USER:@file for a "+
		"registry of the image; sealed to the host, never stored")
}

// addSpec adds those that say what the job is.
func (o *jobOptions) addSpec(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVarP(&o.file, "file", "f", "", "job file (YAML)")
	f.StringVar(&o.name, "name", "", "name of the job (default \"job\")")
	f.StringArrayVar(&o.command, "command", nil, "replaces the image's entry point; repeat per word")
	f.StringArrayVar(&o.env, "env", nil, "NAME=value; may be repeated")
	f.Var(&o.cpu, "cpu", "cores, such as 1, 0.5 or 500m (default 1)")
	f.StringVar(&o.memory, "memory", "", "memory, such as 64MiB (default 256MiB)")
	f.StringVar(&o.disk, "disk", "", "writable disk and outputs together (default 256MiB)")
	f.StringArrayVar(&o.inputs, "input", nil, "CID:/path that the container sees read-only")
	f.StringArrayVar(&o.outputs, "output", nil, "/path[:localfile] that is collected at the end")
	f.StringSliceVar(&o.platforms, "platform", nil, "such as linux/amd64, or any (default: "+
		"what the image is for)")
	f.StringSliceVar(&o.allow, "operator", nil, "only hosts of these operators (ucn1...)")
	f.StringSliceVar(&o.deny, "deny-operator", nil, "no hosts of these operators")
	f.StringArrayVar(&o.labels, "label", nil, "NAME=value that the host must carry")
	f.Var(&o.maxTotal, "max-total", "most the job may cost, lease fees included; its escrow "+
		"(default 1)")
	f.Var(&o.leaseFee, "max-lease-fee", "most that the scheduler may take for each lease that it "+
		"places (default 0.001)")
	f.Var(&o.maxRate, "max-rate", "most per hour (default: twice what hosts ask today)")
	f.Var(&o.trust, "trust", "what a host may take beyond what you countersigned (default: a "+
		"minute's worth)")
	f.Var(&o.holdback, "holdback", "part of each lease that is paid once you accept the work, or a "+
		"day after its end; hosts take a fifth of what a lease may cost at most")
	f.DurationVar(&o.notice, "max-notice", 0, "longest notice of a host that you pay for when you "+
		"end its lease early, up to 1m (default: only hosts that want none)")
	f.Var(&o.capCore, "max-price-core", "most per core and hour")
	f.Var(&o.capMemory, "max-price-memory", "most per GiB of memory and hour")
	f.Var(&o.capDisk, "max-price-disk", "most per GiB of disk and hour")
	f.Var(&o.capWall, "max-price-wall", "most per hour of running")
	f.Var(&o.capIn, "max-price-in", "most per GiB received")
	f.Var(&o.capOut, "max-price-out", "most per GiB sent")
	f.Var(&o.capRun, "max-price-run", "most per run")
	f.DurationVar(&o.runTime, "run-time", 0,
		"longest run, such as 10m (default: until the money ends)")
	f.Uint32Var(&o.retries, "retries", 0, "attempts after one that failed")
	f.DurationVar(&o.backoff, "backoff", 0, "first wait between attempts; it doubles")
	f.StringVar(&o.isolation, "isolation", "", "standard (default) or strict")
	o.addLanes(cmd)
}

func (o *jobOptions) addLanes(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.trigger, "trigger", "", "once (default), or always: kept running until it is "+
		"cancelled or not paid any more")
	f.Uint32Var(&o.replicas, "replicas", 0, "how many run side by side, on hosts of their own where "+
		"there are enough, up to 100")
	f.StringVar(&o.restart, "restart", "", "never, on-failure or always: when a program that ended "+
		"is run again (default always with --trigger always)")
	f.Uint32Var(&o.array, "array", 0, "run so many tasks, up to 1000000; each finds its number in "+
		"UCN_TASK_INDEX")
	f.Uint32Var(&o.parallel, "parallel", 0, "tasks of an array at the same time, up to 100 "+
		"(default 10)")
	f.DurationVar(&o.lostAfter, "lost-after", 0, "silence after which a host counts as lost, 10s to "+
		"24h (default: the scheduler's)")
	f.StringArrayVar(&o.insecure, "insecure-registry", nil, "HOST[:PORT] that is asked without TLS")
	f.StringVar(&o.policy, "disconnect", "", "what becomes of a run whose host is lost: "+
		"keep-replacement (default), keep-original (the program goes on if its host returns within "+
		"minutes, what ran meanwhile is stopped), or best (whichever is there first)")
}

func (o *jobOptions) joinLanes(cmd *cobra.Command, f *jobfile.File) error {
	set := cmd.Flags().Changed
	for flag, pair := range map[string][2]*string{
		"trigger": {&f.Trigger, &o.trigger}, "restart": {&f.Restart, &o.restart},
		"disconnect": {&f.Disconnect.Policy, &o.policy},
	} {
		if set(flag) {
			*pair[0] = *pair[1]
		}
	}
	for flag, pair := range map[string][2]*uint32{
		"replicas": {&f.Replicas, &o.replicas}, "array": {&f.Array.Count, &o.array},
		"parallel": {&f.Array.Parallel, &o.parallel},
	} {
		if set(flag) {
			*pair[0] = *pair[1]
		}
	}
	if set("lost-after") {
		f.Disconnect.LostAfter = o.lostAfter
	}
	return nil
}

// request joins file, flags and arguments.
func (o *jobOptions) request(cmd *cobra.Command, list []string) (jobrun.Request, error) {
	file := jobfile.Default()
	if o.file != "" {
		var err error
		if file, err = jobfile.Load(o.file); err != nil {
			return jobrun.Request{}, usage(err)
		}
	}
	n := positional(cmd, list)
	if n > 0 {
		file.Image = list[0]
	}
	if n < len(list) {
		file.Args = list[n:]
	}
	values, names, err := readSecrets(o.secrets)
	if err != nil {
		return jobrun.Request{}, usage(err)
	}
	for _, name := range names {
		if !slices.Contains(file.Secrets, name) {
			file.Secrets = append(file.Secrets, name)
		}
	}
	for _, join := range []func(*cobra.Command, *jobfile.File) error{
		o.joinProgram, o.joinFiles, o.joinPlaces, o.joinMoney, o.joinLanes,
	} {
		if err := join(cmd, &file); err != nil {
			return jobrun.Request{}, usage(err)
		}
	}
	credentials, err := readCredentials(o.auth)
	if err != nil {
		return jobrun.Request{}, usage(err)
	}
	return jobrun.Request{
		File: file, Secrets: values, Dir: o.dir, Detach: o.detach, Credentials: credentials,
		Insecure: o.insecure,
	}, nil
}

// readCredentials reads HOST=USER:PASSWORD texts. What is wrong with one is told without it.
func readCredentials(texts []string) (list []registry.Credential, err error) {
	if len(texts) > registry.MaxCredentials {
		return nil, fmt.Errorf("--registry-auth is given %d times, at most %d", len(texts),
			registry.MaxCredentials)
	}
	for _, text := range texts {
		host, rest, ok := strings.Cut(text, "=")
		user, password, both := strings.Cut(rest, ":")
		if !ok || !both || host == "" || user == "" || password == "" {
			return nil, errors.New("--registry-auth is HOST=USER:PASSWORD or HOST=USER:@file")
		}
		if path, isFile := strings.CutPrefix(password, "@"); isFile {
			raw, err := config.SecretFile(path).Read()
			if err != nil {
				return nil, fmt.Errorf("--registry-auth for %s: %w", host, err)
			}
			password = strings.TrimRight(string(raw), "\r\n")
		}
		list = append(list, registry.Credential{Host: host, Username: user, Password: password})
	}
	return list, nil
}

func readSecrets(texts []string) (values map[string][]byte, names []string, err error) {
	values = map[string][]byte{}
	for _, text := range texts {
		name, value, err := jobfile.ReadSecret(text)
		if err != nil {
			return nil, nil, err
		}
		if _, twice := values[name]; twice {
			return nil, nil, fmt.Errorf("secret %s is given twice", name)
		}
		values[name], names = value, append(names, name)
	}
	return values, names, nil
}

func (o *jobOptions) joinProgram(cmd *cobra.Command, f *jobfile.File) error {
	set := cmd.Flags().Changed
	if set("name") {
		f.Name = o.name
	}
	if set("command") {
		f.Command = o.command
	}
	if set("isolation") {
		f.Isolation = o.isolation
	}
	env, err := pairs("--env", o.env)
	if err != nil {
		return err
	}
	for name, value := range env {
		if f.Env == nil {
			f.Env = map[string]string{}
		}
		f.Env[name] = value
	}
	if set("cpu") {
		f.Resources.CPU = o.cpu
	}
	for _, size := range []struct {
		flag, text string
		into       *config.Size
	}{{"memory", o.memory, &f.Resources.Memory}, {"disk", o.disk, &f.Resources.Disk}} {
		if !set(size.flag) {
			continue
		}
		value, err := config.ParseSize(size.text)
		if err != nil {
			return fmt.Errorf("--%s: %w", size.flag, err)
		}
		*size.into = value
	}
	return nil
}

// pairs reads NAME=value texts.
func pairs(flag string, texts []string) (map[string]string, error) {
	list := map[string]string{}
	for _, text := range texts {
		name, value, ok := strings.Cut(text, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("%s %q is not NAME=value", flag, text)
		}
		list[name] = value
	}
	return list, nil
}

func (o *jobOptions) joinFiles(_ *cobra.Command, f *jobfile.File) error {
	for _, text := range o.inputs {
		cid, path, ok := strings.Cut(text, ":")
		if !ok {
			return fmt.Errorf("--input %q is not CID:/path", text)
		}
		f.Inputs = append(f.Inputs, jobfile.Input{CID: cid, Path: path})
	}
	for _, text := range o.outputs {
		path, local, _ := strings.Cut(text, ":")
		at := slices.IndexFunc(f.Outputs, func(out jobfile.Output) bool { return out.Path == path })
		if at < 0 {
			f.Outputs = append(f.Outputs, jobfile.Output{Path: path, File: local})
		} else {
			f.Outputs[at].File = local
		}
	}
	return nil
}

func (o *jobOptions) joinPlaces(_ *cobra.Command, f *jobfile.File) error {
	if len(o.platforms) > 0 {
		f.Placement.Platforms = o.platforms
	}
	if len(o.allow) > 0 {
		f.Placement.OperatorsAllow = o.allow
	}
	if len(o.deny) > 0 {
		f.Placement.OperatorsDeny = o.deny
	}
	labels, err := pairs("--label", o.labels)
	if len(labels) > 0 {
		f.Placement.Labels = labels
	}
	return err
}

func (o *jobOptions) joinMoney(cmd *cobra.Command, f *jobfile.File) error {
	set := cmd.Flags().Changed
	for flag, pair := range map[string][2]*amount.Amount{
		"max-total": {&f.Payment.MaxTotal, &o.maxTotal},
		"max-rate":  {&f.Payment.MaxRate, &o.maxRate}, "trust": {&f.Payment.Trust, &o.trust},
		"holdback":      {&f.Payment.Holdback, &o.holdback},
		"max-lease-fee": {&f.Payment.MaxLeaseFee, &o.leaseFee},
	} {
		if set(flag) {
			*pair[0] = *pair[1]
		}
	}
	if set("max-notice") {
		f.Payment.MaxNotice = o.notice
	}
	caps := &f.Payment.Cap
	for flag, c := range map[string]struct {
		into **amount.Amount
		from *amount.Amount
	}{
		"max-price-core":   {&caps.CoreHour, &o.capCore},
		"max-price-memory": {&caps.MemoryGiBHour, &o.capMemory},
		"max-price-disk":   {&caps.DiskGiBHour, &o.capDisk},
		"max-price-wall":   {&caps.WallHour, &o.capWall},
		"max-price-in":     {&caps.GiBIn, &o.capIn},
		"max-price-out":    {&caps.GiBOut, &o.capOut},
		"max-price-run":    {&caps.Run, &o.capRun},
	} {
		if set(flag) {
			*c.into = c.from
		}
	}
	if set("run-time") {
		f.Limits.RunTime = o.runTime
	}
	if set("retries") {
		f.Limits.Retries = o.retries
	}
	if set("backoff") {
		f.Limits.Backoff = o.backoff
	}
	return nil
}
