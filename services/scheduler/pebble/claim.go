package pebble

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/services/scheduler"
)

func (s *Store) checkRoom() error {
	if s.room == nil {
		return nil
	}
	return s.room()
}

// Claims implements scheduler.Store.
func (s *Store) Claims(
	_ context.Context, after scheduler.Claim, by time.Time, limit int,
) (due []scheduler.Claim, err error) {
	start := []byte{tableClaims}
	if !after.Due.IsZero() {
		start = next(claimKey(after))
	}
	stop := binary.BigEndian.AppendUint64([]byte{tableClaims}, ordinal(by)+1)
	err = s.scan(start, stop, limit, func(key, value []byte) (bool, error) {
		if len(key) != claimSize {
			return false, fmt.Errorf("claim of %d bytes", len(key))
		}
		by, err := decodeTeller(value)
		due = append(due, scheduler.Claim{
			Due: timeOf(binary.BigEndian.Uint64(key[1:])), Lease: tx.LeaseID(key[1+timeSize:]), By: by,
		})
		return true, err
	})
	return due, err
}

// Claimed implements scheduler.Store.
func (s *Store) Claimed(_ context.Context, done, again []scheduler.Claim) error {
	if err := s.checkRoom(); err != nil {
		return err
	}
	b := s.db.NewBatch()
	defer b.Close()
	for _, c := range done {
		if err := b.Delete(claimKey(c), nil); err != nil {
			return err
		}
	}
	for _, c := range again {
		if err := b.Set(claimKey(c), encodeTeller(c.By), nil); err != nil {
			return err
		}
	}
	if err := b.Commit(pebble.Sync); err != nil {
		return fmt.Errorf("commit claims: %w", err)
	}
	return nil
}

// tellerSize is of an executor's key, its operator, and two times.
const tellerSize = len(sig.PublicKey{}) + len(sig.AccountID{}) + 2*timeSize

// encodeTeller returns nil of none, as claims had no value before there were any.
func encodeTeller(t scheduler.Teller) []byte {
	if t == (scheduler.Teller{}) {
		return nil
	}
	value := make([]byte, 0, tellerSize)
	value = append(append(value, t.Executor[:]...), t.Operator[:]...)
	value = binary.BigEndian.AppendUint64(value, ordinal(t.Leased))
	return binary.BigEndian.AppendUint64(value, ordinal(t.Told))
}

func decodeTeller(value []byte) (t scheduler.Teller, _ error) {
	if len(value) == 0 {
		return t, nil
	}
	if len(value) != tellerSize {
		return t, fmt.Errorf("teller of %d bytes", len(value))
	}
	value = value[copy(t.Executor[:], value):]
	value = value[copy(t.Operator[:], value):]
	t.Leased = timeOf(binary.BigEndian.Uint64(value))
	t.Told = timeOf(binary.BigEndian.Uint64(value[timeSize:]))
	return t, nil
}
