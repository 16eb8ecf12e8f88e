// Package unclosed remembers escrows of jobs that a command had to leave open, each in a file of
// its own, so that a later command of the same wallet closes them.
//
// What it remembers is a reminder and no record: an escrow that is forgotten loses no money, and
// one that is remembered wrongly is not on the chain. It holds no secrets.
package unclosed

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/united-containers/ucn/kit/durable"
	"github.com/united-containers/ucn/kit/id"
)

// Max is how many escrows a folder remembers.
const Max = 1000

// Errors of a folder.
var (
	ErrFull = errors.New("too many escrows wait to be closed: see `ucn escrow ls`")
	ErrBusy = errors.New("another command closes escrows")
)

// Escrow is one that waits to be closed. Ids are bech32, the anchor hexadecimal.
type Escrow struct {
	Escrow  string `json:"escrow"`
	Job     string `json:"job"`
	Name    string `json:"name"`
	Chain   string `json:"chain"`
	Anchor  string `json:"anchor"`
	Account string `json:"account"`
	// NotBefore is when it is worth trying, ms of the chain's time.
	NotBefore uint64 `json:"not_before_ms"`
	// Ended: its job is known to have ended.
	Ended bool `json:"ended"`
}

// Folder is where they are.
type Folder string

const suffix = ".json"

func (f Folder) file(escrow string) string { return filepath.Join(string(f), escrow+suffix) }

// Keep remembers an escrow, or what is new of it. Errors: ErrFull.
func (f Folder) Keep(e Escrow) error {
	if _, err := id.ParseBech32(id.Escrow, e.Escrow); err != nil {
		return fmt.Errorf("remember an escrow: %w", err)
	}
	raw, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("remember an escrow: %w", err)
	}
	if err := os.MkdirAll(string(f), 0o700); err != nil {
		return fmt.Errorf("remember an escrow: %w", err)
	}
	names, err := f.names()
	if err != nil {
		return err
	}
	if len(names) >= Max && !slices.Contains(names, e.Escrow) {
		return ErrFull
	}
	return durable.Replace(f.file(e.Escrow), raw, durable.Private)
}

// Drop forgets an escrow; one that is not known is no error.
func (f Folder) Drop(escrow string) error {
	err := os.Remove(f.file(escrow))
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
		name, ok := strings.CutSuffix(e.Name(), suffix)
		if _, wrong := id.ParseBech32(id.Escrow, name); ok && wrong == nil {
			names = append(names, name)
		}
	}
	return names, err
}

// List returns what is remembered, that first which is worth trying first. A file that cannot be
// understood is removed: it is a reminder only.
func (f Folder) List() ([]Escrow, error) {
	names, err := f.names()
	if err != nil {
		return nil, fmt.Errorf("read the escrows to close: %w", err)
	}
	var list []Escrow
	for _, name := range names {
		raw, err := os.ReadFile(f.file(name))
		var e Escrow
		switch {
		case errors.Is(err, fs.ErrNotExist): // another command closed it
		case err != nil:
			return nil, fmt.Errorf("read the escrows to close: %w", err)
		case json.Unmarshal(raw, &e) != nil || e.Escrow != name:
			if err := f.Drop(name); err != nil {
				return nil, err
			}
		default:
			list = append(list, e)
		}
	}
	slices.SortFunc(list, func(a, b Escrow) int {
		return cmp.Or(cmp.Compare(a.NotBefore, b.NotBefore), cmp.Compare(a.Escrow, b.Escrow))
	})
	return list, nil
}

// Lock makes this process the one that closes, until release is called or the process ends, so that
// two commands do not pay for closing the same. Errors: ErrBusy; fs.ErrNotExist when nothing was
// ever remembered.
func (f Folder) Lock() (release func(), err error) {
	dir, err := os.Open(string(f))
	if err != nil {
		return nil, fmt.Errorf("lock the escrows to close: %w", err)
	}
	if err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(ErrBusy, dir.Close())
	}
	return func() { _ = dir.Close() }, nil // closing lets go; there is nothing to lose
}
