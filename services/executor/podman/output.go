package podman

import (
	"fmt"
	"io/fs"
	"os"
	"runtime"
)

// output is a directory that a stranger has filled. os.Root keeps links from leading out of it;
// what is neither file nor directory is not opened, since opening a pipe may never end.
type output struct {
	root *os.Root
	fsys fs.FS
}

// openOutput opens the directory. It is closed when the last reference is gone, as fs.FS has no
// Close: one descriptor per output that is being read.
func openOutput(dir string) (fs.FS, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("opening the output: %w", err)
	}
	o := &output{root: root, fsys: root.FS()}
	runtime.AddCleanup(o, func(r *os.Root) { _ = r.Close() }, root) // read only
	return o, nil
}

// Open implements fs.FS.
func (o *output) Open(name string) (fs.File, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	info, err := o.root.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() && !info.IsDir() {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	return o.fsys.Open(name)
}
