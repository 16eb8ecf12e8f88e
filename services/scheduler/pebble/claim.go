package pebble

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"

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
	err = s.scan(start, stop, limit, func(key, _ []byte) (bool, error) {
		if len(key) != claimSize {
			return false, fmt.Errorf("claim of %d bytes", len(key))
		}
		due = append(due, scheduler.Claim{
			Due: timeOf(binary.BigEndian.Uint64(key[1:])), Lease: tx.LeaseID(key[1+timeSize:]),
		})
		return true, nil
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
		if err := b.Set(claimKey(c), nil, nil); err != nil {
			return err
		}
	}
	if err := b.Commit(pebble.Sync); err != nil {
		return fmt.Errorf("commit claims: %w", err)
	}
	return nil
}
