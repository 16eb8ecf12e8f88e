package podman

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// watcher tells when files in directories change, through one inotify instance.
type watcher struct {
	file *os.File
	fd   int // of file, whose Fd method would make it blocking
	done chan struct{}

	mu   sync.Mutex // guards what follows, and adding and removing watches
	dirs map[string]*watchedDir
	byWD map[int]*watchedDir
	over bool
}

// watchedDir is a directory with at least one subscription.
type watchedDir struct {
	path string
	wd   int
	subs map[*subscription]struct{}
}

// subscription rings C when the file, or any file if name is empty, changed. One ring may stand
// for many changes. C is closed when the watcher ends.
type subscription struct {
	C    <-chan struct{}
	ring chan struct{}
	name string
	dir  *watchedDir
	w    *watcher
}

func newWatcher() (*watcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("starting inotify (sysctl fs.inotify.max_user_instances): %w", err)
	}
	w := &watcher{
		file: os.NewFile(uintptr(fd), "inotify"), fd: fd, done: make(chan struct{}),
		dirs: make(map[string]*watchedDir), byWD: make(map[int]*watchedDir),
	}
	go w.run()
	return w, nil
}

// watchMask: files made, written to, closed after writing, and moved in.
const watchMask = unix.IN_CREATE | unix.IN_MODIFY | unix.IN_CLOSE_WRITE | unix.IN_MOVED_TO

// subscribe watches name in dir. Look at the file after subscribing, not before.
func (w *watcher) subscribe(dir, name string) (*subscription, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over {
		return nil, os.ErrClosed
	}
	d := w.dirs[dir]
	if d == nil {
		wd, err := unix.InotifyAddWatch(w.fd, dir, watchMask)
		if err != nil {
			return nil, fmt.Errorf("watching %s (sysctl fs.inotify.max_user_watches): %w", dir, err)
		}
		d = &watchedDir{path: dir, wd: wd, subs: make(map[*subscription]struct{})}
		w.dirs[dir], w.byWD[wd] = d, d
	}
	ring := make(chan struct{}, 1)
	s := &subscription{C: ring, ring: ring, name: name, dir: d, w: w}
	d.subs[s] = struct{}{}
	return s, nil
}

// cancel ends the subscription.
func (s *subscription) cancel() {
	w := s.w
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(s.dir.subs, s)
	if len(s.dir.subs) > 0 || w.dirs[s.dir.path] != s.dir || w.over {
		return
	}
	delete(w.dirs, s.dir.path)
	delete(w.byWD, s.dir.wd)
	// The directory may be gone, and its watch with it.
	_, _ = unix.InotifyRmWatch(w.fd, uint32(s.dir.wd))
}

// close ends the watcher and closes every C.
func (w *watcher) close() error {
	err := w.file.Close()
	<-w.done
	return err
}

// eventBuffer holds many events; the kernel never splits one.
const eventBuffer = 64 << 10

func (w *watcher) run() {
	defer close(w.done)
	buf := make([]byte, eventBuffer)
	for {
		n, err := w.file.Read(buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			w.end()
			return
		}
		w.dispatch(buf[:n])
	}
}

func (w *watcher) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
	for _, d := range w.dirs {
		for s := range d.subs {
			close(s.ring)
		}
	}
}

func (w *watcher) dispatch(events []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(events) >= unix.SizeofInotifyEvent {
		e := (*unix.InotifyEvent)(unsafe.Pointer(&events[0]))
		end := unix.SizeofInotifyEvent + int(e.Len)
		name := string(bytes.TrimRight(events[unix.SizeofInotifyEvent:end], "\x00"))
		events = events[end:]
		switch {
		case e.Mask&unix.IN_Q_OVERFLOW != 0:
			for _, d := range w.dirs {
				d.tell("")
			}
		case e.Mask&unix.IN_IGNORED != 0:
			w.forget(int(e.Wd))
		default:
			if d := w.byWD[int(e.Wd)]; d != nil {
				d.tell(name)
			}
		}
	}
}

// forget drops a directory that was removed, so that one made anew is watched anew.
func (w *watcher) forget(wd int) {
	d := w.byWD[wd]
	if d == nil {
		return
	}
	d.tell("")
	delete(w.byWD, wd)
	delete(w.dirs, d.path)
}

// tell rings the subscriptions to name; all of them if name is empty.
func (d *watchedDir) tell(name string) {
	for s := range d.subs {
		if name != "" && s.name != "" && s.name != name {
			continue
		}
		select {
		case s.ring <- struct{}{}:
		default:
		}
	}
}
