package executor

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// Labels that a container carries, for people who look at the engine.
const labelJob = "ucn.job"

// rootQuota is what a program may write outside of its outputs when its disk is all given to them.
const rootQuota = 1 << 20

// containerSpec plans the container of a question. sources are the host paths of the inputs, empty
// while they are not known; secrets fill the names that the spec lists.
func (a *Agent) containerSpec(ask *Ask, sources []string, secrets map[string]string) (
	ContainerSpec, error,
) {
	spec := &ask.Spec
	mounts, err := planMounts(spec, sources)
	if err != nil {
		return ContainerSpec{}, err
	}
	disk := spec.Resources.Disk
	for i := range mounts {
		disk -= min(disk, mounts[i].Bytes)
	}
	env := slices.Clone(spec.Env)
	for _, name := range spec.Secrets {
		env = append(env, name+"="+secrets[name])
	}
	return ContainerSpec{
		Attempt: ask.Attempt, Image: spec.Image, Command: spec.Command, Args: spec.Args, Env: env,
		Isolation: spec.Isolation, Network: NetworkNone, Mounts: mounts,
		Limits: Limits{
			CPUMilli: uint64(spec.Resources.CPUMilli), MemoryBytes: spec.Resources.Memory,
			PIDs: a.cfg.PIDs, DiskBytes: max(disk, rootQuota), LogBytes: a.cfg.LogBytes,
		},
		Labels: map[string]string{labelJob: fmt.Sprintf("%x", ask.Job[:])},
	}, nil
}

// planMounts lays inputs and outputs out. Each output's directory (see outputDir) is a writable
// mount of its own; together they take at most half of the disk, so that the root has the rest.
func planMounts(spec *JobSpec, sources []string) ([]Mount, error) {
	var mounts []Mount
	for i, in := range spec.Inputs {
		source := sources[i]
		if source == "" {
			source = "/" // not fetched yet; only the form is looked at
		}
		mounts = append(mounts, Mount{Kind: MountInput, Path: in.Path, Source: source})
	}
	dirs, err := outputDirs(spec.Outputs)
	if err != nil || len(dirs) == 0 {
		return mounts, err
	}
	quota := spec.Resources.Disk / 2 / uint64(len(dirs))
	if quota < minQuota {
		return nil, fmt.Errorf("%w: resources.disk is %d, too small for %d output directories",
			ErrInvalid, spec.Resources.Disk, len(dirs))
	}
	for _, dir := range dirs {
		mounts = append(mounts, Mount{Kind: MountOutput, Path: dir, Bytes: quota})
	}
	return mounts, nil
}

// outputDirs returns the directories that hold the outputs, ascending, none within another.
func outputDirs(outputs []string) ([]string, error) {
	var all, dirs []string
	for _, out := range outputs {
		dir, err := outputDir(out)
		if err != nil {
			return nil, err
		}
		all = append(all, dir)
	}
	slices.Sort(all)
	for _, dir := range all {
		if !slices.ContainsFunc(dirs, func(d string) bool { return within(dir, d) }) {
			dirs = append(dirs, dir)
		}
	}
	return dirs, nil
}

// outputDir returns the directory that becomes an output mount for out: out itself when it ends
// in "/" or has one element, else the directory it lies in.
func outputDir(out string) (string, error) {
	clean := path.Clean(out)
	if !path.IsAbs(out) || clean == "/" || strings.TrimSuffix(out, "/") != clean {
		return "", fmt.Errorf("%w: output %.200q is not an absolute clean path", ErrInvalid, out)
	}
	dir := clean
	if !strings.HasSuffix(out, "/") && path.Dir(clean) != "/" {
		dir = path.Dir(clean)
	}
	for _, taken := range []string{"/bin", "/etc", "/lib", "/lib64", "/sbin", "/usr"} {
		if dir == taken {
			return "", fmt.Errorf("%w: output %.200q would hide %s; write it to a directory of its own",
				ErrInvalid, out, taken)
		}
	}
	return dir, nil
}

// within tells whether p is dir or lies in it; both are clean.
func within(p, dir string) bool { return p == dir || strings.HasPrefix(p, dir+"/") }
