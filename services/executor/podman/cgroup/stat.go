package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// Stat is one sample of a group's counters, the groups below it included. A counter that the host
// does not have is absent from Has and zero.
type Stat struct {
	Has        Has
	CPU        time.Duration // user and system, cumulative
	Memory     uint64        // bytes now, without page cache that nobody used lately
	MemoryPeak uint64        // bytes, highest so far
	OOMKills   uint64        // processes killed for memory; in version 1 of this very group only
}

// Has says which counters of a Stat are true.
type Has struct{ CPU, Memory, MemoryPeak, OOMKills bool }

// Meter reads the counters of one group through open files. Its methods may be called from any
// goroutine.
type Meter struct {
	epoch   string
	version int

	mu     sync.Mutex // guards buf and the files' closing
	buf    []byte
	closed bool
	cpu    *os.File
	memory *os.File
	peak   *os.File
	stat   *os.File
	events *os.File
}

// maxCounterFile is more than any counter file holds.
const maxCounterFile = 16 << 10

// Meter opens the counters of the group at path. bootID, as the kernel tells it, makes the epoch
// one of its kind. A group that does not exist is fs.ErrNotExist.
func (r *Root) Meter(path, bootID string) (*Meter, error) {
	info, err := os.Stat(r.dir("memory", path))
	if err != nil {
		return nil, fmt.Errorf("opening counters of cgroup %s: %w", path, err)
	}
	m := &Meter{version: r.version, buf: make([]byte, maxCounterFile), epoch: bootID}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		m.epoch = fmt.Sprintf("%s/%d", bootID, st.Ino)
	}
	names := [5][2]string{
		{"cpuacct", "cpuacct.usage"}, {"memory", "memory.usage_in_bytes"},
		{"memory", "memory.max_usage_in_bytes"}, {"memory", "memory.stat"},
		{"memory", "memory.oom_control"},
	}
	if r.version == 2 {
		names = [5][2]string{
			{"", "cpu.stat"}, {"", "memory.current"}, {"", "memory.peak"}, {"", "memory.stat"},
			{"", "memory.events"},
		}
	}
	for i, f := range []**os.File{&m.cpu, &m.memory, &m.peak, &m.stat, &m.events} {
		*f, err = os.Open(filepath.Join(r.dir(names[i][0], path), names[i][1]))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, errors.Join(fmt.Errorf("opening counters of cgroup %s: %w", path, err), m.Close())
		}
	}
	return m, nil
}

// Epoch changes when the counters begin anew: another boot, or a group made anew.
func (m *Meter) Epoch() string { return m.epoch }

// Close closes the files. It may be repeated.
func (m *Meter) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	var errs []error
	for _, f := range []*os.File{m.cpu, m.memory, m.peak, m.stat, m.events} {
		if f != nil {
			if err := f.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// Read samples the counters.
func (m *Meter) Read() (Stat, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return Stat{}, os.ErrClosed
	}
	var s Stat
	var err error
	cpuField := ""
	if m.version == 2 {
		cpuField = "usage_usec"
	}
	cpu, err := m.counter(m.cpu, cpuField, &s.Has.CPU, nil)
	s.CPU = time.Duration(cpu)
	if m.version == 2 {
		s.CPU *= time.Microsecond
	}
	s.Memory, err = m.counter(m.memory, "", &s.Has.Memory, err)
	s.MemoryPeak, err = m.counter(m.peak, "", &s.Has.MemoryPeak, err)
	oomField, cacheField := "oom_kill", "total_inactive_file"
	if m.version == 2 {
		cacheField = "inactive_file"
	}
	s.OOMKills, err = m.counter(m.events, oomField, &s.Has.OOMKills, err)
	var cached bool
	cache, err := m.counter(m.stat, cacheField, &cached, err)
	s.Memory -= min(cache, s.Memory)
	return s, err
}

// counter reads a number from f: the whole file, or the line that begins with field. A file that
// the host does not have, and a field that it does not know, leave has false.
func (m *Meter) counter(f *os.File, field string, has *bool, before error) (uint64, error) {
	if before != nil || f == nil {
		return 0, before
	}
	n, err := f.ReadAt(m.buf, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, fmt.Errorf("reading %s: %w", filepath.Base(f.Name()), err)
	}
	text := bytes.TrimSpace(m.buf[:n])
	if field != "" {
		var ok bool
		if text, ok = line(text, field); !ok {
			return 0, nil
		}
	}
	v, err := strconv.ParseUint(string(text), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("reading %s: %w", filepath.Base(f.Name()), err)
	}
	*has = true
	return v, nil
}

// line finds "field value" in a file of such lines.
func line(text []byte, field string) ([]byte, bool) {
	for l := range bytes.Lines(text) {
		l = bytes.TrimSpace(l)
		if v, ok := bytes.CutPrefix(l, []byte(field)); ok && len(v) > 0 && v[0] == ' ' {
			return v[1:], true
		}
	}
	return nil, false
}
