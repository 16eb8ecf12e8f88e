package pebble

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/united-containers/ucn/services/ledger"
)

// putLists adds what lists and proofs are made of.
func putLists(batch *pebble.Batch, e *ledger.IndexEntry) error {
	at := binary.BigEndian.AppendUint64(nil, e.Time)
	if err := batch.Set(timeKey(e.Height), at, nil); err != nil {
		return err
	}
	for _, n := range e.Nodes {
		if err := batch.Set(nodeKey(n.Level, n.I), n.Root[:], nil); err != nil {
			return err
		}
	}
	for _, row := range e.Rows {
		if err := batch.Set(rowKey(row.ListID, row.At), row.Value, nil); err != nil {
			return err
		}
	}
	return nil
}

func timeKey(height uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{keyTime}, height)
}

func nodeKey(level uint8, i uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{keyNode, level}, i)
}

// Sizes of a row's key: what it begins with, and its place.
const (
	listSize  = 2 + 32
	placeSize = 8 + 4 + 4
)

func rowKey(of ledger.ListID, at ledger.Place) []byte {
	key := append(make([]byte, 0, listSize+placeSize), keyList, byte(of.List))
	key = append(key, of.ID[:]...)
	key = binary.BigEndian.AppendUint64(key, at.Height)
	key = binary.BigEndian.AppendUint32(key, at.Index)
	return binary.BigEndian.AppendUint32(key, at.Operation)
}

// Time implements ledger.Index.
func (x *Index) Time(height uint64) (uint64, bool, error) {
	value, found, err := x.get(timeKey(height), 8)
	if !found || err != nil {
		return 0, false, err
	}
	return binary.BigEndian.Uint64(value), true, nil
}

// Node implements ledger.Index.
func (x *Index) Node(level uint8, i uint64) (ledger.Hash, bool, error) {
	value, found, err := x.get(nodeKey(level, i), len(ledger.Hash{}))
	if !found || err != nil {
		return ledger.Hash{}, false, err
	}
	return ledger.Hash(value), true, nil
}

// List implements ledger.Index.
func (x *Index) List(of ledger.ListID, span ledger.Span, visit func(ledger.Row) bool) error {
	h, err := x.use()
	if err != nil {
		return err
	}
	defer h.users.Done()
	return h.failed(h.list(of, span, visit))
}

func (h *held) list(of ledger.ListID, span ledger.Span, visit func(ledger.Row) bool) error {
	iter, err := h.db.NewIter(&pebble.IterOptions{
		LowerBound: rowKey(of, span.From), UpperBound: rowKey(of, span.To),
	})
	if err != nil {
		return fmt.Errorf("read the index: %w", err)
	}
	begin, step := iter.First, iter.Next
	if span.Newest {
		begin, step = iter.Last, iter.Prev
	}
	err = nil
	for more := begin(); more && err == nil; more = step() {
		key := iter.Key()
		if len(key) != listSize+placeSize {
			err = fmt.Errorf("a row's key has %d bytes: %w", len(key), pebble.ErrCorruption)
			break
		}
		place := key[listSize:]
		row := ledger.Row{ListID: of, At: ledger.Place{
			Height:    binary.BigEndian.Uint64(place),
			Index:     binary.BigEndian.Uint32(place[8:]),
			Operation: binary.BigEndian.Uint32(place[12:]),
		}}
		if row.Value, err = iter.ValueAndErr(); err == nil && !visit(row) {
			break
		}
	}
	if err := errors.Join(err, iter.Error(), iter.Close()); err != nil {
		return fmt.Errorf("read the index: %w", err)
	}
	return nil
}

// Between implements ledger.Index.
func (x *Index) Between(low, high ledger.Hash, most int) (transactions, blocks []ledger.Hash,
	err error) {
	h, err := x.use()
	if err != nil {
		return nil, nil, err
	}
	defer h.users.Done()
	if transactions, err = h.between(keyTransaction, low, high, most); err != nil {
		return nil, nil, h.failed(err)
	}
	blocks, err = h.between(keyBlock, low, high, most)
	return transactions, blocks, h.failed(err)
}

func (h *held) between(kind byte, low, high ledger.Hash, most int) ([]ledger.Hash, error) {
	iter, err := h.db.NewIter(&pebble.IterOptions{
		LowerBound: key(kind, low), UpperBound: append(key(kind, high), 0),
	})
	if err != nil {
		return nil, fmt.Errorf("read the index: %w", err)
	}
	var ids []ledger.Hash
	for more := iter.First(); more && len(ids) < most; more = iter.Next() {
		if id := iter.Key()[1:]; len(id) == len(ledger.Hash{}) {
			ids = append(ids, ledger.Hash(id))
		}
	}
	if err := errors.Join(iter.Error(), iter.Close()); err != nil {
		return nil, fmt.Errorf("read the index: %w", err)
	}
	return ids, nil
}
