package jobrun

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/cli/amount"
	"github.com/united-containers/ucn/cli/jobfile"
	"github.com/united-containers/ucn/kit/durable"
	"github.com/united-containers/ucn/kit/id"
)

// MaxKept is how many jobs a folder remembers at most.
const MaxKept = 1000

// Errors of what is kept.
var (
	ErrKept     = errors.New("what was kept of the job is damaged")
	ErrBusy     = errors.New("another command works on the job")
	ErrManyKept = errors.New("too many interrupted jobs are kept: go on with them, or look for " +
		"their escrows with `ucn escrow ls`")
)

// Kept is what is written down of a job before its money moves, so that a command that was killed
// can be gone on with. It holds no secrets.
type Kept struct {
	Job      string           `json:"job"`
	Name     string           `json:"name"`
	Chain    string           `json:"chain"`
	Account  string           `json:"account"`
	Revision []byte           `json:"revision"` // canonical SignedRevision
	Outputs  []jobfile.Output `json:"outputs,omitempty"`
	Dir      string           `json:"dir"`
	Detach   bool             `json:"detach"`
	Started  time.Time        `json:"started"`
	// Before is what the wallet held before the escrow was opened; nil: not written down.
	Before *amount.Amount `json:"balance_before,omitempty"`
	// Busy: another command works on it now.
	Busy bool `json:"-"`
}

// Errands remembers the jobs of this machine that are on their way.
type Errands interface {
	// Keep returns when it would survive a power failure.
	Keep(k Kept) error
	// Hold makes a kept job this process's until release is called or the process ends. Error:
	// ErrBusy.
	Hold(id job.ID) (release func(), err error)
	// Drop forgets a job; one that is not known is no error.
	Drop(id job.ID) error
}

// Folder keeps each job in a file of its own.
type Folder string

var _ Errands = Folder("")

const keptSuffix = ".json"

func (f Folder) file(text string) string { return filepath.Join(string(f), text+keptSuffix) }

// Keep implements Errands.
func (f Folder) Keep(k Kept) error {
	raw, err := json.Marshal(k)
	if err != nil {
		return fmt.Errorf("write the job down: %w", err)
	}
	if err := f.make(); err != nil {
		return fmt.Errorf("write the job down: %w", err)
	}
	if names, err := f.names(); err != nil || len(names) >= MaxKept {
		return errors.Join(err, ErrManyKept)
	}
	if err := durable.Replace(f.file(k.Job), raw, durable.Private); err != nil {
		return fmt.Errorf("write the job down: %w", err)
	}
	return nil
}

// make makes the folder, and its name last.
func (f Folder) make() (err error) {
	if _, err := os.Stat(string(f)); err == nil {
		return nil
	}
	if err := os.MkdirAll(string(f), 0o700); err != nil {
		return err
	}
	parent, err := os.Open(filepath.Dir(string(f)))
	if err != nil {
		return err
	}
	return errors.Join(parent.Sync(), parent.Close())
}

// Hold implements Errands.
func (f Folder) Hold(id job.ID) (release func(), err error) {
	file, err := os.Open(f.file(jobText(id)))
	if err != nil {
		return nil, fmt.Errorf("hold the job: %w", err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %s", ErrBusy, jobText(id)), file.Close())
	}
	return func() { _ = file.Close() }, nil // closing lets go; there is nothing to lose
}

// Drop implements Errands.
func (f Folder) Drop(id job.ID) error {
	err := os.Remove(f.file(jobText(id)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (f Folder) names() (names []string, err error) {
	entries, err := os.ReadDir(string(f))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), keptSuffix); ok {
			names = append(names, name)
		}
	}
	return names, err
}

// List returns what is kept, oldest first, and the names of jobs of which it cannot be read.
func (f Folder) List() (list []Kept, damaged []string, err error) {
	names, err := f.names()
	if err != nil {
		return nil, nil, fmt.Errorf("read the interrupted jobs: %w", err)
	}
	for _, name := range names[:min(len(names), MaxKept)] {
		k, err := f.Read(name)
		if err != nil {
			damaged = append(damaged, name)
			continue
		}
		list = append(list, k)
	}
	slices.SortFunc(list, func(a, b Kept) int { return a.Started.Compare(b.Started) })
	return list, damaged, nil
}

// Read returns what is kept of one job. Errors: fs.ErrNotExist, ErrKept.
func (f Folder) Read(text string) (k Kept, err error) {
	named, err := id.ParseBech32(id.Job, text)
	if err != nil {
		return k, fmt.Errorf("%w: %s: %w", ErrKept, f.file(text), err)
	}
	raw, err := os.ReadFile(f.file(text))
	if err != nil {
		return k, fmt.Errorf("read an interrupted job: %w", err)
	}
	if err := json.Unmarshal(raw, &k); err != nil || k.Job != text {
		return k, fmt.Errorf("%w: %s", ErrKept, f.file(text))
	}
	release, err := f.Hold(named)
	if k.Busy = errors.Is(err, ErrBusy); err == nil {
		release()
	}
	return k, nil
}
