package pebble

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/services/scheduler"
)

// The first byte of a key tells the table. Keys below the first belong to others in the same store
// (outbox, cursors). Tables 0xa0 to 0xa3 were JSON records of versions before the first release.
const (
	tableJob      = 0xb0 // job id -> when to look, record
	tableRevision = 0xb1 // job id -> signed revision
	tableOwner    = 0xb2 // owner, submitted, job id
	tableQueue    = 0xb3 // owner, order, job id, run id -> due, shape, size, bid
	tableDue      = 0xb4 // when to look, job id
	tableLive     = 0xb5 // job id
	tableTasks    = 0xb6 // job id, number of the chunk -> one byte per task of an array
	tableClaims   = 0xb7 // when to look, lease id
)

// Sizes of keys and of their parts, bytes.
const (
	idSize     = 32
	runSize    = 16
	timeSize   = 8
	ownerSize  = 1 + idSize + timeSize + idSize
	queueSize  = ownerSize + runSize
	dueSize    = 1 + timeSize + idSize
	claimSize  = dueSize
	valueSize  = timeSize + 8 + 4 + 1
	queueOrder = 1 + idSize
)

// farthest is the last time that is told apart, in the year 2262.
const farthest = math.MaxInt64 / int64(time.Second)

// ordinal is a time as a number that sorts alike: ns since 1970, 0 for what is before.
func ordinal(t time.Time) uint64 {
	switch seconds := t.Unix(); {
	case seconds < 0:
		return 0
	case seconds >= farthest:
		return math.MaxInt64
	}
	return uint64(t.UnixNano())
}

// timeOf is the time of an ordinal; 0 is the zero time.
func timeOf(ordinal uint64) time.Time {
	if ordinal == 0 {
		return time.Time{}
	}
	return time.Unix(0, int64(min(ordinal, math.MaxInt64)))
}

func tasksKey(id job.ID, chunk uint32) []byte {
	return binary.BigEndian.AppendUint32(append([]byte{tableTasks}, id[:]...), chunk)
}

func jobKey(id job.ID) []byte      { return append([]byte{tableJob}, id[:]...) }
func revisionKey(id job.ID) []byte { return append([]byte{tableRevision}, id[:]...) }

func liveKey(id job.ID) []byte { return append([]byte{tableLive}, id[:]...) }

func ownerKey(owner sig.AccountID, at scheduler.Cursor) []byte {
	key := make([]byte, 0, ownerSize)
	key = append(append(key, tableOwner), owner[:]...)
	key = binary.BigEndian.AppendUint64(key, ordinal(at.Time))
	return append(key, at.Job[:]...)
}

func queueKey(owner sig.AccountID, at scheduler.Place) []byte {
	key := make([]byte, 0, queueSize)
	key = append(append(key, tableQueue), owner[:]...)
	key = binary.BigEndian.AppendUint64(key, ordinal(at.Order))
	return append(append(key, at.Job[:]...), at.Run[:]...)
}

func queueValue(r scheduler.Ref) []byte {
	value := make([]byte, 0, valueSize)
	value = binary.BigEndian.AppendUint64(value, ordinal(r.Due))
	value = append(value, r.Shape[:]...)
	value = binary.BigEndian.AppendUint32(value, r.Size)
	return append(value, r.Bid)
}

func parseRef(key, value []byte) (r scheduler.Ref, err error) {
	if len(key) != queueSize || len(value) != valueSize {
		return r, fmt.Errorf("queue entry of %d and %d bytes", len(key), len(value))
	}
	key = key[queueOrder:]
	return scheduler.Ref{
		Order: timeOf(binary.BigEndian.Uint64(key)), Job: job.ID(key[timeSize : timeSize+idSize]),
		Run: scheduler.RunID(key[timeSize+idSize:]), Due: timeOf(binary.BigEndian.Uint64(value)),
		Shape: scheduler.Shape(value[timeSize : timeSize+8]),
		Size:  binary.BigEndian.Uint32(value[timeSize+8:]), Bid: value[valueSize-1],
	}, nil
}

func dueKey(at scheduler.Cursor) []byte {
	key := binary.BigEndian.AppendUint64([]byte{tableDue}, ordinal(at.Time))
	return append(key, at.Job[:]...)
}

func claimKey(c scheduler.Claim) []byte {
	key := binary.BigEndian.AppendUint64([]byte{tableClaims}, ordinal(c.Due))
	return append(key, c.Lease[:]...)
}

// next is the smallest key behind key.
func next(key []byte) []byte { return append(slices.Clone(key), 0) }

// end is the smallest key behind all that have the prefix.
func end(prefix []byte) []byte {
	out := slices.Clone(prefix)
	for i := len(out) - 1; i >= 0; i-- {
		if out[i]++; out[i] != 0 {
			return out[:i+1]
		}
	}
	return nil
}
