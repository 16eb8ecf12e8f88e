package executor

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"time"
)

// Errors a Driver answers with. Test with errors.Is; the text around them says what to do.
var (
	// ErrUnavailable: the engine cannot be used (not installed, not allowed, broken). The text
	// names the missing part and the command that installs it. Nothing was changed.
	ErrUnavailable = errors.New("container engine unavailable")
	// ErrUnsupported: this host cannot do what the spec asks; the text names the field.
	ErrUnsupported = errors.New("not supported on this host")
	// ErrInvalid: the spec or an argument is malformed; the text names the field.
	ErrInvalid = errors.New("invalid container spec")
	// ErrNoImage: the image is not held; LoadImage first.
	ErrNoImage = errors.New("image not held")
	// ErrImageMismatch: bytes do not hash to their names or do not make the image asked for.
	// Nothing of it stays loaded. Fetching the same bytes again cannot help.
	ErrImageMismatch = errors.New("image bytes do not match their digest")
	// ErrImageInUse: a container still stands on the image.
	ErrImageInUse = errors.New("image in use")
	// ErrExists: the attempt exists with another spec. An attempt id is never used twice.
	ErrExists = errors.New("attempt exists with another spec")
	// ErrNotFound: no such container; it was removed, or never created.
	ErrNotFound = errors.New("no such container")
	// ErrNotRunning: the operation needs a started container that has not exited.
	ErrNotRunning = errors.New("container is not running")
	// ErrRunning: the operation needs a container that does not run.
	ErrRunning = errors.New("container is running")
	// ErrClosed: the driver was closed.
	ErrClosed = errors.New("driver is closed")
)

// Bounds of the seam. A driver refuses what is beyond with ErrInvalid.
const (
	MaxAttemptBytes = 128       // of an AttemptID
	MaxMounts       = 64        // of a ContainerSpec
	MaxEnv          = 1024      // entries of a ContainerSpec
	MaxArgsBytes    = 128 << 10 // of command, args and env together
	MaxLabels       = 32        // of a ContainerSpec
	MaxLabelBytes   = 4 << 10   // of one label value
	MaxLogLine      = 64 << 10  // of one LogEntry; longer lines arrive in parts
	MaxStopGrace    = 10 * time.Minute
)

// Driver runs containers on one host for one executor.
//
// Ownership: a driver sees only containers that were created through it or through an earlier
// life of it (same executor name, same state directory). Several drivers may share an engine;
// they share images and nothing else.
//
// Durability: what Create, Start, Stop, Kill, Freeze and Remove did outlives the process. Close
// and kill -9 of the executor stop no container; List of the next life finds them all. Nothing
// is promised over a loss of power except that List tells the truth (ExitLost).
//
// Concurrency: every method of Driver and Container may be called from any goroutine.
//
// Retry: every method may be repeated after any error, and after a kill -9 in its midst, with
// the same arguments; repeating what was done is success. ctx bounds the wait, not the effect: a
// cancelled call may still take effect, so repeat it or List.
//
// Errors: the named ones above; any other error is the engine's and may pass.
type Driver interface {
	Images

	// Probe looks at the host and tells what it can do. It starts no container and takes at most a
	// few seconds. It returns ErrUnavailable, with what to install, when nothing can run here;
	// Abilities are filled in as far as known even then.
	Probe(ctx context.Context) (Abilities, error)

	// Create makes the container of spec.Attempt, not started. Repeating it with an equal spec
	// returns the container that stands, in whatever state it is. ErrExists: the spec differs.
	// ErrNoImage, ErrInvalid, ErrUnsupported: nothing was made.
	Create(ctx context.Context, spec ContainerSpec) (Container, error)

	// List returns every container of this executor, in any state, in no order, read fresh from
	// the engine. It is how a new life of the executor adopts what the last one left. Half-made
	// containers (a crash inside Create) are cleared away, not listed.
	List(ctx context.Context) ([]Container, error)

	// Close lets go of watchers and connections, and ends every Wait and Logs with ErrClosed.
	// Containers go on. Close may be repeated.
	Close() error
}

// Images is the image cache of an engine. Images are named by content, so nothing here can be
// replaced by something else, and drivers that share an engine share them.
type Images interface {
	// HasImage tells whether Create would find the image.
	HasImage(ctx context.Context, id ImageID) (bool, error)

	// LoadImage makes sure that the image is held. open is called only when it is not, at most
	// once at a time for one image and source (concurrent callers with the same ones wait for the
	// first and share its outcome; a waiter whose ctx ends leaves alone); loads of one image from
	// several sources do not wait for each other. open returns a tar stream of an OCI image layout
	// that holds the manifest with the digest of id (or an index with that digest and this host's
	// platform in it), its config and layers. Every blob is checked against its name, and the
	// engine's image against the config digest, before the image counts as held: else
	// ErrImageMismatch. Names and annotations in the layout are ignored. A NoRoomError: it was
	// broken off, or not opened, since the disk has no room for it; nothing of it stays, and other
	// loads go on.
	LoadImage(ctx context.Context, id ImageID, source string, open OpenLayout,
	) (Image, error)

	// ListImages returns what is held, for offers and eviction. No order.
	ListImages(ctx context.Context) ([]Image, error)

	// RemoveImage frees the image. ErrImageInUse while a container stands on it; an image that is
	// not held is success.
	RemoveImage(ctx context.Context, id ImageID) error
}

// OpenLayout opens the tar stream of an OCI image layout. The driver closes it.
type OpenLayout func(ctx context.Context) (io.ReadCloser, error)

// Container is a handle on one attempt's container. Handles are cheap, hold nothing that must be
// closed, and several may exist for one container. After Remove every method but Remove and Info
// answers ErrNotFound.
type Container interface {
	// Info returns what Create recorded. It does no I/O.
	Info() Info

	// State reads the state fresh.
	State(ctx context.Context) (State, error)

	// Start runs the program and returns when it has been exec'd. Already running or exited is
	// success: a program is never started twice. When the program cannot be exec'd (no such file,
	// not executable) Start returns nil and Wait tells ExitRefused with the runtime's words.
	Start(ctx context.Context) error

	// Stop asks the program to end (SIGTERM, or the image's stop signal), and kills it when it has
	// not ended after grace (0 to MaxStopGrace). It returns when the program has ended; already
	// ended, or never started, is success, and a container that was never started never will be.
	// That it was asked is on disk before the first signal (Exit.Stopped). A frozen container is
	// thawed first.
	Stop(ctx context.Context, grace time.Duration) error

	// Kill is Stop with SIGKILL at once.
	Kill(ctx context.Context) error

	// Remove kills what still runs and deletes container, logs, volumes and counters. Read Usage,
	// Logs and Outputs before. It works on a frozen container and repeats freely; a container that
	// is gone is success.
	Remove(ctx context.Context) error

	// Freeze stops every process of the container from being scheduled, and returns when they are
	// stopped. Frozen already is success. ErrNotRunning when it does not run.
	Freeze(ctx context.Context) error

	// Thaw undoes Freeze; a container that is not frozen is success. Its cost is well under 1 ms.
	Thaw(ctx context.Context) error

	// Wait blocks until the container has exited and tells how. It works for exits that happened
	// while the executor was away, and may be repeated: the answer never changes. A container that
	// is created and not started is waited for.
	Wait(ctx context.Context) (Exit, error)

	// Logs yields entries from the given position on, oldest first; the zero LogPos is the
	// beginning. With follow it goes on until the container has exited and everything is told;
	// else it ends at the present end. An error ends the sequence. The reader sets the pace; a
	// reader that falls behind Limits.LogBytes finds LogEntry.Gap instead of what was dropped.
	Logs(ctx context.Context, from LogPos, follow bool) iter.Seq2[LogEntry, error]

	// Usage samples the counters. It is cheap (tens of microseconds) except for disk, which is
	// measured at most every few seconds, and works until Remove, also after the exit.
	Usage(ctx context.Context) (Usage, error)

	// Output opens the writable mount (MountOutput, MountScratch) at path for reading after the
	// exit. The program's links lead nowhere outside of it, and what is neither file nor directory
	// cannot be opened. ErrRunning while the program runs; ErrInvalid: no such mount.
	Output(ctx context.Context, path string) (fs.FS, error)
}
