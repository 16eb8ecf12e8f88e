package podman

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"time"

	"github.com/united-containers/ucn/services/executor"
)

// Conmon's log is a file of lines "<RFC 3339 time> <stdout|stderr> <F|P> <data>". When it is full
// it is replaced by a new one. Which one is the how-manieth is told by the time of its first
// entry, which we keep in log/turns.json: files have no other name that lasts.

// turns lists the first times of the files seen; the index is LogPos.File.
type turns struct {
	First []string `json:"first"`
}

// maxTurns bounds the list; a log that turned over more often starts to share the last number.
const maxTurns = 1 << 16

// maxLogHead is more than what stands before the data of a log line.
const maxLogHead = 64

// maxReadLine is the longest line read: conmon splits what is longer than its buffer (8 KiB).
const maxReadLine = executor.MaxLogLine + maxLogHead

// Logs implements executor.Container.
func (c *container) Logs(ctx context.Context, from executor.LogPos, follow bool,
) iter.Seq2[executor.LogEntry, error] {
	return func(yield func(executor.LogEntry, error) bool) {
		r := &logReader{c: c, ctx: ctx, pos: from, yield: yield, follow: follow}
		if err := r.run(); err != nil {
			yield(executor.LogEntry{}, err)
		}
		r.close()
	}
}

// logReader reads one log for one caller.
type logReader struct {
	c      *container
	ctx    context.Context
	follow bool
	yield  func(executor.LogEntry, error) bool

	pos  executor.LogPos
	gap  bool // say so with the next entry
	file *os.File
	buf  *bufio.Reader
}

// errEnough says that the caller wants no more.
var errEnough = errors.New("enough")

// run reads to the end, and with follow goes on until the container has exited.
func (r *logReader) run() error {
	if _, err := r.c.known(); err != nil {
		return err
	}
	changed, err := r.c.i.watch.subscribe(r.c.dir.logDir(), "")
	if err != nil {
		return r.c.closedOr(err)
	}
	defer changed.cancel()
	var exited chan struct{}
	var exitErr error // read after exited is closed
	wait, cancel := context.WithCancel(r.ctx)
	if r.follow {
		exited = make(chan struct{})
		go func() {
			defer close(exited)
			_, exitErr = r.c.Wait(wait)
		}()
		defer func() { <-exited }()
	}
	defer cancel()
	for last := !r.follow; ; {
		if err := r.drain(); err != nil || last {
			if errors.Is(err, errEnough) {
				return nil
			}
			return err
		}
		select {
		case <-r.ctx.Done():
			return r.ctx.Err()
		case <-exited:
			if exitErr != nil {
				return exitErr
			}
			last = true // once more: the exit is told after the last line is in the file
		case <-changed.C:
		}
	}
}

// drain yields what is there, over as many files as there are.
func (r *logReader) drain() error {
	for {
		if r.file == nil {
			if err := r.open(); errors.Is(err, fs.ErrNotExist) || errors.Is(err, io.EOF) {
				return nil // nothing was written yet
			} else if err != nil {
				return err
			}
		}
		if err := r.lines(); err != nil {
			return err
		}
		turned, err := r.turned()
		if err != nil || !turned {
			return err
		}
		if err := r.lines(); err != nil { // what came between the end and the turn
			return err
		}
		r.close()
	}
}

// lines yields whole lines up to the present end of the file.
func (r *logReader) lines() error {
	for {
		line, err := r.buf.ReadSlice('\n')
		if errors.Is(err, io.EOF) { // a line that is being written: read it again when it is whole
			return r.seek()
		}
		if err != nil {
			return fmt.Errorf("reading the log: %w", err)
		}
		r.pos.Offset += int64(len(line))
		e, err := parseLog(line)
		if err != nil {
			return fmt.Errorf("reading the log at %d: %w", r.pos.Offset, err)
		}
		e.Next, e.Gap = r.pos, r.gap
		r.gap = false
		if !r.yield(e, nil) {
			return errEnough
		}
		if err := r.ctx.Err(); err != nil {
			return err
		}
	}
}

// open opens the present file and finds the place in it.
func (r *logReader) open() error {
	f, err := os.Open(r.c.dir.logFile())
	if err != nil {
		return err
	}
	r.file = f
	n, err := r.c.turn(f)
	if err != nil {
		r.close()
		return err
	}
	if n != r.pos.File {
		if n < r.pos.File {
			r.close()
			return fmt.Errorf("%w: no log position %+v", executor.ErrInvalid, r.pos)
		}
		r.gap = r.gap || n > r.pos.File+1 || r.pos.Offset == 0
		r.pos = executor.LogPos{File: n}
	}
	return r.seek()
}

func (r *logReader) seek() error {
	if _, err := r.file.Seek(r.pos.Offset, io.SeekStart); err != nil {
		return fmt.Errorf("reading the log: %w", err)
	}
	r.buf = bufio.NewReaderSize(r.file, maxReadLine)
	return nil
}

// turned tells whether the open file is no longer the present one.
func (r *logReader) turned() (bool, error) {
	now, err := os.Stat(r.c.dir.logFile())
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("reading the log: %w", err)
	}
	mine, err := r.file.Stat()
	if err != nil {
		return false, fmt.Errorf("reading the log: %w", err)
	}
	return !os.SameFile(now, mine), nil
}

func (r *logReader) close() {
	if r.file != nil {
		_ = r.file.Close() // read only
		r.file = nil
	}
}

// turn returns the number of the log file f. An empty file has none yet: io.EOF.
func (c *container) turn(f *os.File) (uint64, error) {
	var head [maxLogHead]byte
	n, err := f.ReadAt(head[:], 0)
	first, _, found := bytes.Cut(head[:n], []byte(" "))
	if !found {
		if err == nil || errors.Is(err, io.EOF) {
			return 0, io.EOF
		}
		return 0, fmt.Errorf("reading the log: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var t turns
	if _, err := c.dir.read("log/turns.json", &t); err != nil {
		return 0, err
	}
	for i, s := range t.First {
		if s == string(first) {
			return uint64(i), nil
		}
	}
	if len(t.First) >= maxTurns {
		return uint64(len(t.First) - 1), nil
	}
	t.First = append(t.First, string(first))
	if err := c.dir.write("log/turns.json", &t); err != nil {
		return 0, err
	}
	return uint64(len(t.First) - 1), nil
}

// parseLog takes a line of conmon's apart. Data points into line.
func parseLog(line []byte) (executor.LogEntry, error) {
	var e executor.LogEntry
	stamp, rest, ok := bytes.Cut(line, []byte(" "))
	stream, rest, ok2 := bytes.Cut(rest, []byte(" "))
	tag, data, ok3 := bytes.Cut(rest, []byte(" "))
	if !ok || !ok2 || !ok3 {
		return e, errors.New("not a line of conmon's")
	}
	at, err := time.Parse(time.RFC3339Nano, string(stamp))
	if err != nil {
		return e, fmt.Errorf("not a line of conmon's: %w", err)
	}
	e.Time, e.Stream = at.UTC(), executor.Stream(stream)
	if e.Stream != executor.Stdout && e.Stream != executor.Stderr {
		return e, fmt.Errorf("unknown stream %.20q", stream)
	}
	switch string(tag) {
	case "P":
		e.Partial = true
	case "F":
	default:
		return e, fmt.Errorf("unknown tag %.20q", tag)
	}
	e.Data = bytes.TrimSuffix(data, []byte("\n"))
	return e, nil
}
