package oci

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

const (
	maxEntries = 10_000 // files of one archive
	maxPath    = 1024   // bytes of a path inside an archive
	maxHops    = 8      // links followed to a file
)

// files is an archive or a directory as a read-only set of files.
type files interface {
	// find returns the regular file of that name, or fs.ErrNotExist.
	find(name string) (file, error)
	// open starts reading a file that find returned.
	open(f file) (io.ReadCloser, error)
	close() error
}

// file is one file: its path in the set, or in an archive its place.
type file struct {
	name   string
	offset int64
	size   int64
}

// load reads a whole file of at most limit bytes.
func load(from files, name string, limit int64) (data []byte, err error) {
	f, err := from.find(name)
	if err != nil {
		return nil, err
	}
	if f.size > limit {
		return nil, badArchive("%s has %d bytes, at most %d", name, f.size, limit)
	}
	r, err := from.open(f)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if data, err = io.ReadAll(io.LimitReader(r, limit)); err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return data, nil
}

// has reports whether a set holds a file of that name.
func has(from files, name string) bool {
	_, err := from.find(name)
	return err == nil
}

// archive is an uncompressed tar file, indexed once.
type archive struct {
	f         *os.File
	entries   map[string]file
	links     map[string]string
	temporary string // directory to remove at the end, or ""
}

// openArchive indexes the tar at path. Nothing it says is believed: names are cleaned, places lie
// within the file, and the sum of sizes is bounded.
func openArchive(name string, maxSize int64) (_ *archive, err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	a := &archive{f: f, entries: map[string]file{}, links: map[string]string{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() > maxSize+maxEntries*2*1024 { // headers and padding come on top
		return nil, badArchive("it has %d bytes, at most %d", info.Size(), maxSize)
	}
	if err := refuseCompressed(f); err != nil {
		return nil, err
	}
	return a, a.index(info.Size())
}

func refuseCompressed(f *os.File) error {
	var magic [4]byte
	n, err := f.ReadAt(magic[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if kind := compression(magic[:n]); kind != "" {
		return badArchive("it is compressed; decompress it with %s -d first", kind)
	}
	return nil
}

// compression names the program that made bytes starting so, "" for none known.
func compression(start []byte) string {
	for kind, magic := range map[string]string{"gzip": "\x1f\x8b", "zstd": "\x28\xb5\x2f\xfd",
		"xz": "\xfd7zX", "bzip2": "BZh"} {
		if strings.HasPrefix(string(start), magic) {
			return kind
		}
	}
	return ""
}

func (a *archive) index(size int64) error {
	r := tar.NewReader(a.f)
	for n := 0; ; n++ {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return badArchive("entry %d: %v", n, err)
		}
		if n >= maxEntries {
			return badArchive("it has more than %d files", maxEntries)
		}
		// archive/tar reads whole blocks and no further, so the file stands at the entry's bytes.
		at, err := a.f.Seek(0, io.SeekCurrent)
		if err != nil {
			return err
		}
		if err := a.add(h, at, size); err != nil {
			return err
		}
	}
}

func (a *archive) add(h *tar.Header, at, size int64) error {
	name, err := cleanName(h.Name)
	if err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return nil
	case tar.TypeSymlink:
		a.links[name] = path.Join(path.Dir(name), h.Linkname)
		return nil
	case tar.TypeLink:
		a.links[name] = path.Clean(h.Linkname)
		return nil
	case tar.TypeReg:
	default:
		return badArchive("%q is of type %q; only files, directories and links are taken", name,
			h.Typeflag)
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return badArchive("%q is a sparse file", name)
		}
	}
	if _, twice := a.entries[name]; twice {
		return badArchive("%q is in it twice", name)
	}
	if h.Size < 0 || h.Size > size-at {
		return badArchive("%q has %d bytes and is cut short", name, h.Size)
	}
	a.entries[name] = file{name: name, offset: at, size: h.Size}
	return nil
}

// cleanName returns a path relative to the root of the set, and refuses what leads out of it.
func cleanName(name string) (string, error) {
	if len(name) > maxPath {
		return "", badArchive("a path of %d bytes, at most %d", len(name), maxPath)
	}
	clean := path.Clean(strings.TrimPrefix(name, "/"))
	if clean == ".." || strings.HasPrefix(clean, "../") {
		return "", badArchive("the path %q leads out of it", name)
	}
	return clean, nil
}

func (a *archive) find(name string) (file, error) {
	name, err := cleanName(name)
	if err != nil {
		return file{}, err
	}
	for range maxHops {
		if f, ok := a.entries[name]; ok {
			return f, nil
		}
		to, ok := a.links[name]
		if !ok {
			return file{}, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
		}
		name = to
	}
	return file{}, badArchive("%q is behind more than %d links", name, maxHops)
}

func (a *archive) open(f file) (io.ReadCloser, error) {
	return io.NopCloser(io.NewSectionReader(a.f, f.offset, f.size)), nil
}

func (a *archive) close() error {
	err := a.f.Close()
	if a.temporary != "" {
		err = errors.Join(err, os.RemoveAll(a.temporary))
	}
	return err
}

// directory is an OCI layout on disk. Links that lead out of it are not followed.
type directory struct{ root *os.Root }

func openDirectory(name string) (*directory, error) {
	root, err := os.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	return &directory{root}, nil
}

func (d *directory) find(name string) (file, error) {
	name, err := cleanName(name)
	if err != nil {
		return file{}, err
	}
	info, err := d.root.Stat(filepath.FromSlash(name))
	if err != nil {
		return file{}, err
	}
	if !info.Mode().IsRegular() {
		return file{}, badArchive("%s is not a regular file", name)
	}
	return file{name: name, size: info.Size()}, nil
}

func (d *directory) open(f file) (io.ReadCloser, error) {
	return d.root.Open(filepath.FromSlash(f.name))
}

func (d *directory) close() error { return d.root.Close() }
