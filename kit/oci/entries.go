package oci

import (
	"archive/tar"
	"errors"
	"io"
	"path"
	"strings"

	"github.com/united-containers/ucn/kit/fault"
)

// blockSize is what an entry may take on a disk beside its bytes: the rest of its last block, or
// the block of a folder.
const blockSize = 4096

var errEntriesTooLarge = fault.New(fault.FailedPrecondition, ReasonTooLarge,
	"files of the image have more bytes than this host allows")

// checkEntries reads a layer's tar to its end, or to the first entry that is refused: files of more
// than most bytes together are ReasonTooLarge. It counts what they take on a disk.
//
// The engine opens files of an image as root of the host, such as /etc/passwd before it starts a
// program: a pipe there would hang it, a device would be the host's own.
func checkEntries(r io.Reader, most int64) (disk, files int64, err error) {
	for in, left := tar.NewReader(r), most; ; files++ {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return most - left + files*blockSize, files, nil
		}
		if err != nil {
			return 0, 0, badLayer(err)
		}
		if err := checkEntry(h); err != nil {
			return 0, 0, err
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		if h.Size > left { // a file of holes has more bytes than the tar
			return 0, 0, errEntriesTooLarge
		}
		left -= h.Size
	}
}

// checkEntry refuses what is neither file, folder nor link. Devices in /dev, which root file
// systems of distributions often hold, stay: every container gets a /dev of its own over them, and
// the engine's mounts open no device. Links are the engine's to follow, within the image.
func checkEntry(h *tar.Header) error {
	name := path.Clean("/" + h.Name)
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeDir, tar.TypeLink, tar.TypeSymlink, tar.TypeXGlobalHeader:
	case tar.TypeChar, tar.TypeBlock:
		// 0:0 deletes a file of a lower layer on overlay. In images, files named ".wh." do that.
		if !strings.HasPrefix(name, "/dev/") || h.Devmajor == 0 && h.Devminor == 0 {
			return badEntry(name, "a device")
		}
	case tar.TypeFifo:
		return badEntry(name, "a named pipe")
	default:
		return badEntry(name, "of a kind that is none of file, folder and link")
	}
	for key := range h.PAXRecords {
		// Only overlay's own bookkeeping uses these, and would believe them.
		if strings.HasPrefix(key, "SCHILY.xattr.trusted.") {
			return badEntry(name, "marked for the engine's file system (trusted.*)")
		}
	}
	return nil
}

func badEntry(name, what string) error {
	return fault.New(fault.FailedPrecondition, ReasonContent,
		"a layer of the image holds %.200q, which is %s: make the image without it", name, what)
}
