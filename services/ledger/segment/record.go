package segment

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/united-containers/ucn/services/ledger"
)

// Layout of a segment header: magic 8, anchor 32, salt 16, first height 8, hash of the block
// before the first 32, checksum 4. All integers are big-endian. The salt is random and a secret:
// it is in this file and nowhere else.
const (
	segmentMagic  = "UCNLOG2\n"
	formatOne     = "UCNLOG1\n" // had the same magic before every record, known to everybody
	segmentHeader = 8 + 32 + saltSize + 8 + 32 + 4
	saltSize      = 16
)

// Layout of a record: magic 4, length of the block 4, height 8, hash 32, previous hash 32,
// checksum 4, block. The checksum covers the segment's salt and all but itself. The magic is
// derived from the salt: who writes transactions cannot plant bytes in them that a search for
// records after a crash would have to look at one by one.
const (
	recordHeader = 4 + 4 + 8 + 32 + 32 + 4
	recordSum    = recordHeader - 4
)

// errNoRecord says that bytes do not begin with a whole, undamaged record.
var errNoRecord = errors.New("no whole record")

// marks are what a segment's salt makes of its records.
type marks struct {
	magic uint32 // before every record; never begins with a zero, as unused space does
	seed  uint32 // the salt's checksum, with which every record's begins
	table *crc32.Table
}

func (p preamble) marks(table *crc32.Table) marks {
	sum := sha256.Sum256(append([]byte("ucn/segment/record magic\n"), p.salt[:]...))
	return marks{
		magic: binary.BigEndian.Uint32(sum[:]) | 1<<31,
		seed:  crc32.Checksum(p.salt[:], table), table: table,
	}
}

// preamble is the header of a segment file.
type preamble struct {
	anchor ledger.Hash
	salt   [saltSize]byte
	first  uint64
	prev   ledger.Hash
}

func (p preamble) bytes(table *crc32.Table) []byte {
	b := make([]byte, 0, segmentHeader)
	b = append(b, segmentMagic...)
	b = append(b, p.anchor[:]...)
	b = append(b, p.salt[:]...)
	b = binary.BigEndian.AppendUint64(b, p.first)
	b = append(b, p.prev[:]...)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, table))
}

func parsePreamble(b []byte, table *crc32.Table) (preamble, error) {
	var p preamble
	if len(b) >= len(formatOne) && string(b[:8]) == formatOne {
		return p, ledger.ErrFormat
	}
	if len(b) < segmentHeader || string(b[:8]) != segmentMagic {
		return p, errors.New("it does not begin as a block log segment")
	}
	b = b[:segmentHeader]
	sum := binary.BigEndian.Uint32(b[segmentHeader-4:])
	if crc32.Checksum(b[:segmentHeader-4], table) != sum {
		return p, errors.New("its header's checksum does not match")
	}
	b = b[8:]
	b = b[copy(p.anchor[:], b):]
	b = b[copy(p.salt[:], b):]
	p.first = binary.BigEndian.Uint64(b)
	copy(p.prev[:], b[8:])
	return p, nil
}

// frame puts the bytes of a record into buf, which it may reuse.
func (m marks) frame(buf []byte, r ledger.Record) []byte {
	buf = binary.BigEndian.AppendUint32(buf[:0], m.magic)
	buf = binary.BigEndian.AppendUint32(buf, uint32(len(r.Bytes)))
	buf = binary.BigEndian.AppendUint64(buf, r.Height)
	buf = append(buf, r.Hash[:]...)
	buf = append(buf, r.Prev[:]...)
	sum := crc32.Update(crc32.Update(m.seed, m.table, buf), m.table, r.Bytes)
	buf = binary.BigEndian.AppendUint32(buf, sum)
	return append(buf, r.Bytes...)
}

// length reads how many bytes the record takes whose header is b. It does not verify it.
func (m marks) length(b []byte) (int64, error) {
	if len(b) < recordHeader || binary.BigEndian.Uint32(b) != m.magic {
		return 0, errNoRecord
	}
	length := binary.BigEndian.Uint32(b[4:])
	if length > ledger.MaxRecord {
		return 0, fmt.Errorf("%w: its length %d is above the limit", errNoRecord, length)
	}
	return recordHeader + int64(length), nil
}

// parse reads the record that b begins with; its Bytes lie in b.
func (m marks) parse(b []byte) (ledger.Record, error) {
	length, err := m.length(b)
	if err != nil {
		return ledger.Record{}, err
	}
	if int64(len(b)) < length {
		return ledger.Record{}, fmt.Errorf("%w: it is cut short", errNoRecord)
	}
	b = b[:length]
	sum := crc32.Update(m.seed, m.table, b[:recordSum])
	sum = crc32.Update(sum, m.table, b[recordHeader:])
	if sum != binary.BigEndian.Uint32(b[recordSum:]) {
		return ledger.Record{}, fmt.Errorf("%w: its checksum does not match", errNoRecord)
	}
	r := ledger.Record{Height: binary.BigEndian.Uint64(b[8:]), Bytes: b[recordHeader:]}
	copy(r.Hash[:], b[16:])
	copy(r.Prev[:], b[48:])
	return r, nil
}

// find returns the offset of the first whole record in b, -1 when there is none.
func (m marks) find(b []byte) int {
	magic := binary.BigEndian.AppendUint32(nil, m.magic)
	for at := 0; ; at++ {
		next := bytes.Index(b[at:], magic)
		if next < 0 {
			return -1
		}
		at += next
		if _, err := m.parse(b[at:]); err == nil {
			return at
		}
	}
}

// allZero reports whether b holds nothing but zeros.
func allZero(b []byte) bool {
	return len(bytes.TrimLeft(b, "\x00")) == 0
}
