package executor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"path"
	"slices"
	"strings"
	"unicode/utf8"
)

const (
	maxOutputFiles = 1000      // of one attempt; more belong into an archive
	maxOutputNames = 160 << 10 // bytes of their paths and CIDs: they must fit one event
	maxOutputSeen  = 20_000    // entries of all kinds that are looked at
	maxOutputDepth = 64        // folders within folders
	maxTroubles    = 8         // told of one attempt
	maxTrouble     = 300       // bytes of each
	maxFileName    = 255       // bytes
)

// finalStore tells errors of Put that waiting does not mend.
func finalStore(err error) bool {
	for _, f := range []error{ErrFileTooBig, ErrFileMismatch, errReadOutput} {
		if errors.Is(err, f) {
			return true
		}
	}
	return false
}

// errReadOutput marks what is wrong with an output on this host, not with storage.
var errReadOutput = errors.New("the output cannot be read")

// harvest collects the outputs of one attempt, one after the other.
type harvest struct {
	t         *attempt
	container Container
	ctx       context.Context // of one call of collect
	files     []OutputFile
	bytes     uint64
	names     int // bytes
	seen      int // entries
	troubles  []string
}

// trouble notes what the owner is told. Names of files are the program's choice: they are made
// short and printable first, since an event holds text only.
func (h *harvest) trouble(format string, args ...any) {
	if len(h.troubles) < maxTroubles {
		h.troubles = append(h.troubles, clip(printable(fmt.Sprintf(format, args...)), maxTrouble))
	}
}

// outputs stores every regular file at or below the paths. Links, devices and sockets are left
// out: what a link leads to is not the job's to give away.
func (h *harvest) outputs(paths []string) {
	dirs, err := outputDirs(paths)
	if err != nil {
		h.trouble("%v", err)
		return
	}
	for _, out := range paths {
		clean := path.Clean(out)
		i := slices.IndexFunc(dirs, func(dir string) bool { return within(clean, dir) })
		if i < 0 || h.ctx.Err() != nil {
			continue
		}
		if err := h.output(dirs[i], clean); err != nil {
			h.trouble("output %s: %s", clean, describeOutput(err))
		}
	}
}

func describeOutput(err error) string {
	if errors.Is(err, fs.ErrNotExist) {
		return "was not written"
	}
	return publicOutput(err)
}

func publicOutput(err error) string {
	if errors.Is(err, errReadOutput) {
		return errReadOutput.Error()
	}
	return publicText(err)
}

func (h *harvest) output(dir, out string) error {
	files, err := h.container.Output(h.ctx, dir)
	if err != nil {
		return fmt.Errorf("%w: %w", errReadOutput, err)
	}
	name := strings.TrimPrefix(strings.TrimPrefix(out, dir), "/")
	if name == "" {
		name = "."
	}
	if info, err := fs.Lstat(files, name); err != nil {
		return err
	} else if !info.IsDir() && !info.Mode().IsRegular() {
		return fmt.Errorf("%w: it is a link or a device", errReadOutput)
	}
	if err := h.entry(files, dir, name, 0); !errors.Is(err, fs.SkipAll) {
		return err
	}
	return nil
}

// entry stores the file with that name, or those of the folder. Only what ends the whole harvest is
// returned. What a program can make is endless: depth and number of entries are bounded.
func (h *harvest) entry(files fs.FS, dir, name string, depth int) error {
	list, err := h.list(files, name)
	switch {
	case errors.Is(err, fs.SkipAll):
		return err
	case errors.Is(err, errNoFolder):
		return h.file(files, name, path.Join(dir, name))
	case err != nil:
		h.trouble("output %s: cannot be read", path.Join(dir, name))
		return nil
	}
	for _, e := range list {
		p := path.Join(name, e.Name())
		switch {
		case e.IsDir() && depth >= maxOutputDepth:
			h.trouble("output %.100s...: folders more than %d deep are not kept", path.Join(dir, p),
				maxOutputDepth)
		case e.IsDir():
			err = h.entry(files, dir, p, depth+1)
		case e.Type().IsRegular():
			err = h.file(files, p, path.Join(dir, p))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// errNoFolder says that a name is a file's.
var errNoFolder = errors.New("not a folder")

// list reads a folder, sorted, within what may still be looked at.
func (h *harvest) list(files fs.FS, name string) ([]fs.DirEntry, error) {
	f, err := files.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	if info, err := f.Stat(); err != nil || !info.IsDir() {
		return nil, errors.Join(err, errNoFolder)
	}
	folder, ok := f.(fs.ReadDirFile)
	if !ok {
		return nil, errReadOutput
	}
	list, err := folder.ReadDir(maxOutputSeen - h.seen + 1)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	h.seen += len(list)
	if h.seen > maxOutputSeen {
		h.trouble("outputs: more than %d files and folders; put them into an archive", maxOutputSeen)
		return nil, fs.SkipAll
	}
	slices.SortFunc(list, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return list, h.ctx.Err()
}

// file stores one file; only what ends the whole harvest is returned.
func (h *harvest) file(files fs.FS, name, full string) error {
	switch {
	case h.ctx.Err() != nil:
		return h.ctx.Err()
	case len(h.files) >= maxOutputFiles || h.names+len(full) > maxOutputNames:
		h.trouble("only the first %d output files are kept; put them into an archive", len(h.files))
		return fs.SkipAll
	case !utf8.ValidString(full):
		h.trouble("output %s: its name is not UTF-8", full)
		return nil
	}
	left := h.t.need.Disk - min(h.bytes, h.t.need.Disk)
	done := h.t.store(h.ctx, func(as FileAccess) (StoredFile, error) {
		return h.put(as, files, name, left)
	})
	if done.err != nil {
		h.trouble("output %s: %s", full, publicOutput(done.err))
		return nil
	}
	h.bytes = add(h.bytes, done.file.Size)
	h.names += len(full) + len(done.file.CID)
	h.files = append(h.files, OutputFile{Path: full, CID: done.file.CID, Size: done.file.Size})
	return nil
}

func (h *harvest) put(as FileAccess, files fs.FS, name string, left uint64) (StoredFile, error) {
	f, err := files.Open(name)
	if err != nil {
		return StoredFile{}, fmt.Errorf("%w: %w", errReadOutput, err)
	}
	defer func() { _ = f.Close() }() // only read
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return StoredFile{}, fmt.Errorf("%w: it changed", errReadOutput)
	}
	if uint64(max(info.Size(), 0)) > left { // a sparse one: do not read terabytes of nothing
		return StoredFile{}, ErrFileTooBig
	}
	body := &bounded{from: f, left: left}
	return h.t.agent.deps.Files.Put(h.ctx, as, fileName(name), body)
}

// fileName is what a stored file is called: printable UTF-8 of at most maxFileName bytes.
func fileName(p string) string {
	name := printable(path.Base(p))
	for len(name) > maxFileName {
		_, size := utf8.DecodeLastRuneInString(name)
		name = name[:len(name)-size]
	}
	return name
}

// printable puts '_' in place of what is no text.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == utf8.RuneError {
			return '_'
		}
		return r
	}, strings.ToValidUTF8(s, "_"))
}

// bounded fails with ErrFileTooBig instead of reading more than left bytes: a sparse file may be
// larger than the disk it was written on.
type bounded struct {
	from io.Reader
	left uint64
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left == 0 {
		var one [1]byte
		if n, err := b.from.Read(one[:]); n == 0 {
			return 0, err
		}
		return 0, ErrFileTooBig
	}
	if uint64(len(p)) > b.left {
		p = p[:b.left]
	}
	n, err := b.from.Read(p)
	b.left -= uint64(n)
	return n, err
}

// storeLog stores the whole log as JSON lines; an empty one is no file.
func (t *attempt) storeLog(ctx context.Context, c Container) stored {
	return t.store(ctx, func(as FileAccess) (StoredFile, error) {
		next, stop := iter.Pull2(c.Logs(ctx, LogPos{}, false))
		defer stop()
		r := &logReader{next: next}
		if !r.fill() {
			return StoredFile{}, r.err
		}
		return t.agent.deps.Files.Put(ctx, as, fileName("log-"+string(t.id)+".jsonl"), r)
	})
}

// logReader turns log entries into JSON lines as they are read.
type logReader struct {
	next func() (LogEntry, error, bool)
	buf  bytes.Buffer
	err  error // nil at the end
}

// storedLine is a line of the stored log. Text that is no UTF-8 is in Bytes. Gap marks the place
// where older lines were dropped because the log grew beyond what the host keeps.
type storedLine struct {
	Time    int64  `json:"time"`
	Stream  Stream `json:"stream"`
	Text    string `json:"text"`
	Bytes   []byte `json:"bytes,omitempty"`
	Partial bool   `json:"partial,omitempty"`
	Gap     bool   `json:"gap,omitempty"`
}

// fill reads one more entry; false at the end or after an error.
func (r *logReader) fill() bool {
	entry, err, ok := r.next()
	if !ok || err != nil {
		r.err = err
		return false
	}
	line := storedLine{
		Time: entry.Time.UnixMilli(), Stream: entry.Stream, Partial: entry.Partial, Gap: entry.Gap,
	}
	if utf8.Valid(entry.Data) {
		line.Text = string(entry.Data)
	} else {
		line.Bytes = entry.Data
	}
	r.err = json.NewEncoder(&r.buf).Encode(line)
	return r.err == nil
}

func (r *logReader) Read(p []byte) (int, error) {
	if r.buf.Len() == 0 && !r.fill() {
		if r.err != nil {
			return 0, r.err
		}
		return 0, io.EOF
	}
	return r.buf.Read(p)
}
