package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/cli/jobrun"
	"github.com/united-containers/ucn/cli/screen"
)

// errands is where jobs on their way are remembered.
func (a *app) errands() jobrun.Folder {
	return jobrun.Folder(filepath.Join(a.data(), "errands"))
}

// resuming are the flags of job resume.
type resuming struct {
	list, forget, noOutputs bool
	secrets, auth           []string
}

func (a *app) jobResume() *cobra.Command {
	o := resuming{}
	cmd := &cobra.Command{
		Use: "resume [JOB]", Short: "Go on with a job whose command was killed",
		Long: `Go on with a job run that was killed, or lost its network, wherever it stood: before its
escrow was opened, before the job was queued, while it ran, or before its bill. Nothing is paid
twice: the signed job was written down before its money moved, and its escrow is found by it.

Without JOB the only interrupted job is gone on with. Secrets are never written down: give them
again.`,
		Example: "  ucn job resume --list\n  ucn job resume\n" +
			"  ucn job resume ucnj1... --secret KEY=@key.txt",
		Args: args(cobra.MaximumNArgs(1)),
	}
	follow := a.following(withKey, func(ctx context.Context, l *link, list []string) error {
		return a.resume(ctx, l, &o, list)
	})
	cmd.RunE = func(cmd *cobra.Command, list []string) error {
		switch {
		case o.list && o.forget:
			return usagef("--list and --forget do not go together")
		case o.list:
			return a.listKept()
		case o.forget:
			return a.forgetKept(list)
		}
		return follow(cmd, list)
	}
	f := cmd.Flags()
	f.BoolVar(&o.list, "list", false, "list the interrupted jobs of this machine")
	f.BoolVar(&o.forget, "forget", false, "forget JOB; an escrow of it stays: see escrow ls")
	f.BoolVar(&o.noOutputs, "no-outputs", false, "leave outputs in the network's storage")
	f.StringArrayVar(&o.secrets, "secret", nil, "NAME=value or NAME=@file, as for job run")
	f.StringArrayVar(&o.auth, "registry-auth", nil, "HOST=USER:PASSWORD, as for job run")
	return cmd
}

func (a *app) resume(ctx context.Context, l *link, o *resuming, list []string) error {
	kept, err := a.kept(list)
	if err != nil {
		return err
	}
	values, _, err := readSecrets(o.secrets)
	if err != nil {
		return usage(err)
	}
	credentials, err := readCredentials(o.auth)
	if err != nil {
		return usage(err)
	}
	r, view := a.runner(l, !o.noOutputs)
	report, err := r.Resume(ctx, kept, jobrun.Request{Secrets: values, Credentials: credentials})
	view.Close()
	return a.finished(report, err, kept.Detach)
}

// kept finds the interrupted job that is meant.
func (a *app) kept(list []string) (jobrun.Kept, error) {
	if len(list) > 0 {
		if _, err := parseJob(list[0]); err != nil {
			return jobrun.Kept{}, err
		}
		k, err := a.errands().Read(list[0])
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("no command on this machine was interrupted over %s; `ucn job attach` "+
				"follows any job of yours", list[0])
		}
		return k, err
	}
	all, _, err := a.errands().List()
	all = slices.DeleteFunc(all, func(k jobrun.Kept) bool { return k.Busy })
	switch {
	case err != nil:
		return jobrun.Kept{}, err
	case len(all) == 0:
		return jobrun.Kept{}, errors.New("no job run of this machine was interrupted")
	case len(all) > 1:
		return jobrun.Kept{}, usagef("%d jobs were interrupted: name one (ucn job resume --list)",
			len(all))
	}
	return all[0], nil
}

func (a *app) listKept() error {
	all, damaged, err := a.errands().List()
	if err != nil {
		return err
	}
	type line struct {
		Job     string `json:"job"`
		Name    string `json:"name"`
		Started uint64 `json:"started_ms"`
		State   string `json:"state"` // interrupted, busy: a command works on it, or damaged
	}
	lines := []line{}
	for _, k := range all {
		state := "interrupted"
		if k.Busy {
			state = "busy"
		}
		lines = append(lines, line{k.Job, k.Name, uint64(k.Started.UnixMilli()), state})
	}
	for _, name := range damaged {
		lines = append(lines, line{Job: name, State: "damaged"})
	}
	return a.emit(lines, func(w io.Writer) {
		if len(lines) == 0 {
			printf(w, "no job run of this machine was interrupted\n")
			return
		}
		printf(w, "STARTED\tSTATE\tNAME\tJOB\n")
		for _, l := range lines {
			printf(w, "%s\t%s\t%s\t%s\n", stamp(l.Started), l.State, screen.Clean(l.Name),
				screen.Clean(l.Job))
		}
	})
}

func (a *app) forgetKept(list []string) error {
	if len(list) == 0 {
		return usagef("--forget needs a job")
	}
	id, err := parseJob(list[0])
	if err != nil {
		return err
	}
	return a.errands().Drop(job.ID(id))
}
