package podman

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/united-containers/ucn/services/executor"
)

// attempt is the directory of one attempt, which holds what outlives the executor:
//
//	attempt.json  record: written first, before anything is made
//	started       id of the boot it was started in: on disk before the start
//	stop          there if Stop or Kill was asked: written before the first signal
//	exit.json     executor.Exit: written once it is known
//	log/          conmon's log, and which turn of it is which
//	volume/N      mount N of the spec; volume/N.img its image, if it has one
type attempt string

// record is what Create decided.
type record struct {
	Executor string                 `json:"executor"`
	Spec     executor.ContainerSpec `json:"spec"`
	Hash     string                 `json:"hash"` // of the spec
	FirstID  uint32                 `json:"first_id"`
	Created  time.Time              `json:"created"`
}

func specHash(s *executor.ContainerSpec) (string, error) {
	b, err := json.Marshal(s) // struct order is fixed, maps are sorted
	if err != nil {
		return "", fmt.Errorf("hashing the spec: %w", err)
	}
	return fmt.Sprintf("%x", sha256.Sum256(b)), nil
}

func (a attempt) path(elem ...string) string {
	return filepath.Join(append([]string{string(a)}, elem...)...)
}

func (a attempt) logDir() string  { return a.path("log") }
func (a attempt) logFile() string { return a.path("log", "ctr.log") }

// read decodes the file into v. A file that is not there is ok = false, and so is one that a loss
// of power left empty: then everything of the attempt counts as lost.
func (a attempt) read(name string, v any) (ok bool, err error) {
	b, err := os.ReadFile(a.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("reading %s of the attempt: %w", name, err)
	}
	return json.Unmarshal(b, v) == nil, nil
}

func (a attempt) write(name string, v any) error {
	b, err := json.Marshal(v)
	if err == nil {
		err = writeWhole(a.path(name), b, 0o600)
	}
	if err != nil {
		return fmt.Errorf("writing %s of the attempt: %w", name, err)
	}
	return nil
}

// writeSynced is write that outlives a loss of power: what is done next must not be done again.
func (a attempt) writeSynced(name string, v any) error {
	if err := a.write(name, v); err != nil {
		return err
	}
	for _, path := range []string{a.path(name), a.path()} {
		if err := syncPath(path); err != nil {
			return fmt.Errorf("writing %s of the attempt: %w", name, err)
		}
	}
	return nil
}

func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// mark writes the marker if it is not there yet.
func (a attempt) mark(name string) error {
	if a.marked(name) {
		return nil
	}
	return a.write(name, time.Now().UTC())
}

func (a attempt) marked(name string) bool { return exists(a.path(name)) }

// exit returns the exit that was recorded.
func (a attempt) exit() (e executor.Exit, ok bool, err error) {
	ok, err = a.read("exit.json", &e)
	return e, ok, err
}

// markIfThere marks an attempt whose directory exists.
func (a attempt) markIfThere(name string) error {
	if !exists(string(a)) {
		return nil
	}
	return a.mark(name)
}
