package segment

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/united-containers/ucn/services/ledger"
)

// keepSnapshots is how many snapshots stay: the newest, and one more in case that one is damaged.
const keepSnapshots = 2

const (
	snapshotSuffix = ".snapshot"
	snapshotMagic  = "UCNSNAP1"
)

// Snapshots keeps snapshots as files beside a log: magic, content, CRC-32C. It implements
// ledger.Snapshots. Not safe for two processes: hold the directory's Log open.
type Snapshots struct {
	dir   string
	disk  disk // replaced by tests
	table *crc32.Table
}

var _ ledger.Snapshots = (*Snapshots)(nil)

// OpenSnapshots returns the snapshots in the directory of a log.
func OpenSnapshots(dir string) *Snapshots {
	return &Snapshots{dir: dir, disk: local{}, table: crc32.MakeTable(crc32.Castagnoli)}
}

// Save implements ledger.Snapshots. It deletes all but the newest keepSnapshots up to the height:
// those beyond it are of a log that was put back from an older copy. What a crash left unfinished
// goes, too.
func (s *Snapshots) Save(ctx context.Context, height uint64, write func(io.Writer) error) error {
	path := filepath.Join(s.dir, snapshotName(height))
	if err := s.save(ctx, path, write); err != nil {
		_ = s.disk.remove(path + asideSuffix)
		return fmt.Errorf("save the snapshot of height %d: %w", height, err)
	}
	if err := s.tidy(height); err != nil {
		return fmt.Errorf("remove an old snapshot: %w", err)
	}
	return nil
}

func (s *Snapshots) tidy(newest uint64) error {
	heights, err := s.heights()
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	var gone []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), snapshotSuffix+asideSuffix) {
			gone = append(gone, e.Name())
		}
	}
	kept := 0
	for _, height := range heights {
		if height <= newest && kept < keepSnapshots {
			kept++
			continue
		}
		gone = append(gone, snapshotName(height))
	}
	for _, name := range gone {
		if err := s.disk.remove(filepath.Join(s.dir, name)); err != nil {
			return err
		}
	}
	return nil
}

func snapshotName(height uint64) string { return fmt.Sprintf("%020d%s", height, snapshotSuffix) }

func (s *Snapshots) save(ctx context.Context, path string, write func(io.Writer) error) error {
	f, err := s.disk.open(path+asideSuffix, true)
	if err != nil {
		return err
	}
	err = s.fill(io.NewOffsetWriter(f, 0), write)
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = s.disk.rename(path+asideSuffix, path)
	}
	if err == nil {
		err = s.disk.syncDir(s.dir)
	}
	return err
}

func (s *Snapshots) fill(f io.Writer, write func(io.Writer) error) error {
	out := bufio.NewWriterSize(f, readAhead)
	sum := crc32.New(s.table)
	both := io.MultiWriter(out, sum)
	if _, err := io.WriteString(both, snapshotMagic); err != nil {
		return err
	}
	if err := write(both); err != nil {
		return err
	}
	if _, err := out.Write(binary.BigEndian.AppendUint32(nil, sum.Sum32())); err != nil {
		return err
	}
	return out.Flush()
}

// heights lists the heights of the snapshots, newest first.
func (s *Snapshots) heights() ([]uint64, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	var heights []uint64
	for _, e := range entries {
		digits, ok := strings.CutSuffix(e.Name(), snapshotSuffix)
		height, err := strconv.ParseUint(digits, 10, 64)
		if ok && err == nil {
			heights = append(heights, height)
		}
	}
	slices.Sort(heights)
	slices.Reverse(heights)
	return heights, nil
}

// Load implements ledger.Snapshots. The checksum is compared before read sees a byte.
func (s *Snapshots) Load(ctx context.Context, atMost uint64,
	read func(uint64, io.Reader) error,
) (bool, error) {
	heights, err := s.heights()
	if err != nil {
		return false, fmt.Errorf("list snapshots: %w", err)
	}
	var failed error
	for _, height := range heights {
		if height > atMost {
			continue
		}
		if err := ctx.Err(); err != nil {
			return false, err
		}
		err := s.load(filepath.Join(s.dir, snapshotName(height)), height, read)
		if err == nil {
			return true, nil
		}
		failed = errors.Join(failed, fmt.Errorf("snapshot of height %d: %w", height, err))
	}
	return false, failed
}

func (s *Snapshots) load(path string, height uint64, read func(uint64, io.Reader) error) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	content := info.Size() - int64(len(snapshotMagic)) - 4
	if content < 0 {
		return io.ErrUnexpectedEOF
	}
	if err := verifySnapshot(f, info.Size()-4, crc32.New(s.table)); err != nil {
		return err
	}
	in := io.NewSectionReader(f, int64(len(snapshotMagic)), content)
	return read(height, bufio.NewReaderSize(in, readAhead))
}

func verifySnapshot(f io.ReaderAt, size int64, sum hash.Hash32) error {
	if _, err := io.Copy(sum, io.NewSectionReader(f, 0, size)); err != nil {
		return err
	}
	var end [4]byte
	if _, err := f.ReadAt(end[:], size); err != nil {
		return err
	}
	if binary.BigEndian.Uint32(end[:]) != sum.Sum32() {
		return errors.New("its checksum does not match")
	}
	return nil
}
