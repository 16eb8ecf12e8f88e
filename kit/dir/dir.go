// Package dir is the directory object: a sorted list of names, each with the CID, size, mode and
// kind of what it leads to, in canonical bytes, so that one tree has one CID. It is what storage,
// the CLI and executors have in common about trees.
//
// It holds no bytes of files and follows nothing: Walk asks its caller for each directory.
package dir

import (
	"context"
	"math"
	"strings"
	"unicode"
	"unicode/utf8"

	"lukechampine.com/blake3"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/kit/fault"
	storagev1 "github.com/united-containers/ucn/proto/ucn/storage/v1"
)

// Bounds of a directory and of a path.
const (
	MaxEntries = 8192    // in one directory
	MaxBytes   = 4 << 20 // of one directory's canonical form
	MaxName    = 255     // bytes of one name
	MaxDepth   = 64      // names in a path, and directories within each other
	MaxPath    = 4096    // bytes of a path
	maxMode    = 0o777
)

// Reasons of the faults of this package.
const (
	// ReasonBad: bytes that are no directory, or entries that make none.
	ReasonBad fault.Reason = "BAD_DIRECTORY"
	// ReasonPath: a path that is no clean relative one, or too long or deep.
	ReasonPath fault.Reason = "BAD_PATH"
	// ReasonNoPath: nothing stands at the path.
	ReasonNoPath fault.Reason = "NO_SUCH_PATH"
)

// Entry is one name in a directory.
type Entry struct {
	// Name is 1 to MaxName bytes; see CheckName.
	Name string
	// CID is of a file or a directory, and with it says the entry's kind.
	CID cid.CID
	// Size is a file's bytes, or the bytes of all files inside a directory.
	Size int64
	// Mode is the Unix permission bits.
	Mode uint32
}

// IsDir reports whether the entry leads to a directory.
func (e Entry) IsDir() bool { return e.CID.Kind() == cid.Directory }

// Encode returns the canonical bytes of a directory and its CID. entries must ascend by the bytes
// of their names. Errors are ReasonBad.
func Encode(entries []Entry) ([]byte, cid.CID, error) {
	if err := check(entries); err != nil {
		return nil, cid.CID{}, err
	}
	m := &storagev1.Directory{}
	for _, e := range entries {
		m.Entries = append(m.Entries, &storagev1.Entry{Name: e.Name, Cid: e.CID.Bytes(),
			Size: uint64(e.Size), Mode: e.Mode, Kind: KindOf(e)})
	}
	raw, err := canon.Marshal(m)
	if err != nil {
		return nil, cid.CID{}, bad("%v", err)
	}
	if len(raw) > MaxBytes {
		return nil, cid.CID{}, bad("%d bytes, at most %d: use more directories", len(raw), MaxBytes)
	}
	return raw, cid.OfDirectory(blake3.Sum256(raw)), nil
}

// KindOf is the entry's kind on the wire.
func KindOf(e Entry) storagev1.EntryKind {
	if e.IsDir() {
		return storagev1.EntryKind_ENTRY_KIND_DIRECTORY
	}
	return storagev1.EntryKind_ENTRY_KIND_FILE
}

// Decode reads canonical bytes. Everything Encode would not have written is ReasonBad.
func Decode(raw []byte) ([]Entry, error) {
	if len(raw) > MaxBytes {
		return nil, bad("%d bytes, at most %d", len(raw), MaxBytes)
	}
	if n := fields(raw); n > MaxEntries {
		return nil, bad("more than %d entries: use more directories", MaxEntries)
	}
	var m storagev1.Directory
	if err := canon.Unmarshal(raw, &m); err != nil {
		return nil, bad("%v", err)
	}
	entries := make([]Entry, 0, len(m.GetEntries()))
	for _, e := range m.GetEntries() {
		one, err := entryOf(e)
		if err != nil {
			return nil, err
		}
		entries = append(entries, one)
	}
	return entries, check(entries)
}

// fields counts the outermost fields, as far as they can be read and one more than there may be: an
// entry of two bytes becomes one of a hundred when it is decoded.
func fields(raw []byte) (n int) {
	for len(raw) > 0 && n <= MaxEntries {
		_, _, size := protowire.ConsumeField(raw)
		if size < 0 {
			return n // Unmarshal says what is wrong
		}
		raw = raw[size:]
		n++
	}
	return n
}

func entryOf(m *storagev1.Entry) (Entry, error) {
	c, err := cid.FromBytes(m.GetCid())
	if err != nil {
		return Entry{}, bad("entry %.64q: %v", m.GetName(), err)
	}
	if m.GetSize() > math.MaxInt64 {
		return Entry{}, bad("entry %.64q has %d bytes", m.GetName(), m.GetSize())
	}
	e := Entry{Name: m.GetName(), CID: c, Size: int64(m.GetSize()), Mode: m.GetMode()}
	if m.GetKind() != KindOf(e) {
		return Entry{}, bad("entry %.64q says %s, its CID says %s", e.Name, m.GetKind(), c.Kind())
	}
	return e, nil
}

func check(entries []Entry) error {
	if len(entries) > MaxEntries {
		return bad("%d entries, at most %d: use more directories", len(entries), MaxEntries)
	}
	total := int64(0)
	for i, e := range entries {
		if err := CheckName(e.Name); err != nil {
			return err
		}
		switch {
		case i > 0 && entries[i-1].Name >= e.Name:
			return bad("%.64q does not come after %.64q", e.Name, entries[i-1].Name)
		case e.CID.Kind() != cid.File && e.CID.Kind() != cid.Directory:
			return bad("%.64q is a %s, neither file nor directory", e.Name, e.CID.Kind())
		case e.Mode > maxMode:
			return bad("%.64q has mode %o, at most 777", e.Name, e.Mode)
		case e.Size < 0 || e.Size > math.MaxInt64-total:
			return bad("%.64q makes the sizes overflow", e.Name)
		}
		total += e.Size
	}
	return nil
}

// Total is the bytes of all files inside.
func Total(entries []Entry) (total int64) {
	for _, e := range entries {
		total += e.Size
	}
	return total
}

// CheckName refuses, with ReasonBad, a name that a directory may not have: one that is empty, too
// long, no UTF-8, "." or "..", or holds "/" or a control character.
func CheckName(name string) error {
	switch {
	case name == "" || name == "." || name == "..":
		return bad("%q is no name", name)
	case len(name) > MaxName:
		return bad("a name has %d bytes, at most %d", len(name), MaxName)
	case !utf8.ValidString(name):
		return bad("name %.64q is no UTF-8", name)
	case strings.ContainsRune(name, '/') || strings.ContainsFunc(name, unicode.IsControl):
		return bad("name %.64q holds a slash or a control character", name)
	}
	return nil
}

// SplitPath returns the names of a path, none for "". A path that is not clean and relative is
// ReasonPath: nothing is resolved away, so nothing leads out of the tree.
func SplitPath(path string) ([]string, error) {
	if path == "" {
		return nil, nil
	}
	if len(path) > MaxPath {
		return nil, badPath("the path has %d bytes, at most %d", len(path), MaxPath)
	}
	names := strings.Split(path, "/")
	if len(names) > MaxDepth {
		return nil, badPath("the path has %d names, at most %d", len(names), MaxDepth)
	}
	for _, name := range names {
		if CheckName(name) != nil {
			return nil, badPath("%.64q is no name in a path: write it like a/b.txt", name)
		}
	}
	return names, nil
}

// Load returns the entries of a directory.
type Load func(ctx context.Context, c cid.CID) ([]Entry, error)

// Walk follows path from root and returns what stands there; the root itself for "". Errors are
// ReasonPath, ReasonNoPath and those of load.
func Walk(ctx context.Context, root cid.CID, path string, load Load) (Entry, error) {
	names, err := SplitPath(path)
	at := Entry{CID: root}
	for i := 0; err == nil && i < len(names); i++ {
		if !at.IsDir() {
			return Entry{}, noPath(names[:i+1])
		}
		var entries []Entry
		if entries, err = load(ctx, at.CID); err == nil {
			var found bool
			if at, found = Find(entries, names[i]); !found {
				return Entry{}, noPath(names[:i+1])
			}
		}
	}
	return at, err
}

// Find returns the entry of a name.
func Find(entries []Entry, name string) (Entry, bool) {
	low, high := 0, len(entries)
	for low < high {
		middle := (low + high) / 2
		if entries[middle].Name < name {
			low = middle + 1
		} else {
			high = middle
		}
	}
	if low < len(entries) && entries[low].Name == name {
		return entries[low], true
	}
	return Entry{}, false
}

func bad(format string, args ...any) error {
	return fault.New(fault.InvalidArgument, ReasonBad, "no directory: "+format, args...)
}

func badPath(format string, args ...any) error {
	return fault.New(fault.InvalidArgument, ReasonPath, format, args...)
}

func noPath(names []string) error {
	return fault.New(fault.NotFound, ReasonNoPath, "nothing stands at %.200q",
		strings.Join(names, "/"))
}
