package pebble

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	db "github.com/cockroachdb/pebble/v2"

	"github.com/united-containers/ucn/kit/event"
)

// errCorrupt says that the database holds what was never written.
var errCorrupt = errors.New("the database is corrupt")

// space returns prefix and kind, with room for the rest of a key.
func (o *Outbox) space(kind byte) []byte {
	key := make([]byte, 0, len(o.prefix)+1+32+1+16)
	return append(append(key, o.prefix...), kind)
}

func (o *Outbox) key(kind byte, position uint64) []byte {
	return binary.BigEndian.AppendUint64(o.space(kind), position)
}

func (o *Outbox) headKey(topic event.Topic) []byte {
	return append(o.space(kindHead), topicByte(topic))
}

// span returns the bounds of all keys of a kind.
func (o *Outbox) span(kind byte) *db.IterOptions {
	return &db.IterOptions{LowerBound: o.space(kind), UpperBound: o.space(kind + 1)}
}

// position reads the position at the end of a key.
func (o *Outbox) position(key []byte) (uint64, error) {
	if len(key) != len(o.prefix)+1+8 {
		return 0, fmt.Errorf("%w: key of %d bytes", errCorrupt, len(key))
	}
	return binary.BigEndian.Uint64(key[len(key)-8:]), nil
}

// topicByte stands for a topic on disk; the numbers never change. An unknown topic is refused
// before it comes here.
func topicByte(topic event.Topic) byte {
	return byte(slices.Index(event.Topics(), topic) + 1)
}

// placeOf is where an envelope stands: topic, epoch, seq.
func placeOf(topic event.Topic, head event.Head) []byte {
	place := binary.BigEndian.AppendUint64([]byte{topicByte(topic)}, head.Epoch)
	return binary.BigEndian.AppendUint64(place, head.Seq)
}

const headSize = 8 + 8 + 32

func encodeHead(head event.Head) []byte {
	raw := make([]byte, 0, headSize)
	raw = binary.BigEndian.AppendUint64(raw, head.Epoch)
	raw = binary.BigEndian.AppendUint64(raw, head.Seq)
	return append(raw, head.Hash[:]...)
}

// decodeHead reads what encodeHead wrote and returns what stands behind it.
func decodeHead(raw []byte) (head event.Head, rest []byte, err error) {
	if len(raw) < headSize {
		return event.Head{}, nil, fmt.Errorf("%w: head of %d bytes", errCorrupt, len(raw))
	}
	return event.Head{
		Epoch: binary.BigEndian.Uint64(raw),
		Seq:   binary.BigEndian.Uint64(raw[8:]),
		Hash:  [32]byte(raw[16:headSize]),
	}, raw[headSize:], nil
}

// read returns a copy of a value.
func read(from db.Reader, key []byte) (value []byte, err error) {
	raw, closer, err := from.Get(key)
	if err != nil {
		return nil, err
	}
	value = slices.Clone(raw)
	return value, closer.Close()
}
